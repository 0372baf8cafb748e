#pragma once

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

namespace unroll::kernels {

namespace detail {

/// The sum over a block of 256 threads of terms(t), for each of its threads: by halves in a warp, then warp
/// after warp.
template <class Context, class F>
UNROLL_HD const float* sum_of_warps(Context& c, F&& terms) {
  float* const s = c.template shared<float>(8);
  c.warps([&](const auto& w) {
    auto sum = w.template fragment<float, 1>();
    w.lanes([&](int l) { sum(l, 0) = terms(32 * w.index() + l); });
    w.sum(sum);
    w.lanes([&](int l) {
      if (l == 0) s[w.index()] = sum(l, 0);
    });
  });
  return s;
}
UNROLL_HD inline float total(const float* s) {
  float sum = s[0];
  UNROLL_UNROLLED
  for (int i = 1; i < 8; ++i) sum = sum + s[i];
  return sum;
}

}  // namespace detail

/// Root mean square norm, one block a column:
///   y = gain x rstd,   rstd = 1 / sqrt(mean(x^2) + epsilon).
/// x, y: rows x cols, y may be x; gain: rows; rstd: cols, may be null.
template <class T, class W, class P>
struct rmsnorm_body {
  matrix<const T> x;
  const W* gain;
  float epsilon;
  matrix<T> y;
  P* rstd;

  static constexpr int threads = 256;
  UNROLL_HD index_t blocks() const { return x.cols; }
  UNROLL_HD index_t shared_bytes() const { return shared_size<float>(threads / 32); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    const by_eights column{x.rows, 1};
    const T* const from = x.data + c.block() * x.stride;
    T* const to = y.data + c.block() * y.stride;
    const float* const s = detail::sum_of_warps(c, [&](int t) {
      float squares = 0, u[8];
      for (index_t block = 0; block < column.blocks(); ++block)
        column.for_each(block, t, [&](index_t i, int n, index_t) {
          load_eight(from + i, n, u);
          UNROLL_UNROLLED
          for (int e = 0; e < 8; ++e) squares = fmaf(u[e], u[e], squares);
        });
      return squares;
    });
    c.phase([&](int t) {
      const float r = math::reciprocal_sqrt(detail::total(s) / float(x.rows) + epsilon);
      float u[8], g[8];
      for (index_t block = 0; block < column.blocks(); ++block)
        column.for_each(block, t, [&](index_t i, int n, index_t) {
          load_eight(from + i, n, u);
          load_eight(gain + i, n, g);
          UNROLL_UNROLLED
          for (int e = 0; e < 8; ++e) u[e] = u[e] * r * g[e];
          store_eight(u, n, to + i);
        });
      if (t == 0 && rstd) rstd[c.block()] = P(r);
    });
  }
};

/// Its vjp, one block a column, with h = gain dy:
///   dx += rstd h - x rstd^3 mean(h x).
/// x, dy, dx: rows x cols.
template <class T, class W, class P>
struct rmsnorm_vjp_body {
  matrix<const T> x;
  const W* gain;
  const P* rstd;
  matrix<const T> dy;
  matrix<T> dx;

  static constexpr int threads = 256;
  UNROLL_HD index_t blocks() const { return x.cols; }
  UNROLL_HD index_t shared_bytes() const { return shared_size<float>(threads / 32); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    const by_eights column{x.rows, 1};
    const T* const at = x.data + c.block() * x.stride;
    const T* const from = dy.data + c.block() * dy.stride;
    T* const to = dx.data + c.block() * dx.stride;
    const auto load = [&](index_t i, int n, float(&u)[8], float(&h)[8]) {
      float g[8];
      load_eight(at + i, n, u);
      load_eight(from + i, n, h);
      load_eight(gain + i, n, g);
      UNROLL_UNROLLED
      for (int e = 0; e < 8; ++e) h[e] = h[e] * g[e];
    };
    const float* const s = detail::sum_of_warps(c, [&](int t) {
      float sum = 0, u[8], h[8];
      for (index_t block = 0; block < column.blocks(); ++block)
        column.for_each(block, t, [&](index_t i, int n, index_t) {
          load(i, n, u, h);
          UNROLL_UNROLLED
          for (int e = 0; e < 8; ++e) sum = fmaf(u[e], h[e], sum);
        });
      return sum;
    });
    c.phase([&](int t) {
      const float r = float(rstd[c.block()]), along = detail::total(s) / float(x.rows) * r * r * r;
      float u[8], h[8], d[8];
      for (index_t block = 0; block < column.blocks(); ++block)
        column.for_each(block, t, [&](index_t i, int n, index_t) {
          load(i, n, u, h);
          load_eight(to + i, n, d);
          UNROLL_UNROLLED
          for (int e = 0; e < 8; ++e) d[e] = d[e] + (h[e] * r - u[e] * along);
          store_eight(d, n, to + i);
        });
    });
  }
};

/// dgain += sum over columns, in order, of dy x rstd: rows numbers.
template <class T, class P>
struct rmsnorm_dgain_body {
  matrix<const T> x;
  const P* rstd;
  matrix<const T> dy;
  P* dgain;

  static constexpr int threads = 64;
  UNROLL_HD index_t blocks() const { return ceil_div(x.rows, threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int t) {
      const index_t i = c.block() * threads + t;
      if (i >= x.rows) return;
      float sum = float(dgain[i]);
      for (index_t j = 0; j < x.cols; ++j)
        sum = fmaf(float(dy.data[i + j * dy.stride]), float(x.data[i + j * x.stride]) * float(rstd[j]), sum);
      dgain[i] = P(sum);
    });
  }
};

}  // namespace unroll::kernels
