#pragma once

#include <algorithm>
#include <concepts>

#include "unroll/core/bf16.hpp"
#include "unroll/kernels/rmsnorm.hpp"

// Weights of another kind than the activations, as exec::host sees them: widened by panels on the stack.
namespace unroll::exec::detail {

template <class U, class V>
void copy_numbers(const U* from, index_t n, V* to) {
  if constexpr (std::same_as<U, V>)
    std::copy_n(from, n, to);
  else
    for (index_t i = 0; i < n; ++i) to[i] = V(from[i]);
}

/// linalg::gemm of numbers T; a may be bfloat16, whose panels of at most 64 KiB are widened.
template <class T, class A, class B>
void product(op oa, matrix<const A> a, op ob, matrix<const B> b, bool add, matrix<T> c) {
  static_assert(std::same_as<B, T> && (std::same_as<A, T> || std::same_as<A, bf16>),
                "exec::host multiplies numbers of one kind, or bfloat16 weights on the left by float");
  if constexpr (std::same_as<A, T>) {
    linalg::gemm<T>(oa, a, ob, b, add, c);
  } else {
    constexpr index_t room = 16384;
    alignas(64) T panel[room];
    const index_t rows = std::min(a.rows, room),
                  cols = std::max<index_t>(1, room / std::max<index_t>(rows, 1));
    for (index_t j = 0; j < a.cols; j += cols)
      for (index_t i = 0; i < a.rows; i += rows) {
        const matrix<const A> from = part(a, i, std::min(rows, a.rows - i), j, std::min(cols, a.cols - j));
        const matrix<T> wide(panel, from.rows, from.cols);
        for (index_t k = 0; k < from.cols; ++k)
          copy_numbers(from.data + k * from.stride, from.rows, wide.data + k * wide.stride);
        const bool down = oa == op::transpose;  // c's rows are a's columns, and the sum is over a's rows
        const index_t at = down ? i : j, count = down ? from.rows : from.cols;
        linalg::gemm<T>(oa, wide, ob, ob == op::none ? rows_of(b, at, count) : columns_of(b, at, count),
                        add || at > 0, down ? rows_of(c, j, from.cols) : rows_of(c, i, from.rows));
      }
  }
}

/// Calls f(first row, rows, gains of these rows as T).
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

template <class T, class W>
void rmsnorm(matrix<const T> x, const W* gain, T epsilon, matrix<T> y, T* rstd) {
  if constexpr (std::same_as<W, T>) {
    kernels::rmsnorm<T>(x, gain, epsilon, y, rstd);
  } else {
    for (index_t j = 0; j < x.cols; ++j) {
      const T* const xj = x.data + j * x.stride;
      T* const yj = y.data + j * y.stride;
      const double squares = simd::sum<T>([](auto u) { return u * u; }, x.rows, xj);
      const T r = T(1 / std::sqrt(squares / double(x.rows) + double(epsilon)));
      for_gains<T>(gain, x.rows, [&](index_t i, index_t n, const T* g) {
        simd::map([r](auto u, auto v) { return u * r * v; }, n, yj + i, xj + i, g);
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
        hx += double(simd::sum<T>([](auto u, auto d, auto v) { return u * (d * v); }, n, xj + i, dyj + i, g));
      });
      const T along = T(hx / double(x.rows)) * r * r * r;
      for_gains<T>(gain, x.rows, [&](index_t i, index_t n, const T* g) {
        simd::map([r, along](auto dx0, auto u, auto d, auto v) { return dx0 + (d * v * r - u * along); }, n,
                  dxj + i, dxj + i, xj + i, dyj + i, g);
      });
      if (dgain)
        simd::map([r](auto sum, auto u, auto d) { return sum + d * u * r; }, x.rows, dgain, dgain, xj, dyj);
    }
  }
}

}  // namespace unroll::exec::detail
