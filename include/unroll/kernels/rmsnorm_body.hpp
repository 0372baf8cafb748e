#pragma once

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

namespace unroll::kernels {

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
  UNROLL_HD index_t shared_bytes() const { return shared_size<float>(threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    float* const s = c.template shared<float>(threads);
    const T* const from = x.data + c.block() * x.stride;
    T* const to = y.data + c.block() * y.stride;
    c.phase([&](int t) {
      float squares = 0;
      for (index_t i = t; i < x.rows; i += threads) squares = fmaf(float(from[i]), float(from[i]), squares);
      s[t] = squares;
    });
    sum_by_halves(c, s);
    c.phase([&](int t) {
      const float r = math::reciprocal_sqrt(s[0] / float(x.rows) + epsilon);
      for (index_t i = t; i < x.rows; i += threads) to[i] = T(float(from[i]) * r * float(gain[i]));
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
  UNROLL_HD index_t shared_bytes() const { return shared_size<float>(threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    float* const s = c.template shared<float>(threads);
    const T* const at = x.data + c.block() * x.stride;
    const T* const from = dy.data + c.block() * dy.stride;
    T* const to = dx.data + c.block() * dx.stride;
    c.phase([&](int t) {
      float sum = 0;
      for (index_t i = t; i < x.rows; i += threads)
        sum = fmaf(float(at[i]), float(from[i]) * float(gain[i]), sum);
      s[t] = sum;
    });
    sum_by_halves(c, s);
    c.phase([&](int t) {
      const float r = float(rstd[c.block()]), along = s[0] / float(x.rows) * r * r * r;
      for (index_t i = t; i < x.rows; i += threads) {
        const float d = float(from[i]) * float(gain[i]) * r - float(at[i]) * along;
        to[i] = T(float(to[i]) + d);
      }
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
  UNROLL_HD index_t shared_bytes() const { return 0; }
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
