#pragma once

#include "unroll/core/linalg.hpp"

namespace unroll::kernels {

namespace detail {

template <class T>
struct rmsnorm_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const matrix<const T>& x, const T* gain, T epsilon, const matrix<T>& y,
                                T* rstd) {
    for (index_t j = 0; j < x.cols; ++j) {
      const T* xj = x.data + j * x.stride;
      const double squares =
          simd::sum_on<Isa, T>([](const auto& u) UNROLL_INLINE { return u * u; }, x.rows, xj);
      const T r = T(1 / std::sqrt(squares / double(x.rows) + double(epsilon)));
      simd::map_on<Isa>([r](const auto& u, const auto& g) UNROLL_INLINE { return u * r * g; }, x.rows,
                        y.data + j * y.stride, xj, gain);
      if (rstd) rstd[j] = r;
    }
  }
};

template <class T>
struct rmsnorm_vjp_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const matrix<const T>& x, const T* gain, const T* rstd,
                                const matrix<const T>& dy, const matrix<T>& dx, T* dgain) {
    for (index_t j = 0; j < x.cols; ++j) {
      const T* xj = x.data + j * x.stride;
      const T* dyj = dy.data + j * dy.stride;
      T* dxj = dx.data + j * dx.stride;
      const T r = rstd[j];
      const double hx = simd::sum_on<Isa, T>([](const auto& u, const auto& d, const auto& g)
                                                 UNROLL_INLINE { return u * (d * g); },
                                             x.rows, xj, dyj, gain);
      const T along = T(hx / double(x.rows)) * r * r * r;
      simd::map_on<Isa>([r, along](const auto& dx0, const auto& u, const auto& d, const auto& g)
                            UNROLL_INLINE { return dx0 + (d * g * r - u * along); },
                        x.rows, dxj, dxj, xj, dyj, gain);
      if (dgain)
        simd::map_on<Isa>([r](const auto& sum, const auto& u, const auto& d)
                              UNROLL_INLINE { return sum + d * u * r; },
                          x.rows, dgain, dgain, xj, dyj);
    }
  }
};

}  // namespace detail

/// Root mean square norm of every column (Zhang & Sennrich 2019, arXiv 1910.07467): y = gain * x * rstd with
/// rstd = 1 / sqrt(mean(x^2) + epsilon), one number a column, which the vjp needs; `rstd` may be null. y has
/// the shape of x and may be x; gain: x.rows numbers. Two passes over x.
template <class T>
void rmsnorm(std::type_identity_t<matrix<const T>> x, const std::type_identity_t<T>* gain,
             std::type_identity_t<T> epsilon, matrix<T> y, std::type_identity_t<T>* rstd) {
  UNROLL_ASSERT(x.rows == y.rows && x.cols == y.cols);
  simd::dispatch<detail::rmsnorm_kernel<T>, const matrix<const T>&, const T*, T, const matrix<T>&>(
      x, gain, epsilon, y, rstd);
}

/// ADDS to dx, and to dgain unless it is null: with h = gain * dy,
///   dx += rstd h - x rstd^3 mean(h x),   dgain += dy * x * rstd.
/// dy and dx have the shape of x, gain and dgain x.rows numbers, rstd one a column. dx overlaps none of the
/// others.
template <class T>
void rmsnorm_vjp(std::type_identity_t<matrix<const T>> x, const std::type_identity_t<T>* gain,
                 const std::type_identity_t<T>* rstd, std::type_identity_t<matrix<const T>> dy, matrix<T> dx,
                 std::type_identity_t<T>* dgain) {
  UNROLL_ASSERT(x.rows == dx.rows && x.cols == dx.cols && x.rows == dy.rows && x.cols == dy.cols);
  simd::dispatch<detail::rmsnorm_vjp_kernel<T>, const matrix<const T>&, const T*, const T*,
                 const matrix<const T>&, const matrix<T>&>(x, gain, rstd, dy, dx, dgain);
}

#if defined(UNROLL_INSTANCE)
#define UNROLL_RMSNORM_OF(T)                                                    \
  UNROLL_INSTANCE void rmsnorm<T>(matrix<const T>, const T*, T, matrix<T>, T*); \
  UNROLL_INSTANCE void rmsnorm_vjp<T>(matrix<const T>, const T*, const T*, matrix<const T>, matrix<T>, T*);
UNROLL_RMSNORM_OF(float)
UNROLL_RMSNORM_OF(double)
#undef UNROLL_RMSNORM_OF
#endif

}  // namespace unroll::kernels
