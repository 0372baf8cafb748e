#pragma once

#include "unroll/kernels/flash_attention_parts.hpp"

// The vjp of attention on tensor cores. With p_ti = exp(s_ti - log_sum_i), which is computed once more, and
// delta_i = out_i . dout_i,
//   ds_ti = p_ti (v_t . dout_i - delta_i) / sqrt(Head),
//   dv_t = sum_i p_ti dout_i,  dk_t = sum_i ds_ti q_i,  dq_i = sum_t ds_ti k_t.
// One block owns a tile of keys and walks over queries in order, or a tile of queries and walks over keys, so
// that all sums have one order; p and ds are rounded to bfloat16 for the second product. A query that became
// NaN makes its ds NaN, and with it dq and the dk of what it sees.
namespace unroll::kernels {

/// delta[head + column heads] = out . dout of a head of a column; a warp each.
template <int Head>
struct flash_delta_body {
  static constexpr int threads = 128;
  matrix<const bf16> out, dout;  ///< heads * Head x columns
  index_t heads = 0;
  float* delta = nullptr;

  UNROLL_HD index_t blocks() const { return ceil_div(heads * out.cols, threads / 32); }
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

// p = 2^(120 (y - 1)) with y = s per_share / sqrt(Head) + shift; 2^-120 where that is below it
constexpr float per_share = 1.44269504f / 120;
UNROLL_HD inline float shift_of(float log_sum) { return fmaf(-log_sum, per_share, 1.0f); }

}  // namespace detail

/// The sums over queries for a tile of keys of one key-value head, 16 a warp. With Prefix the keys are
/// those of the prefix's blocks, counted through all of them, and each sequence's sums are ADDED, one
/// sequence after another, to dbefore (one address a block, laid out as the blocks; null: not wanted); else
/// they are the sequences' own, and WRITTEN to dk and dv, kv_width x sequences * tokens.
template <int Head, bool Prefix, int Groups = multiply_in_groups ? 2 : 1, bool Together = multiply_in_groups>
struct flash_dkv_body {
  static constexpr int threads = 128 * Groups, key_tile = 64 * Groups, query_tile = Together ? 64 : 32,
                       stages = 2;

  flash_operands on;
  flash_cotangents given;
  matrix<bf16> dk = {}, dv = {};
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
    const attention_mask& mask = on.mask;
    const int kv_heads = int(on.shape.kv_heads), tiles = int(ceil_div(keys(), key_tile)), end = int(keys());
    const int g = int(c.block() % kv_heads), from = int(c.block() / kv_heads % tiles) * key_tile;
    const int heads = int(on.shape.heads), group = heads / kv_heads, n = int(on.queries());
    const index_t row = index_t(g) * Head;

    using key_panels = panels<key_tile, Head>;
    using pairs = staged_pairs<query_tile, Head, stages>;  // queries and their cotangents
    bf16* const fixed = c.template shared<bf16>(2 * key_panels::size);
    const key_panels K{fixed}, V{fixed + key_panels::size};
    const pairs staged{c.template shared<bf16>(pairs::size)};
    float* const numbers = c.template shared<float>(2 * stages * query_tile);

    const index_t own = c.block() / (kv_heads * tiles);  // the sequence, unless Prefix
    c.phase(
        [&](int thread) {
          if constexpr (Prefix) {
            const auto at = [&](int r, index_t offset) -> const bf16* {
              if (from + r >= end) return nullptr;
              return on.before.blocks[(from + r) / block_keys] + offset + row +
                     (from + r) % block_keys * on.shape.kv_width();
            };
            fetch_rows<threads>(c, thread, K, on.k.data, [&](int r) { return at(r, on.before.key_offset); });
            fetch_rows<threads>(c, thread, V, on.v.data,
                                [&](int r) { return at(r, on.before.value_offset); });
          } else {
            fetch_columns<threads>(c, thread, K, on.k, row, own * tokens() + from, end - from);
            fetch_columns<threads>(c, thread, V, on.v, row, own * tokens() + from, end - from);
          }
        },
        no_barrier{});
    c.commit();

    auto sum_k = c.template fragments<float, head_tiles8 * 4>();
    auto sum_v = c.template fragments<float, head_tiles8 * 4>();
    const float root = 1.0f / sqrtf(float(Head)), scale = per_share * root;

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
        first = int(larger(0, from - mask.first)) / query_tile * query_tile;
      }
      const int query_tiles = int(ceil_div(n - first, query_tile)), steps = query_tiles * group;
      const index_t column = sequence * n;
      const auto load_queries = [&](int step, int head, int query) {
        c.phase(
            [&](int thread) {
              fetch_columns<threads>(c, thread, staged.first(step), on.q, head * Head, column + query,
                                     n - query);
              fetch_columns<threads>(c, thread, staged.second(step), given.dout, head * Head, column + query,
                                     n - query);
              if (thread < query_tile) {
                const bool valid = query + thread < n;
                const index_t at = valid ? head + (column + query + thread) * heads : 0;
                float* const to = numbers + step % stages * (2 * query_tile) + thread;
                c.copy_async(to, given.log_sum + at, 4, valid);
                c.copy_async(to + query_tile, given.delta + at, 4, valid);
              }
            },
            no_barrier{});
        c.commit();
      };
      c.warps(
          [&](const auto& w) {
            w.lanes([&](int lane) {
              UNROLL_UNROLLED
              for (int i = 0; i < head_tiles8 * 4; ++i) sum_k(w, lane, i) = sum_v(w, lane, i) = 0;
            });
          },
          no_barrier{});
      int head = g * group, query = first;  // of the step that is being loaded
      load_queries(0, head, query);
      for (int step = 0; step < steps; ++step) {
        const int here = query;
        // the barrier is there as well because nobody reads the tile before this one behind it
        c.template wait<0, Together>();
        query += query_tile;
        if (query >= n) {
          query = first;
          ++head;
        }
        if (step + 1 < steps) load_queries(step + 1, head, query);
        const auto Q = staged.first(step), D = staged.second(step);
        const float* const log_sums = numbers + step % stages * (2 * query_tile);
        c.warps(
            [&](const auto& w) {
              const int of_group = from + w.index() / 4 * 64;
              const int last = int(smaller(here + query_tile, n)) - 1;
              if (of_group >= end || (!Prefix && !mask.memory_token(last) && of_group > mask.first + last))
                return;
              bool all_seen = of_group + 64 <= end && here + query_tile <= n;
              if constexpr (Prefix)
                all_seen = all_seen && range.keys == block_keys && of_group >= range.first * block_keys &&
                           of_group + 64 <= (range.first + range.blocks) * block_keys;
              else
                all_seen = all_seen && !mask.memory_token(last) && of_group + 63 <= mask.first + here;
              auto s = w.template fragment<float, query_tiles8 * 4>();
              auto dp = w.template fragment<float, query_tiles8 * 4>();
              auto p = w.template fragment<word, query_tiles8 * 2>();
              auto ds = w.template fragment<word, query_tiles8 * 2>();
              multiply_rows<Together>(w, s, K, Q);
              multiply_rows<Together>(w, dp, V, D);
              const auto hide = [&](int lane, auto& x) {
                if (all_seen) return;
                UNROLL_UNROLLED
                for (int h = 0; h < 2; ++h) {
                  const int key = of_group + w.index() % 4 * 16 + lane / 4 + 8 * h;
                  const bool of_sequence = key < end && shown(key);
                  UNROLL_UNROLLED
                  for (int t = 0; t < query_tiles8 * 2; ++t) {
                    const int i = here + t / 2 * 8 + 2 * (lane % 4) + t % 2;
                    bool seen = of_sequence && i < n;
                    if (!Prefix) seen = seen && (key < mask.visible(i) || key == mask.first + i);
                    if (!seen) x(lane, t / 2 * 4 + 2 * h + t % 2) = 0;
                  }
                }
              };
              const auto query_at = [](int lane, int i) { return i / 4 * 8 + 2 * (lane % 4) + i % 2; };
              finish<1, Together>(w, s.view());
              w.lanes([&](int lane) {
                UNROLL_UNROLLED
                for (int i = 0; i < query_tiles8 * 4; ++i)
                  s(lane, i) = exp2_of_share<120>(
                      saturated_fma(s(lane, i), scale, shift_of(log_sums[query_at(lane, i)])));
                hide(lane, s);
                UNROLL_UNROLLED
                for (int i = 0; i < query_tiles8 * 2; ++i)
                  p(lane, operand_word(i / 2, i % 2)) = pack_rounded(s(lane, 2 * i), s(lane, 2 * i + 1));
              });
              multiply_columns<Together>(w, sum_v, p, D);
              finish<1, Together>(w, dp.view());
              w.lanes([&](int lane) {
                UNROLL_UNROLLED
                for (int i = 0; i < query_tiles8 * 4; ++i)
                  dp(lane, i) = s(lane, i) * (dp(lane, i) - log_sums[query_tile + query_at(lane, i)]);
                hide(lane, dp);
                UNROLL_UNROLLED
                for (int i = 0; i < query_tiles8 * 2; ++i)
                  ds(lane, operand_word(i / 2, i % 2)) = pack_rounded(dp(lane, 2 * i), dp(lane, 2 * i + 1));
              });
              multiply_columns<Together>(w, sum_k, ds, Q);
              finish<0, Together>(w, sum_v.of(w));
              finish<0, Together>(w, sum_k.of(w));
            },
            no_barrier{});
      }
      c.warps([&](const auto& w) {
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int h = 0; h < 2; ++h) {
            const int key = from + 16 * w.index() + lane / 4 + 8 * h;
            if (key >= end || !shown(key)) continue;
            const int d = 2 * (lane % 4);
            if constexpr (Prefix) {
              float* const to = dbefore[key / block_keys];
              if (!to) continue;
              float* const at = to + row + key % block_keys * on.shape.kv_width() + d;
              UNROLL_UNROLLED
              for (int i = 0; i < head_tiles8 * 2; ++i) {
                const int column_of = i / 2 * 8 + i % 2, of = i / 2 * 4 + 2 * h + i % 2;
                at[on.before.key_offset + column_of] += sum_k(w, lane, of) * root;
                at[on.before.value_offset + column_of] += sum_v(w, lane, of);
              }
            } else {
              const index_t col = own * tokens() + key;
              UNROLL_UNROLLED
              for (int t = 0; t < head_tiles8; ++t) {
                const int i = 4 * t + 2 * h;
                *reinterpret_cast<word*>(dk.data + row + 8 * t + d + col * dk.stride) =
                    pack_rounded(sum_k(w, lane, i) * root, sum_k(w, lane, i + 1) * root);
                *reinterpret_cast<word*>(dv.data + row + 8 * t + d + col * dv.stride) =
                    pack_rounded(sum_v(w, lane, i), sum_v(w, lane, i + 1));
              }
            }
          }
        });
      });
    }
    if constexpr (Prefix) c.template wait<0, Together>();  // the keys of a tile that nobody sees
  }
};

/// dq for a tile of queries of one head, 16 a warp: query_width x queries; may be the memory of q or of
/// dout where nothing else needs these any more.
template <int Head, int Groups = multiply_in_groups ? 2 : 1, bool Together = multiply_in_groups,
          int KeyTile = 64>
struct flash_dq_body {
  static constexpr int threads = 128 * Groups, query_tile = 64 * Groups, key_tile = KeyTile, stages = 2;

  flash_operands on;
  flash_cotangents given;
  matrix<bf16> dq;

  UNROLL_HD index_t blocks() const { return detail::query_tile_of_head<Head>::blocks(on, query_tile); }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<bf16>(2 * query_tile * Head) + shared_size<bf16>(2 * stages * key_tile * Head);
  }

  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    using namespace detail;
    constexpr int key_tiles8 = key_tile / 8, head_tiles8 = Head / 8;
    const attention_mask& mask = on.mask;
    const query_tile_of_head<Head> own(on, c.block(), query_tile, key_tile);
    const int n = own.n, heads = own.heads, head = own.head, first = own.first, prefix = own.keys.prefix;
    const index_t column = own.column;
    const key_tiles walk = own.walk;
    const bool causal = own.causal;

    using query_panels = panels<query_tile, Head>;
    bf16* const fixed = c.template shared<bf16>(2 * query_panels::size);
    const query_panels Q{fixed}, D{fixed + query_panels::size};
    using pairs = staged_pairs<key_tile, Head, stages>;
    const pairs staged{c.template shared<bf16>(pairs::size)};
    const auto load_keys = [&](int step) {
      c.phase(
          [&](int thread) {
            fetch_keys<threads>(c, thread, staged.first(step), staged.second(step), own.keys,
                                walk.tile(step) * key_tile);
          },
          no_barrier{});
      c.commit();
    };
    c.phase(
        [&](int thread) {
          fetch_columns<threads>(c, thread, Q, on.q, head * Head, column + first, n - first);
          fetch_columns<threads>(c, thread, D, given.dout, head * Head, column + first, n - first);
        },
        no_barrier{});
    load_keys(0);

    auto sum = c.template fragments<float, head_tiles8 * 4>();
    auto shift = c.template fragments<float, 2>();
    auto delta = c.template fragments<float, 2>();
    c.warps(
        [&](const auto& w) {
          w.lanes([&](int lane) {
            UNROLL_UNROLLED
            for (int i = 0; i < head_tiles8 * 4; ++i) sum(w, lane, i) = 0;
            UNROLL_UNROLLED
            for (int h = 0; h < 2; ++h) {
              const int i = first + 16 * w.index() + lane / 4 + 8 * h;
              const index_t at = head + (column + (i < n ? i : n - 1)) * heads;
              shift(w, lane, h) = shift_of(given.log_sum[at]);
              delta(w, lane, h) = given.delta[at];
            }
          });
        },
        no_barrier{});
    const float root = 1.0f / sqrtf(float(Head)), scale = per_share * root;

    for (int step = 0; step < walk.steps; ++step) {
      // the barrier is there as well because nobody reads the tile before this one behind it
      c.template wait<0, Together>();
      if (step + 1 < walk.steps) load_keys(step + 1);
      const auto K = staged.first(step), V = staged.second(step);
      const int from = walk.tile(step) * key_tile;
      c.warps(
          [&](const auto& w) {
            const int of_group = first + w.index() / 4 * 64;
            if (of_group >= n || (causal && from > prefix + mask.first + of_group + 63)) return;
            const bool all_visible = causal && from + key_tile <= prefix + mask.first + of_group + 1;
            auto s = w.template fragment<float, key_tiles8 * 4>();
            auto dp = w.template fragment<float, key_tiles8 * 4>();
            auto ds = w.template fragment<word, key_tiles8 * 2>();
            multiply_rows<Together>(w, s, Q, K);
            multiply_rows<Together>(w, dp, D, V);
            finish<1, Together>(w, s.view());
            w.lanes([&](int lane) {
              UNROLL_UNROLLED
              for (int i = 0; i < key_tiles8 * 4; ++i)
                s(lane, i) = exp2_of_share<120>(saturated_fma(s(lane, i), scale, shift(w, lane, i / 2 % 2)));
            });
            finish<0, Together>(w, dp.view());
            w.lanes([&](int lane) {
              UNROLL_UNROLLED
              for (int i = 0; i < key_tiles8 * 4; ++i)
                dp(lane, i) = s(lane, i) * (dp(lane, i) - delta(w, lane, i / 2 % 2));
              if (!all_visible) {
                UNROLL_UNROLLED
                for (int h = 0; h < 2; ++h) {
                  const int query = first + 16 * w.index() + lane / 4 + 8 * h;
                  // of this tile's keys, those below `visible` and `self`
                  const int visible = int(prefix + mask.visible(query)) - from;
                  const int self = int(prefix + mask.first + query) - from;
                  UNROLL_UNROLLED
                  for (int t = 0; t < key_tiles8 * 2; ++t) {
                    const int key = t / 2 * 8 + 2 * (lane % 4) + t % 2;
                    if (key >= visible && key != self) dp(lane, t / 2 * 4 + 2 * h + t % 2) = 0;
                  }
                }
              }
              UNROLL_UNROLLED
              for (int i = 0; i < key_tiles8 * 2; ++i)
                ds(lane, operand_word(i / 2, i % 2)) = pack_rounded(dp(lane, 2 * i), dp(lane, 2 * i + 1));
            });
            multiply_columns<Together>(w, sum, ds, K);
            finish<0, Together>(w, sum.of(w));
          },
          no_barrier{});
    }

    c.warps(
        [&](const auto& w) {
          w.lanes([&](int lane) {
            UNROLL_UNROLLED
            for (int h = 0; h < 2; ++h) {
              const int i = first + 16 * w.index() + lane / 4 + 8 * h;
              if (i >= n) continue;
              bf16* const to = dq.data + head * Head + 2 * (lane % 4) + (column + i) * dq.stride;
              UNROLL_UNROLLED
              for (int t = 0; t < head_tiles8; ++t)
                *reinterpret_cast<word*>(to + 8 * t) =
                    pack_rounded(sum(w, lane, 4 * t + 2 * h) * root, sum(w, lane, 4 * t + 2 * h + 1) * root);
            }
          });
        },
        no_barrier{});
  }
};

}  // namespace unroll::kernels
