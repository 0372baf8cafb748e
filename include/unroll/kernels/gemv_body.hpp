#pragma once

#include <cmath>

#include "unroll/kernels/body.hpp"

namespace unroll::kernels {

/// y = alpha a' x, or y += where `add`: the product of one column, as fast as a is read. A warp owns a number
/// of y; lane l sums eight neighbours of 256 at a time from 8 l on, in order, then the lanes add by halves.
/// a: k x m, k and its stride multiples of 8, a and x aligned to 16 bytes.
template <class C>
struct gemv_body {
  matrix<const bf16> a;
  const bf16* x;
  float alpha;
  bool add;
  C* y;

  static constexpr int threads = 128;
  UNROLL_HD index_t blocks() const { return ceil_div(a.cols, warps); }
  UNROLL_HD index_t shared_bytes() const { return 0; }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.warps([&](const auto& w) {
      const index_t row = c.block() * warps + w.index();
      if (row >= a.cols) return;
      const bf16* const from = a.data + row * a.stride;
      auto sum = w.template fragment<float, 1>();
      w.lanes([&](int l) {
        float s = 0;
        for (index_t at = 8 * l; at < a.rows; at += ahead * step) {
          sixteen_bytes u[ahead], v[ahead];
          UNROLL_UNROLLED
          for (int i = 0; i < ahead; ++i) {
            u[i] = v[i] = sixteen_bytes{};
            if (at + i * step >= a.rows) continue;
            u[i] = load_sixteen_bytes(from + at + i * step);
            v[i] = load_sixteen_bytes(x + at + i * step);
          }
          UNROLL_UNROLLED
          for (int i = 0; i < ahead; ++i) s = dot(u[i], v[i], s);
        }
        sum(l, 0) = s;
      });
      w.sum(sum);
      w.lanes([&](int l) {
        if (l == 0) y[row] = C(add ? fmaf(alpha, sum(l, 0), float(y[row])) : alpha * sum(l, 0));
      });
    });
  }

 private:
  static constexpr index_t warps = threads / 32, step = 256;
  static constexpr int ahead = 8;  // loads that are under way before the first is used

  UNROLL_HD static float dot(const sixteen_bytes& u, const sixteen_bytes& v, float s) {
    UNROLL_UNROLLED
    for (int i = 0; i < 4; ++i) {
      s = fmaf(low_of(u.words[i]), low_of(v.words[i]), s);
      s = fmaf(high_of(u.words[i]), high_of(v.words[i]), s);
    }
    return s;
  }
};

}  // namespace unroll::kernels
