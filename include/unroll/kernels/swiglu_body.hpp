#pragma once

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

namespace unroll::kernels {

/// out = up gate logistic(gate); gated: [gate; up], 2 m x n, out: m x n.
template <class T>
struct swiglu_body {
  matrix<const T> gated;
  matrix<T> out;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD by_numbers grid() const { return {out.rows, out.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  UNROLL_HD index_t shared_bytes() const { return 0; }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int t) {
      grid().for_each(c.block(), t, [&](index_t i, index_t j) {
        const T* const at = gated.data + j * gated.stride;
        const float gate = float(at[i]), up = float(at[i + out.rows]);
        out.data[i + j * out.stride] = T(up * (gate * math::logistic(gate)));
      });
    });
  }
};

/// With s = logistic(gate): dgate = dout up s (1 + gate (1 - s)), dup = dout gate s. dout: m x n, may be
/// either half of dgated; gated, dgated: 2 m x n.
template <class T>
struct swiglu_vjp_body {
  matrix<const T> gated, dout;
  matrix<T> dgated;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD by_numbers grid() const { return {dout.rows, dout.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  UNROLL_HD index_t shared_bytes() const { return 0; }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int t) {
      grid().for_each(c.block(), t, [&](index_t i, index_t j) {
        const T* const at = gated.data + j * gated.stride;
        T* const to = dgated.data + j * dgated.stride;
        const float gate = float(at[i]), up = float(at[i + dout.rows]);
        const float d = float(dout.data[i + j * dout.stride]), s = math::logistic(gate);
        to[i] = T(d * up * (s * fmaf(gate, 1.f - s, 1.f)));
        to[i + dout.rows] = T(d * (gate * s));
      });
    });
  }
};

}  // namespace unroll::kernels
