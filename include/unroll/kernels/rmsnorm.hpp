#pragma once

#include "unroll/core/linalg.hpp"

namespace unroll::kernels {

/// Root mean square norm of every column (Zhang & Sennrich 2019, arXiv 1910.07467): y = gain * x * rstd with
/// rstd = 1 / sqrt(mean(x^2) + epsilon), one number a column, which the vjp needs; `rstd` may be null. y may
/// be x. Two passes over x.
template <class T>
void rmsnorm(std::type_identity_t<matrix<const T>> x, const std::type_identity_t<T>* gain,
             std::type_identity_t<T> epsilon, matrix<T> y, std::type_identity_t<T>* rstd) {
  UNROLL_ASSERT(x.rows == y.rows && x.cols == y.cols);
  for (index_t j = 0; j < x.cols; ++j) {
    const T* xj = x.data + j * x.stride;
    const double squares = simd::sum<T>([](auto u) { return u * u; }, x.rows, xj);
    const T r = T(1 / std::sqrt(squares / double(x.rows) + double(epsilon)));
    simd::map([r](auto u, auto g) { return u * r * g; }, x.rows, y.data + j * y.stride, xj, gain);
    if (rstd) rstd[j] = r;
  }
}

/// ADDS to dx, and to dgain unless it is null: with h = gain * dy,
///   dx += rstd h - x rstd^3 mean(h x),   dgain += dy * x * rstd.
/// dx overlaps none of the others.
template <class T>
void rmsnorm_vjp(std::type_identity_t<matrix<const T>> x, const std::type_identity_t<T>* gain,
                 const std::type_identity_t<T>* rstd, std::type_identity_t<matrix<const T>> dy, matrix<T> dx,
                 std::type_identity_t<T>* dgain) {
  UNROLL_ASSERT(x.rows == dx.rows && x.cols == dx.cols && x.rows == dy.rows && x.cols == dy.cols);
  for (index_t j = 0; j < x.cols; ++j) {
    const T* xj = x.data + j * x.stride;
    const T* dyj = dy.data + j * dy.stride;
    T* dxj = dx.data + j * dx.stride;
    const T r = rstd[j];
    const double hx = simd::sum<T>([](auto u, auto d, auto g) { return u * (d * g); }, x.rows, xj, dyj, gain);
    const T along = T(hx / double(x.rows)) * r * r * r;
    simd::map([r, along](auto dx0, auto u, auto d, auto g) { return dx0 + (d * g * r - u * along); }, x.rows,
              dxj, dxj, xj, dyj, gain);
    if (dgain)
      simd::map([r](auto sum, auto u, auto d) { return sum + d * u * r; }, x.rows, dgain, dgain, xj, dyj);
  }
}

}  // namespace unroll::kernels
