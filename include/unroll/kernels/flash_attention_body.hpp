#pragma once

#include "unroll/kernels/flash_attention_parts.hpp"

// Attention on tensor cores without a matrix of scores (Dao et al. 2022, Milakov & Gimelshein 2018): bfloat16
// in and out, sums and the softmax in float.
namespace unroll::kernels {

/// One block a tile of queries, head and sequence: for the queries i of a sequence
///   out_i = sum_t p_ti v_t,  p_ti = exp(s_ti - log_sum_i),  s_ti = k_t . q_i / sqrt(Head)
/// over all keys of the sequence's prefix and those of its own that the mask shows. Four warps own 16
/// RowTiles queries each and walk over tiles of 64 keys from the first on, so a row's bits depend on nothing
/// but its own sequence. Rows of scores are kept in base 2: p = 2^(s c - m c) with c = log2(e) / sqrt(Head)
/// and m the largest score so far; p is rounded to bfloat16 for the product with v, its sum is formed in
/// float before. Heads lie in the rows of the matrices; strides and offsets are multiples of 8 and data of 16
/// bytes. 4 Head operations a visible pair; keys and values are read once for every tile of queries.
template <int Head, int RowTiles = 1>
struct flash_attention_body {
  static_assert(Head % 16 == 0 && Head >= 64);
  static constexpr int threads = 128;
  static constexpr int query_tile = 64 * RowTiles, key_tile = 64, stages = 2;

  flash_operands on;
  matrix<bf16> out;          ///< as q
  float* log_sum = nullptr;  ///< heads x sequences * queries; may be null

  UNROLL_HD index_t blocks() const {
    return on.sequences > 0 ? ceil_div(on.queries(), query_tile) * on.shape.heads * on.sequences : 0;
  }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<bf16>(query_tile * Head) + shared_size<bf16>(2 * stages * key_tile * Head);
  }

  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    using namespace detail;
    constexpr int key_tiles8 = key_tile / 8, head_tiles8 = Head / 8;
    // the longest rows first; neighbouring blocks are the heads of one tile
    const attention_mask& mask = on.mask;
    const int n = int(on.queries()), tiles = int(ceil_div(n, query_tile)), heads = int(on.shape.heads);
    const int head = int(c.block() % heads), tile = tiles - 1 - int(c.block() / heads % tiles);
    const index_t sequence = c.block() / (heads * tiles), column = sequence * n;
    const int first = tile * query_tile, last = int(smaller(first + query_tile, n)) - 1;
    const sequence_keys<Head> keys(on, sequence, int(head / (heads / on.shape.kv_heads)));
    const int prefix = keys.prefix;
    const key_tiles walk(mask, prefix, first, last, key_tile);

    const swizzled<Head> Q{c.template shared<bf16>(query_tile * Head)};
    bf16* const staged = c.template shared<bf16>(2 * stages * key_tile * Head);
    const auto keys_of = [=](int step) { return swizzled<Head>{staged + step % 2 * (2 * key_tile * Head)}; };
    const auto values_of = [=](int step) { return swizzled<Head>{keys_of(step).at + key_tile * Head}; };
    const auto load_keys = [&](int step) {
      c.phase([&](int thread) {
        fetch_keys<Head, key_tile, threads>(c, thread, keys_of(step), values_of(step), keys,
                                            walk.tile(step) * key_tile);
      });
    };
    c.phase([&](int thread) {
      fetch_rows<Head, query_tile, threads>(c, thread, Q, on.q.data, [&](int r) {
        return first + r < n ? on.q.data + head * Head + (column + first + r) * on.q.stride : nullptr;
      });
    });
    load_keys(0);
    c.commit();

    auto acc = c.template fragments<float, RowTiles * head_tiles8 * 4>();
    auto most_so_far = c.template fragments<float, RowTiles * 2>();
    auto sums = c.template fragments<float, RowTiles * 2>();  // of this lane's columns
    c.warps([&](auto&& w) {
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int i = 0; i < RowTiles * head_tiles8 * 4; ++i) acc(w, lane, i) = 0;
        UNROLL_UNROLLED
        for (int i = 0; i < RowTiles * 2; ++i) {
          most_so_far(w, lane, i) = lowest;
          sums(w, lane, i) = 0;
        }
      });
    });
    const float scale = 1.44269504f / sqrtf(float(Head));

    for (int step = 0; step < walk.steps; ++step) {
      c.template wait<0>();
      if (step + 1 < walk.steps) {
        load_keys(step + 1);
        c.commit();
      }
      const swizzled<Head> K = keys_of(step), V = values_of(step);
      const int from = walk.tile(step) * key_tile;
      const bool all_visible = from + key_tile <= prefix + mask.first + first + 1 && !mask.memory_token(last);
      c.warps([&](auto&& w) {
        const int row0 = w.index() * 16 * RowTiles;
        auto s = w.template fragment<float, RowTiles * key_tiles8 * 4>();
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int i = 0; i < RowTiles * key_tiles8 * 4; ++i) s(lane, i) = 0;
        });
        multiply_rows<Head, RowTiles, key_tile>(w, s, Q, row0, K);
        // p = 2^(s c - m c) in place of s; acc and sums to the new largest score m
        auto most_now = w.template fragment<float, RowTiles * 2>();
        w.lanes([&](int lane) {
          if (!all_visible) {
            UNROLL_UNROLLED
            for (int h = 0; h < RowTiles * 2; ++h) {
              const int query = first + row0 + h / 2 * 16 + lane / 4 + h % 2 * 8;
              // of this tile's keys, those below `seen` and `self`
              const int seen = int(prefix + mask.visible(query)) - from;
              const int self = int(prefix + mask.first + query) - from;
              UNROLL_UNROLLED
              for (int t = 0; t < key_tiles8 * 2; ++t) {
                const int key = t / 2 * 8 + 2 * (lane % 4) + t % 2;
                if (key >= seen && key != self)
                  s(lane, (h / 2 * key_tiles8 + t / 2) * 4 + h % 2 * 2 + t % 2) = lowest;
              }
            }
          }
          UNROLL_UNROLLED
          for (int h = 0; h < RowTiles * 2; ++h) {
            float m = most_so_far(w, lane, h);
            UNROLL_UNROLLED
            for (int t = 0; t < key_tiles8; ++t) {
              const int i = (h / 2 * key_tiles8 + t) * 4 + h % 2 * 2;
              m = m < s(lane, i) ? s(lane, i) : m;
              m = m < s(lane, i + 1) ? s(lane, i + 1) : m;
            }
            most_now(lane, h) = m;
          }
        });
        w.largest(most_now, 4);
        auto p = w.template fragment<word, RowTiles * key_tiles8 * 2>();
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int h = 0; h < RowTiles * 2; ++h) {
            const float m = most_now(lane, h), shift = m * scale;
            const float down = exp2_of_negative((most_so_far(w, lane, h) - m) * scale);
            most_so_far(w, lane, h) = m;
            float sum = 0;
            UNROLL_UNROLLED
            for (int t = 0; t < key_tiles8; ++t) {
              const int i = (h / 2 * key_tiles8 + t) * 4 + h % 2 * 2;
              float p0 = exp2_of_negative(fmaf(s(lane, i), scale, -shift));
              float p1 = exp2_of_negative(fmaf(s(lane, i + 1), scale, -shift));
              if (!all_visible) {
                p0 = s(lane, i) == lowest ? 0 : p0;
                p1 = s(lane, i + 1) == lowest ? 0 : p1;
              }
              sum = sum + (p0 + p1);
              p(lane, h / 2 * (key_tile / 4) + operand_word(t, h % 2)) = pack_rounded(p0, p1);
            }
            sums(w, lane, h) = fmaf(sums(w, lane, h), down, sum);
            UNROLL_UNROLLED
            for (int t = 0; t < head_tiles8; ++t) {
              const int i = (h / 2 * head_tiles8 + t) * 4 + h % 2 * 2;
              acc(w, lane, i) = acc(w, lane, i) * down;
              acc(w, lane, i + 1) = acc(w, lane, i + 1) * down;
            }
          }
        });
        multiply_probabilities<Head, RowTiles, key_tile>(w, acc, p, V);
      });
    }

    c.warps([&](auto&& w) {
      auto total = w.template fragment<float, RowTiles * 2>();
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int h = 0; h < RowTiles * 2; ++h) total(lane, h) = sums(w, lane, h);
      });
      w.sum(total, 4);
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int h = 0; h < RowTiles * 2; ++h) {
          const int i = first + w.index() * 16 * RowTiles + h / 2 * 16 + lane / 4 + h % 2 * 8;
          if (i >= n) continue;
          const float share = 1.0f / total(lane, h);
          bf16* const o = out.data + head * Head + (column + i) * out.stride;
          UNROLL_UNROLLED
          for (int t = 0; t < head_tiles8; ++t) {
            const int at = (h / 2 * head_tiles8 + t) * 4 + h % 2 * 2;
            *reinterpret_cast<word*>(o + 8 * t + 2 * (lane % 4)) =
                pack_rounded(acc(w, lane, at) * share, acc(w, lane, at + 1) * share);
          }
          if (log_sum && lane % 4 == 0)
            log_sum[head + (column + i) * heads] =
                fmaf(most_so_far(w, lane, h), 1.0f / sqrtf(float(Head)), math::log(total(lane, h)));
        }
      });
    });
  }

 private:
  static constexpr float lowest = -1e30f;  // below every score, and finite: no NaN where nothing is seen yet
};

}  // namespace unroll::kernels
