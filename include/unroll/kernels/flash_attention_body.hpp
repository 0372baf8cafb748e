#pragma once

#include <cmath>

#include "unroll/kernels/flash_attention_parts.hpp"

// Attention on tensor cores without a matrix of scores (Dao et al. 2022, Milakov & Gimelshein 2018): bfloat16
// in and out, sums and the softmax in float.
namespace unroll::kernels {

/// One block a tile of queries, head and sequence: for the queries i of a sequence
///   out_i = sum_t p_ti v_t,  p_ti = exp(s_ti - log_sum_i),  s_ti = k_t . q_i / sqrt(Head)
/// over all keys of the sequence's prefix and those of its own that the mask shows. Groups of four warps own
/// 64 queries each, 16 a warp, and walk over tiles of KeyTile keys from the first on, so a row's bits depend
/// on nothing but its own sequence; with Together each group multiplies as one. p = 2^(c (s - m)) with c =
/// log2(e) / sqrt(Head) and m the largest score so far, 2^-64 where that is below it; p is rounded to
/// bfloat16 for the product with v, its sum is formed in float before. A row with a score that is NaN or
/// +infinite becomes NaN. Heads lie in the rows of the matrices; strides and offsets are multiples of 8 and
/// data of 16 bytes. 4 Head operations a visible pair; keys and values are read once for every tile of
/// queries.
template <int Head, int Groups = multiply_in_groups ? 2 : 1, bool Together = multiply_in_groups,
          int KeyTile = multiply_in_groups ? 128 : 64>
struct flash_attention_body {
  static_assert(Head % 64 == 0);
  static constexpr int threads = 128 * Groups;
  static constexpr int query_tile = 64 * Groups, key_tile = KeyTile, stages = Together ? 3 : 2;

  flash_operands on;
  matrix<bf16> out;          ///< as q
  float* log_sum = nullptr;  ///< heads x sequences * queries; may be null

  UNROLL_HD index_t blocks() const { return detail::query_tile_of_head<Head>::blocks(on, query_tile); }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<bf16>(query_tile * Head) + shared_size<bf16>(2 * stages * key_tile * Head);
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

    const panels<query_tile, Head> Q{c.template shared<bf16>(query_tile * Head)};
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
        },
        no_barrier{});
    load_keys(0);

    auto acc = c.template fragments<float, head_tiles8 * 4>();
    auto most_so_far = c.template fragments<float, 2>();
    auto sums = c.template fragments<float, 2>();              // of this lane's columns
    auto next = c.template fragments<word, key_tiles8 * 2>();  // p of the tile whose values come next
    c.warps(
        [&](const auto& w) {
          w.lanes([&](int lane) {
            UNROLL_UNROLLED
            for (int i = 0; i < head_tiles8 * 4; ++i) acc(w, lane, i) = 0;
            UNROLL_UNROLLED
            for (int h = 0; h < 2; ++h) {
              most_so_far(w, lane, h) = lowest;
              sums(w, lane, h) = 0;
            }
          });
        },
        no_barrier{});
    // p of a score: 2^(64 (y - 1)), y = s scale + shift
    const float scale = 1.44269504f / 64 / sqrtf(float(Head));
    const auto shift_of = [=](float most) { return fmaf(-most, scale, 1.0f); };

    const auto steps_of = [=](const auto& w) {  // those that the queries of a group see
      const int of_group = first + w.index() / 4 * 64;
      if (of_group >= n) return 0;
      return int(causal ? smaller(walk.steps, (prefix + mask.first + of_group + 63) / key_tile + 1)
                        : walk.steps);
    };
    // p in place of scores; then `ready`, and what acc has to be scaled by is done
    const auto weigh = [&](const auto& w, auto& s, int step, auto&& ready) {
      const int from = walk.tile(step) * key_tile, of_group = first + w.index() / 4 * 64;
      const bool all_visible = causal && from + key_tile <= prefix + mask.first + of_group + 1;
      const auto hidden = [&](int lane, int i) {
        const int query = first + 16 * w.index() + lane / 4 + i / 2 % 2 * 8;
        const int key = from + i / 4 * 8 + 2 * (lane % 4) + i % 2;
        return key >= int(prefix + mask.visible(query)) && key != int(prefix + mask.first + query);
      };
      auto most = w.template fragment<float, 2>();
      auto down = w.template fragment<float, 2>();
      w.lanes([&](int lane) {
        if (!all_visible) {
          UNROLL_UNROLLED
          for (int i = 0; i < key_tiles8 * 4; ++i)
            if (hidden(lane, i)) s(lane, i) = -INFINITY;
        }
        UNROLL_UNROLLED
        for (int h = 0; h < 2; ++h) {
          float m[2] = {most_so_far(w, lane, h), s(lane, 2 * h + 1)};
          UNROLL_UNROLLED
          for (int t = 0; t < key_tiles8; ++t) {
            m[0] = larger_or_nan(m[0], s(lane, 4 * t + 2 * h));
            if (t > 0) m[1] = larger_or_nan(m[1], s(lane, 4 * t + 2 * h + 1));
          }
          most(lane, h) = larger_or_nan(m[0], m[1]);
        }
      });
      w.largest(most, 4);
      const bool grown = w.any([&](int lane) {
        return most(lane, 0) != most_so_far(w, lane, 0) || most(lane, 1) != most_so_far(w, lane, 1);
      });
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int h = 0; h < 2; ++h) {
          down(lane, h) =
              exp2_of_negative(64 * (shift_of(most(lane, h)) - shift_of(most_so_far(w, lane, h))));
          most_so_far(w, lane, h) = most(lane, h);
        }
        UNROLL_UNROLLED
        for (int i = 0; i < key_tiles8 * 4; ++i)
          s(lane, i) =
              exp2_of_share<64>(saturated_fma(s(lane, i), scale, shift_of(most_so_far(w, lane, i / 2 % 2))));
        if (!all_visible) {
          UNROLL_UNROLLED
          for (int i = 0; i < key_tiles8 * 4; ++i)
            if (hidden(lane, i)) s(lane, i) = 0;
        }
        UNROLL_UNROLLED
        for (int h = 0; h < 2; ++h) {
          float sum[2] = {sums(w, lane, h) * down(lane, h), 0};
          UNROLL_UNROLLED
          for (int t = 0; t < key_tiles8; ++t) {
            sum[0] = sum[0] + s(lane, 4 * t + 2 * h);
            sum[1] = sum[1] + s(lane, 4 * t + 2 * h + 1);
          }
          sums(w, lane, h) = sum[0] + sum[1];
        }
      });
      ready();
      if (grown)
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int i = 0; i < head_tiles8 * 4; ++i) acc(w, lane, i) = acc(w, lane, i) * down(lane, i / 2 % 2);
        });
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int i = 0; i < key_tiles8 * 2; ++i)
          next(w, lane, operand_word(i / 2, i % 2)) = pack_rounded(s(lane, 2 * i), s(lane, 2 * i + 1));
      });
    };
    const auto probabilities = [&](const auto& w) {
      auto p = w.template fragment<word, key_tiles8 * 2>();
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int i = 0; i < key_tiles8 * 2; ++i) p(lane, i) = next(w, lane, i);
      });
      return p;
    };
    if constexpr (Together) {  // the scores of a tile are multiplied ahead of the values of the one before
      if (walk.steps > 1)
        load_keys(1);
      else
        c.commit();
      c.template wait<1, Together>();
      c.warps(
          [&](const auto& w) {
            if (steps_of(w) == 0) return;
            auto s = w.template fragment<float, key_tiles8 * 4>();
            multiply_rows<Together>(w, s, Q, staged.first(0));
            finish<0, Together>(w, s.view());
            weigh(w, s, 0, [] {});
          },
          no_barrier{});
    }
    for (int step = 0; step < walk.steps; ++step) {
      // the barrier is there as well because nobody reads the tile before this one behind it
      c.template wait<0, Together>();
      if (step + stages - 1 < walk.steps) load_keys(step + stages - 1);
      const auto K = staged.first(step + (Together ? 1 : 0)), V = staged.second(step);
      c.warps(
          [&](const auto& w) {
            const int steps = steps_of(w);
            if (step >= steps) return;
            if constexpr (!Together) {
              auto s = w.template fragment<float, key_tiles8 * 4>();
              multiply_rows<Together>(w, s, Q, K);
              weigh(w, s, step, [] {});
              auto p = probabilities(w);
              multiply_columns<Together>(w, acc, p, V);
            } else if (step + 1 < steps) {
              auto p = probabilities(w);
              auto s = w.template fragment<float, key_tiles8 * 4>();
              multiply_rows<Together>(w, s, Q, K);
              multiply_columns<Together>(w, acc, p, V);
              finish<1, Together>(w, s.view());
              weigh(w, s, step + 1, [&] { finish<0, Together>(w, acc.of(w)); });
            } else {
              auto p = probabilities(w);
              multiply_columns<Together>(w, acc, p, V);
              finish<0, Together>(w, acc.of(w));
            }
          },
          no_barrier{});
    }

    c.warps(
        [&](const auto& w) {
          auto total = w.template fragment<float, 2>();
          w.lanes([&](int lane) {
            UNROLL_UNROLLED
            for (int h = 0; h < 2; ++h) total(lane, h) = sums(w, lane, h);
          });
          w.sum(total, 4);
          w.lanes([&](int lane) {
            UNROLL_UNROLLED
            for (int h = 0; h < 2; ++h) {
              const int i = first + w.index() * 16 + lane / 4 + h * 8;
              if (i >= n) continue;
              const float m = most_so_far(w, lane, h), shift = shift_of(m);
              const bool finite = m > lowest && m < INFINITY && total(lane, h) > 0;
              const float share = finite ? 1.0f / total(lane, h) : not_a_number();
              bf16* const o = out.data + head * Head + (column + i) * out.stride;
              UNROLL_UNROLLED
              for (int t = 0; t < head_tiles8; ++t)
                *reinterpret_cast<word*>(o + 8 * t + 2 * (lane % 4)) = pack_rounded(
                    acc(w, lane, 4 * t + 2 * h) * share, acc(w, lane, 4 * t + 2 * h + 1) * share);
              if (log_sum && lane % 4 == 0)
                log_sum[head + (column + i) * heads] =
                    finite ? fmaf(1.0f - shift, 64 * 0.693147181f, math::log(total(lane, h)))
                           : not_a_number();
            }
          });
        },
        no_barrier{});
  }

 private:
  static constexpr float lowest = -1e30f;  // below every score, and finite: no NaN where nothing is seen yet
};

}  // namespace unroll::kernels
