#pragma once

#include <cmath>

#include "unroll/kernels/body.hpp"

namespace unroll::kernels {

/// y = alpha a' x, or y += where `add`: the product of one column, as fast as a is read. A warp owns a number
/// of y; lane l sums eight neighbours of 256 at a time from 8 l on, in order, then the lanes add by halves.
/// a: k x m, k and its stride multiples of 8, x: k numbers, y: m; a and x aligned to 16 bytes. `ahead` loads
/// of a lane are under way before the first is used; it changes no bit.
template <class C, int ahead = 8>
struct gemv_body {
  matrix<const bf16> a;
  const bf16* x;
  float alpha;
  bool add;
  C* y;

  static constexpr int threads = 128;
  UNROLL_HD index_t blocks() const { return ceil_div(a.cols, warps); }
  /// The beginning of the columns of a block, which it may fetch while the kernel that makes x still runs.
  UNROLL_HD void prefetch(index_t block, int thread) const {
    const index_t row = block * warps + thread / 32;
    if (row >= a.cols) return;
    for (index_t at = thread % 32 * line; at < smaller(a.rows, 64 * line); at += 32 * line)
      prefetch_line(a.data + row * a.stride + at);
  }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.warps([&](const auto& w) {
      const index_t row = c.block() * warps + w.index();
      if (row >= a.cols) return;
      const bf16* const from = a.data + row * a.stride;
      auto sum = w.template fragment<float, 1>();
      auto u = w.template fragment<word, 4 * ahead>();
      auto v = w.template fragment<word, 4 * ahead>();
      w.lanes([&](int l) { sum(l, 0) = 0; });
      for (index_t first = 0; first < a.rows; first += ahead * step) {
        w.lanes([&](int l) {
          UNROLL_UNROLLED
          for (int i = 0; i < ahead; ++i) {
            const index_t at = first + 8 * l + i * step;
            const bool inside = at < a.rows;
            const sixteen_bytes p = inside ? load_once(from + at) : sixteen_bytes{};
            const sixteen_bytes q = inside ? load_sixteen_bytes(x + at) : sixteen_bytes{};
            UNROLL_UNROLLED
            for (int e = 0; e < 4; ++e) u(l, 4 * i + e) = p.words[e], v(l, 4 * i + e) = q.words[e];
          }
        });
        w.lanes([&](int l) {
          float s = sum(l, 0);
          UNROLL_UNROLLED
          for (int i = 0; i < 4 * ahead; ++i) {
            s = fmaf(low_of(u(l, i)), low_of(v(l, i)), s);
            s = fmaf(high_of(u(l, i)), high_of(v(l, i)), s);
          }
          sum(l, 0) = s;
        });
      }
      w.sum(sum);
      w.lanes([&](int l) {
        if (l == 0) y[row] = C(add ? fmaf(alpha, sum(l, 0), float(y[row])) : alpha * sum(l, 0));
      });
    });
  }

 private:
  static constexpr index_t warps = threads / 32, step = 256, line = 64;  // numbers of 128 bytes
};

}  // namespace unroll::kernels
