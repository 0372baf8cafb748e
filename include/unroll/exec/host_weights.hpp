#pragma once

#include <algorithm>
#include <concepts>

#include "unroll/core/bf16_products.hpp"
#include "unroll/kernels/rmsnorm.hpp"

// Weights of another kind than the activations, as exec::host sees them: widened where they are used.
namespace unroll::exec::detail {

/// to = from, n numbers.
template <class U, class V>
void copy_numbers(const U* from, index_t n, V* to) {
  if constexpr (std::same_as<U, V>)
    std::copy_n(from, n, to);
  else
    for (index_t i = 0; i < n; ++i) to[i] = V(from[i]);
}

/// c (+)= op(a) op(b) of numbers T; a may be bfloat16.
template <class T, class A, class B>
void product(op oa, matrix<const A> a, op ob, matrix<const B> b, bool add, matrix<T> c) {
  static_assert(std::same_as<B, T> && (std::same_as<A, T> || std::same_as<A, bf16>),
                "exec::host multiplies numbers of one kind, or bfloat16 weights on the left by float");
  if constexpr (std::same_as<A, T>)
    linalg::gemm<T>(oa, a, ob, b, add, c);
  else
    linalg::gemm(oa, a, ob, b, add, c);
}

/// Calls f(first row, rows, gains of these rows as T) for the n numbers of `gain`.
template <class T, class W, class F>
void for_gains(const W* gain, index_t n, F&& f) {
  if constexpr (std::same_as<W, T>) {
    f(index_t{0}, n, gain);
  } else {
    T wide[512];
    for (index_t i = 0; i < n; i += 512) {
      const index_t count = std::min<index_t>(512, n - i);
      copy_numbers(gain + i, count, wide);
      f(i, count, static_cast<const T*>(wide));
    }
  }
}

/// kernels::rmsnorm, and its vjp, with gains of kind W.
template <class T, class W>
void rmsnorm(matrix<const T> x, const W* gain, T epsilon, matrix<T> y, T* rstd) {
  if constexpr (std::same_as<W, T>) {
    kernels::rmsnorm<T>(x, gain, epsilon, y, rstd);
  } else {
    for (index_t j = 0; j < x.cols; ++j) {
      const T* const xj = x.data + j * x.stride;
      T* const yj = y.data + j * y.stride;
      const double squares = simd::sum<T>([](const auto& u) UNROLL_INLINE { return u * u; }, x.rows, xj);
      const T r = T(1 / std::sqrt(squares / double(x.rows) + double(epsilon)));
      for_gains<T>(gain, x.rows, [&](index_t i, index_t n, const T* g) {
        simd::map([r](const auto& u, const auto& v) UNROLL_INLINE { return u * r * v; }, n, yj + i, xj + i,
                  g);
      });
      if (rstd) rstd[j] = r;
    }
  }
}

template <class T, class W>
void rmsnorm_vjp(matrix<const T> x, const W* gain, const T* rstd, matrix<const T> dy, matrix<T> dx,
                 T* dgain) {
  if constexpr (std::same_as<W, T>) {
    kernels::rmsnorm_vjp(x, gain, rstd, dy, dx, dgain);
  } else {
    for (index_t j = 0; j < x.cols; ++j) {
      const T *const xj = x.data + j * x.stride, *const dyj = dy.data + j * dy.stride, r = rstd[j];
      T* const dxj = dx.data + j * dx.stride;
      double hx = 0;
      for_gains<T>(gain, x.rows, [&](index_t i, index_t n, const T* g) {
        hx += double(simd::sum<T>([](const auto& u, const auto& d, const auto& v)
                                      UNROLL_INLINE { return u * (d * v); },
                                  n, xj + i, dyj + i, g));
      });
      const T along = T(hx / double(x.rows)) * r * r * r;
      for_gains<T>(gain, x.rows, [&](index_t i, index_t n, const T* g) {
        simd::map([r, along](const auto& dx0, const auto& u, const auto& d, const auto& v)
                      UNROLL_INLINE { return dx0 + (d * v * r - u * along); },
                  n, dxj + i, dxj + i, xj + i, dyj + i, g);
      });
      if (dgain)
        simd::map([r](const auto& sum, const auto& u, const auto& d)
                      UNROLL_INLINE { return sum + d * u * r; },
                  x.rows, dgain, dgain, xj, dyj);
    }
  }
}

}  // namespace unroll::exec::detail
