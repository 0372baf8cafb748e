#pragma once

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

namespace unroll::kernels {

/// out = up gate logistic(gate); gated: [gate; up], 2 m x n, out: m x n.
template <class T>
struct swiglu_body {
  matrix<const T> gated;
  matrix<T> out;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {out.rows, out.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      const T* const at = gated.data + i + j * gated.stride;
      float gate[8], up[8];
      load_eight(at, n, gate);
      load_eight(at + out.rows, n, up);
      UNROLL_UNROLLED
      for (int e = 0; e < 8; ++e) up[e] = up[e] * (gate[e] * math::logistic(gate[e]));
      store_eight(up, n, out.data + i + j * out.stride);
    });
  }
};

/// With s = logistic(gate): dgate = dout up s (1 + gate (1 - s)), dup = dout gate s. dout: m x n, may be
/// either half of dgated; gated, dgated: 2 m x n.
template <class T>
struct swiglu_vjp_body {
  matrix<const T> gated, dout;
  matrix<T> dgated;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {dout.rows, dout.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      const T* const at = gated.data + i + j * gated.stride;
      T* const to = dgated.data + i + j * dgated.stride;
      float gate[8], up[8], d[8];
      load_eight(at, n, gate);
      load_eight(at + dout.rows, n, up);
      load_eight(dout.data + i + j * dout.stride, n, d);
      UNROLL_UNROLLED
      for (int e = 0; e < 8; ++e) {
        const float g = gate[e], s = math::logistic(g);
        gate[e] = d[e] * up[e] * (s * fmaf(g, 1.f - s, 1.f));
        up[e] = d[e] * (g * s);
      }
      store_eight(gate, n, to);
      store_eight(up, n, to + dout.rows);
    });
  }
};

}  // namespace unroll::kernels
