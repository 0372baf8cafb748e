#pragma once

#include <cmath>
#include <concepts>

#include "unroll/kernels/body.hpp"

namespace unroll::kernels {

/// c = alpha op(a) op(b), or c += where `add`: m x n from m x k and k x n, each of any kind. Sums are float,
/// in the order of k, so that a column of c does not depend on how many there are. 64 x 64 of c a block, 4 x
/// 4 a thread.
template <class A, class B, class C>
struct gemm_body {
  op oa;
  matrix<const A> a;
  op ob;
  matrix<const B> b;
  float alpha;
  bool add;
  matrix<C> c;

  static constexpr int threads = 256;
  static constexpr index_t tile = 64, depth = 16;
  UNROLL_HD index_t blocks() const { return ceil_div(c.rows, tile) * ceil_div(c.cols, tile); }
  UNROLL_HD index_t shared_bytes() const { return 2 * shared_size<float>(tile * depth); }
  template <class Context>
  UNROLL_HD void operator()(Context& x) const {
    float* const as = x.template shared<float>(tile * depth);  // tile x depth
    float* const bs = x.template shared<float>(tile * depth);
    const index_t tiles = ceil_div(c.rows, tile), row = x.block() % tiles * tile,
                  col = x.block() / tiles * tile;
    const index_t k = oa == op::none ? a.cols : a.rows;
    const operand<A> of_a{a, oa == op::none, row, c.rows};
    const operand<B> of_b{b, ob == op::transpose, col, c.cols};
    auto sum = x.template registers<float, 16>();
    // thread t has rows 4 (t % 16) + i and columns 4 (t / 16) + j of the tile
    const auto idle = [&](int t) { return row + 4 * (t % 16) >= c.rows || col + 4 * (t / 16) >= c.cols; };
    x.phase([&](int t) {
      UNROLL_UNROLLED
      for (int i = 0; i < 16; ++i) sum(t, i) = 0;
    });
    for (index_t k0 = 0; k0 < k; k0 += depth) {
      const index_t count = smaller(depth, k - k0);
      x.phase([&](int t) {
        of_a.load(k0, count, as, t);
        of_b.load(k0, count, bs, t);
      });
      x.phase([&](int t) {
        if (idle(t)) return;
        for (index_t e = 0; e < count; ++e) {
          const float* const u = as + e * tile + 4 * (t % 16);
          const float* const v = bs + e * tile + 4 * (t / 16);
          UNROLL_UNROLLED
          for (int i = 0; i < 16; ++i) sum(t, i) = fmaf(u[i % 4], v[i / 4], sum(t, i));
        }
      });
    }
    x.phase([&](int t) {
      if (idle(t)) return;
      UNROLL_UNROLLED
      for (int i = 0; i < 16; ++i) {
        const index_t r = row + 4 * (t % 16) + i % 4, s = col + 4 * (t / 16) + i / 4;
        if (r >= c.rows || s >= c.cols) continue;
        C& to = c.data[r + s * c.stride];
        to = C(add ? fmaf(alpha, sum(t, i), float(to)) : alpha * sum(t, i));
      }
    });
  }

 private:
  /// The rows of op(a), or the columns of op(b), from `first` on; those from `end` on are 0. They lie side by
  /// side in memory if `along`.
  template <class U>
  struct operand {
    matrix<const U> m;
    bool along;
    index_t first, end;

    /// A thread's part of s[i + e tile] = the number (first + i, k0 + e), 0 from e = count on.
    UNROLL_HD void load(index_t k0, index_t count, float* s, int t) const {
      for (index_t at = t; at < tile * depth; at += threads) {
        const index_t i = along ? at % tile : at / depth, e = along ? at / tile : at % depth;
        const index_t r = first + i, q = k0 + e;
        s[i + e * tile] =
            r < end && e < count ? float(m.data[along ? r + q * m.stride : q + r * m.stride]) : 0.f;
      }
    }
  };
};

}  // namespace unroll::kernels
