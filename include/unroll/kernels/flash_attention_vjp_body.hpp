#pragma once

#include "unroll/kernels/flash_attention_parts.hpp"

// The vjp of attention on tensor cores. With p_ti = exp(s_ti - log_sum_i), which is computed once more, and
// delta_i = out_i . dout_i,
//   ds_ti = p_ti (v_t . dout_i - delta_i) / sqrt(Head),
//   dv_t = sum_i p_ti dout_i,  dk_t = sum_i ds_ti q_i,  dq_i = sum_t ds_ti k_t.
// One block owns a tile of keys and walks over queries in order, or a tile of queries and walks over keys, so
// that all sums have one order; p and ds are rounded to bfloat16 for the second product.
namespace unroll::kernels {

/// delta[head + column heads] = out . dout of a head of a column; a warp each.
template <int Head>
struct flash_delta_body {
  static constexpr int threads = 128;
  matrix<const bf16> out, dout;  ///< heads * Head x columns
  index_t heads = 0;
  float* delta = nullptr;

  UNROLL_HD index_t blocks() const { return ceil_div(heads * out.cols, threads / 32); }
  UNROLL_HD index_t shared_bytes() const { return 0; }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.warps([&](const auto& w) {
      const index_t task = c.block() * (threads / 32) + w.index();
      if (task >= heads * out.cols) return;
      const index_t head = task % heads, column = task / heads;
      auto sum = w.template fragment<float, 1>();
      w.lanes([&](int lane) {
        const bf16* const x = out.data + head * Head + column * out.stride;
        const bf16* const y = dout.data + head * Head + column * dout.stride;
        sum(lane, 0) = 0;
        UNROLL_UNROLLED
        for (int i = 0; i < Head / 32; ++i)
          sum(lane, 0) = fmaf(float(x[lane + 32 * i]), float(y[lane + 32 * i]), sum(lane, 0));
      });
      w.sum(sum);
      w.lanes([&](int lane) {
        if (lane == 0) delta[task] = sum(lane, 0);
      });
    });
  }
};

/// What the vjp is given beside the operands.
struct flash_cotangents {
  const float* log_sum = nullptr;  ///< heads x queries, of the forward pass
  const float* delta = nullptr;    ///< of flash_delta_body
  matrix<const bf16> dout;         ///< as q
};

namespace detail {

/// p of a score, ds from it and v . dout; both 0 where the query does not see the key.
struct probability_pair {
  float p, ds;
};
UNROLL_HD inline probability_pair probability_of(bool seen, float s, float dp, float scale, float root,
                                                 float log_sum, float delta) {
  if (!seen) return {0.0f, 0.0f};
  const float p = exp2_of_negative(fmaf(s, scale, -log_sum));
  return {p, p * (dp - delta) * root};
}

}  // namespace detail

/// The sums over queries for a tile of 64 keys of one key-value head, 16 a warp. With Prefix the keys are
/// those of the prefix's blocks, counted through all of them, and each sequence's sums are ADDED, one
/// sequence after another, to dbefore (one address a block, laid out as the blocks; null: not wanted); else
/// they are the sequences' own, and WRITTEN to dk and dv, kv_width x sequences * tokens.
template <int Head, bool Prefix>
struct flash_dkv_body {
  static constexpr int threads = 128, key_tile = 64, query_tile = 32, stages = 2;

  flash_operands on;
  flash_cotangents given;
  matrix<bf16> dk, dv;
  float* const* dbefore = nullptr;
  index_t prefix_blocks = 0, block_keys = 0;

  UNROLL_HD index_t tokens() const { return on.mask.first + on.queries(); }
  UNROLL_HD index_t keys() const { return Prefix ? prefix_blocks * block_keys : tokens(); }
  UNROLL_HD index_t blocks() const {
    return on.sequences > 0 ? ceil_div(keys(), key_tile) * on.shape.kv_heads * (Prefix ? 1 : on.sequences)
                            : 0;
  }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<bf16>(2 * key_tile * Head) + shared_size<bf16>(2 * stages * query_tile * Head) +
           shared_size<float>(2 * stages * query_tile);
  }

  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    using namespace detail;
    constexpr int head_tiles8 = Head / 8, query_tiles8 = query_tile / 8;
    const int kv_heads = int(on.shape.kv_heads), tiles = int(ceil_div(keys(), key_tile));
    const int g = int(c.block() % kv_heads), from = int(c.block() / kv_heads % tiles) * key_tile;
    const int heads = int(on.shape.heads), group = heads / kv_heads, n = int(on.queries());
    const index_t row = index_t(g) * Head;

    bf16* const fixed = c.template shared<bf16>(2 * key_tile * Head);
    const swizzled<Head> K{fixed}, V{fixed + key_tile * Head};
    bf16* const staged = c.template shared<bf16>(2 * stages * query_tile * Head);
    float* const numbers = c.template shared<float>(2 * stages * query_tile);
    const auto queries_of = [=](int step) {
      return swizzled<Head>{staged + step % 2 * (2 * query_tile * Head)};
    };
    const auto cotangents_of = [=](int step) {
      return swizzled<Head>{queries_of(step).at + query_tile * Head};
    };

    const index_t own = c.block() / (kv_heads * tiles);  // the sequence, unless Prefix
    c.phase([&](int thread) {
      const auto at = [&](int r, index_t offset, const matrix<const bf16>& m) -> const bf16* {
        if (from + r >= int(keys())) return nullptr;
        if constexpr (Prefix)
          return on.before.blocks[(from + r) / block_keys] + offset + row +
                 (from + r) % block_keys * on.shape.kv_width();
        else
          return m.data + row + (own * tokens() + from + r) * m.stride;
      };
      fetch_rows<Head, key_tile, threads>(c, thread, K, on.k.data,
                                          [&](int r) { return at(r, on.before.key_offset, on.k); });
      fetch_rows<Head, key_tile, threads>(c, thread, V, on.v.data,
                                          [&](int r) { return at(r, on.before.value_offset, on.v); });
    });
    c.commit();

    auto sum_k = c.template fragments<float, head_tiles8 * 4>();
    auto sum_v = c.template fragments<float, head_tiles8 * 4>();
    const float root = 1.0f / sqrtf(float(Head)), scale = 1.44269504f * root;

    for (index_t sequence = Prefix ? 0 : own; sequence < (Prefix ? on.sequences : own + 1); ++sequence) {
      // the tile's keys that this sequence sees, and its first query that sees any
      const prefix_range range = on.before.range(sequence);
      const auto shown = [&](int key) {
        if constexpr (Prefix) {
          const index_t b = key / block_keys;
          return b >= range.first && b < range.first + range.blocks && key % block_keys < range.keys;
        } else {
          return true;
        }
      };
      int first = 0;
      if constexpr (Prefix) {
        if (from >= (range.first + range.blocks) * block_keys || from + key_tile <= range.first * block_keys)
          continue;
      } else {
        first = int(larger(0, from - on.mask.first)) / query_tile * query_tile;
      }
      const int query_tiles = int(ceil_div(n - first, query_tile)), steps = query_tiles * group;
      const index_t column = sequence * n;
      const auto head_of = [=](int step) { return g * group + step / query_tiles; };
      const auto query_of = [=](int step) { return first + step % query_tiles * query_tile; };
      const auto load_queries = [&](int step) {
        c.phase([&](int thread) {
          const int head = head_of(step), query = query_of(step);
          const auto rows_of_head = [&](const matrix<const bf16>& m) {
            return [=](int r) {
              return query + r < n ? m.data + head * Head + (column + query + r) * m.stride : nullptr;
            };
          };
          fetch_rows<Head, query_tile, threads>(c, thread, queries_of(step), on.q.data, rows_of_head(on.q));
          fetch_rows<Head, query_tile, threads>(c, thread, cotangents_of(step), on.q.data,
                                                rows_of_head(given.dout));
          if (thread < query_tile && query + thread < n) {
            const index_t at = head + (column + query + thread) * heads;
            float* const to = numbers + step % 2 * (2 * query_tile) + thread;
            to[0] = given.log_sum[at] * 1.44269504f;
            to[query_tile] = given.delta[at];
          }
        });
        c.commit();
      };
      c.warps([&](const auto& w) {
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int i = 0; i < head_tiles8 * 4; ++i) sum_k(w, lane, i) = sum_v(w, lane, i) = 0;
        });
      });
      load_queries(0);
      for (int step = 0; step < steps; ++step) {
        c.template wait<0>();
        if (step + 1 < steps) load_queries(step + 1);
        const swizzled<Head> Q = queries_of(step), D = cotangents_of(step);
        const float* const log_sums = numbers + step % 2 * (2 * query_tile);
        const int query = query_of(step);
        c.warps([&](const auto& w) {
          const int row0 = 16 * w.index();
          auto s = w.template fragment<float, query_tiles8 * 4>();
          auto dp = w.template fragment<float, query_tiles8 * 4>();
          auto p = w.template fragment<word, query_tiles8 * 2>();
          auto ds = w.template fragment<word, query_tiles8 * 2>();
          w.lanes([&](int lane) {
            UNROLL_UNROLLED
            for (int i = 0; i < query_tiles8 * 4; ++i) s(lane, i) = dp(lane, i) = 0;
          });
          multiply_rows<Head, 1, query_tile>(w, s, K, row0, Q);
          multiply_rows<Head, 1, query_tile>(w, dp, V, row0, D);
          w.lanes([&](int lane) {
            UNROLL_UNROLLED
            for (int h = 0; h < 2; ++h) {
              const int key = from + row0 + lane / 4 + 8 * h;
              const bool of_sequence = key < int(keys()) && shown(key);
              UNROLL_UNROLLED
              for (int t = 0; t < query_tiles8; ++t) {
                probability_pair x[2];
                UNROLL_UNROLLED
                for (int i = 0; i < 2; ++i) {
                  const int r = 8 * t + 2 * (lane % 4) + i, at = 4 * t + 2 * h + i;
                  bool seen = of_sequence && query + r < n;
                  if (!Prefix)
                    seen = seen && (key < on.mask.visible(query + r) || key == on.mask.first + query + r);
                  x[i] = probability_of(seen, s(lane, at), dp(lane, at), scale, root, log_sums[r],
                                        log_sums[query_tile + r]);
                }
                p(lane, operand_word(t, h)) = pack_rounded(x[0].p, x[1].p);
                ds(lane, operand_word(t, h)) = pack_rounded(x[0].ds, x[1].ds);
              }
            }
          });
          multiply_probabilities<Head, 1, query_tile>(w, sum_v, p, D);
          multiply_probabilities<Head, 1, query_tile>(w, sum_k, ds, Q);
        });
      }
      c.warps([&](const auto& w) {
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int h = 0; h < 2; ++h) {
            const int key = from + 16 * w.index() + lane / 4 + 8 * h;
            if (key >= int(keys()) || !shown(key)) continue;
            const int d = 2 * (lane % 4);
            if constexpr (Prefix) {
              float* const to = dbefore[key / block_keys];
              if (!to) continue;
              float* const at = to + row + key % block_keys * on.shape.kv_width() + d;
              UNROLL_UNROLLED
              for (int i = 0; i < head_tiles8 * 2; ++i) {
                at[on.before.key_offset + i / 2 * 8 + i % 2] += sum_k(w, lane, i / 2 * 4 + 2 * h + i % 2);
                at[on.before.value_offset + i / 2 * 8 + i % 2] += sum_v(w, lane, i / 2 * 4 + 2 * h + i % 2);
              }
            } else {
              const index_t col = own * tokens() + key;
              UNROLL_UNROLLED
              for (int t = 0; t < head_tiles8; ++t) {
                const int i = 4 * t + 2 * h;
                *reinterpret_cast<word*>(dk.data + row + 8 * t + d + col * dk.stride) =
                    pack_rounded(sum_k(w, lane, i), sum_k(w, lane, i + 1));
                *reinterpret_cast<word*>(dv.data + row + 8 * t + d + col * dv.stride) =
                    pack_rounded(sum_v(w, lane, i), sum_v(w, lane, i + 1));
              }
            }
          }
        });
      });
    }
    if constexpr (Prefix) c.template wait<0>();  // the keys of a tile that nobody sees
  }
};

/// dq for a tile of 64 queries of one head, 16 a warp: query_width x queries; may be the memory of q or of
/// dout where nothing else needs these any more.
template <int Head>
struct flash_dq_body {
  static constexpr int threads = 128, query_tile = 64, key_tile = 64, stages = 2;

  flash_operands on;
  flash_cotangents given;
  matrix<bf16> dq;

  UNROLL_HD index_t blocks() const {
    return on.sequences > 0 ? ceil_div(on.queries(), query_tile) * on.shape.heads * on.sequences : 0;
  }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<bf16>(2 * query_tile * Head) + shared_size<bf16>(2 * stages * key_tile * Head);
  }

  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    using namespace detail;
    constexpr int key_tiles8 = key_tile / 8, head_tiles8 = Head / 8;
    const attention_mask& mask = on.mask;
    const int n = int(on.queries()), tiles = int(ceil_div(n, query_tile)), heads = int(on.shape.heads);
    const int head = int(c.block() % heads), tile = tiles - 1 - int(c.block() / heads % tiles);
    const index_t sequence = c.block() / (heads * tiles), column = sequence * n;
    const int first = tile * query_tile, last = int(smaller(first + query_tile, n)) - 1;
    const sequence_keys<Head> keys(on, sequence, int(head / (heads / on.shape.kv_heads)));
    const int prefix = keys.prefix;
    const key_tiles walk(mask, prefix, first, last, key_tile);

    bf16* const fixed = c.template shared<bf16>(2 * query_tile * Head);
    const swizzled<Head> Q{fixed}, D{fixed + query_tile * Head};
    bf16* const staged = c.template shared<bf16>(2 * stages * key_tile * Head);
    const auto keys_of = [=](int step) { return swizzled<Head>{staged + step % 2 * (2 * key_tile * Head)}; };
    const auto values_of = [=](int step) { return swizzled<Head>{keys_of(step).at + key_tile * Head}; };
    const auto load_keys = [&](int step) {
      c.phase([&](int thread) {
        fetch_keys<Head, key_tile, threads>(c, thread, keys_of(step), values_of(step), keys,
                                            walk.tile(step) * key_tile);
      });
      c.commit();
    };
    c.phase([&](int thread) {
      const auto rows_of_head = [&](const matrix<const bf16>& m) {
        return [=](int r) {
          return first + r < n ? m.data + head * Head + (column + first + r) * m.stride : nullptr;
        };
      };
      fetch_rows<Head, query_tile, threads>(c, thread, Q, on.q.data, rows_of_head(on.q));
      fetch_rows<Head, query_tile, threads>(c, thread, D, on.q.data, rows_of_head(given.dout));
    });
    load_keys(0);

    auto sum = c.template fragments<float, head_tiles8 * 4>();
    auto log_sum = c.template fragments<float, 2>();
    auto delta = c.template fragments<float, 2>();
    c.warps([&](const auto& w) {
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int i = 0; i < head_tiles8 * 4; ++i) sum(w, lane, i) = 0;
        UNROLL_UNROLLED
        for (int h = 0; h < 2; ++h) {
          const int i = first + 16 * w.index() + lane / 4 + 8 * h;
          const index_t at = head + (column + (i < n ? i : n - 1)) * heads;
          log_sum(w, lane, h) = given.log_sum[at] * 1.44269504f;
          delta(w, lane, h) = given.delta[at];
        }
      });
    });
    const float root = 1.0f / sqrtf(float(Head)), scale = 1.44269504f * root;

    for (int step = 0; step < walk.steps; ++step) {
      c.template wait<0>();
      if (step + 1 < walk.steps) load_keys(step + 1);
      const swizzled<Head> K = keys_of(step), V = values_of(step);
      const int from = walk.tile(step) * key_tile;
      c.warps([&](const auto& w) {
        const int row0 = 16 * w.index();
        auto s = w.template fragment<float, key_tiles8 * 4>();
        auto dp = w.template fragment<float, key_tiles8 * 4>();
        auto ds = w.template fragment<word, key_tiles8 * 2>();
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int i = 0; i < key_tiles8 * 4; ++i) s(lane, i) = dp(lane, i) = 0;
        });
        multiply_rows<Head, 1, key_tile>(w, s, Q, row0, K);
        multiply_rows<Head, 1, key_tile>(w, dp, D, row0, V);
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int h = 0; h < 2; ++h) {
            const int query = first + row0 + lane / 4 + 8 * h;
            // of this tile's keys, those below `visible` and `self`
            const int visible = int(prefix + mask.visible(query)) - from;
            const int self = int(prefix + mask.first + query) - from;
            UNROLL_UNROLLED
            for (int t = 0; t < key_tiles8; ++t) {
              float x[2];
              UNROLL_UNROLLED
              for (int i = 0; i < 2; ++i) {
                const int key = 8 * t + 2 * (lane % 4) + i, at = 4 * t + 2 * h + i;
                x[i] = probability_of(query < n && (key < visible || key == self), s(lane, at), dp(lane, at),
                                      scale, root, log_sum(w, lane, h), delta(w, lane, h))
                           .ds;
              }
              ds(lane, operand_word(t, h)) = pack_rounded(x[0], x[1]);
            }
          }
        });
        multiply_probabilities<Head, 1, key_tile>(w, sum, ds, K);
      });
    }

    c.warps([&](const auto& w) {
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int h = 0; h < 2; ++h) {
          const int i = first + 16 * w.index() + lane / 4 + 8 * h;
          if (i >= n) continue;
          bf16* const to = dq.data + head * Head + 2 * (lane % 4) + (column + i) * dq.stride;
          UNROLL_UNROLLED
          for (int t = 0; t < head_tiles8; ++t)
            *reinterpret_cast<word*>(to + 8 * t) =
                pack_rounded(sum(w, lane, 4 * t + 2 * h), sum(w, lane, 4 * t + 2 * h + 1));
        }
      });
    });
  }
};

}  // namespace unroll::kernels
