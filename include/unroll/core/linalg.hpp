#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "unroll/core/elementary.hpp"
#include "unroll/core/gemv.hpp"
#include "unroll/core/matrix.hpp"
#include "unroll/core/small_gemm.hpp"
#include "unroll/core/view.hpp"

// The library's linear algebra. Matrices are column-major; `stride` is the distance between columns. Nothing
// here allocates, whatever the size; gemm uses at most 330 KiB of stack. The bits of a result depend on the
// sizes, the numbers and the instruction set in use (core/instruction_set.hpp), never on where in memory
// operands lie; those of a column of a product of two columns or more not on how many there are. Beside
// Eigen: docs/performance/linalg.md.
namespace unroll::linalg {

/// x . y, of n numbers.
template <class T>
T dot(const T* x, const T* y, index_t n) {
  return T(simd::sum<T>([](const auto& u, const auto& v) UNROLL_INLINE { return u * v; }, n, x, y));
}

/// y = op(A) x, or y += op(A) x when `add`. x: as many numbers as op(A) has columns, y: as it has rows; y
/// overlaps neither A nor x.
template <class T>
void gemv(op oa, std::type_identity_t<matrix<const T>> a, const std::type_identity_t<T>* x, bool add, T* y) {
  if (oa == op::transpose)
    simd::dispatch<detail::gemv_kernel<T, detail::gemv_transposed>>(a.data, a.stride, a.rows, a.cols, x, add,
                                                                    y);
  else
    simd::dispatch<detail::gemv_kernel<T, detail::gemv_plain>>(a.data, a.stride, a.rows, a.cols, x, add, y);
}

namespace detail {
template <class Isa, class T>
UNROLL_INLINE inline void axpy_on(T alpha, const T* x, T* y, index_t n) {
  simd::map_on<Isa>([alpha](const auto& u, const auto& v) UNROLL_INLINE { return v + alpha * u; }, n, y, x,
                    y);
}
struct axpy_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(T alpha, const T* x, T* y, index_t n) {
    axpy_on<Isa>(alpha, x, y, n);
  }
};
struct ger_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(T alpha, const T* x, const T* y, T* a, index_t rows, index_t cols,
                                index_t stride) {
    for (index_t j = 0; j < cols; ++j) axpy_on<Isa>(alpha * y[j], x, a + j * stride, rows);
  }
};
}  // namespace detail

/// y += alpha x, n numbers each.
template <class T>
void axpy(std::type_identity_t<T> alpha, const T* x, T* y, index_t n) {
  simd::dispatch<detail::axpy_kernel>(alpha, x, y, n);
}
/// A += alpha x y'; x: A.rows numbers, y: A.cols. A overlaps neither x nor y. 1.1 to 1.8 times as fast as
/// Eigen's up to 256 rows, 0.8 to 1 beyond; Eigen's treats aligned elements apart.
template <class T>
void ger(std::type_identity_t<T> alpha, const std::type_identity_t<T>* x, const std::type_identity_t<T>* y,
         matrix<T> a) {
  simd::dispatch<detail::ger_kernel>(alpha, x, y, a.data, a.rows, a.cols, a.stride);
}

/// C = op(A) op(B), or C += op(A) op(B) when `add`. C overlaps neither A nor B. Any size, also 0; the sizes
/// must agree. Eigen's product allocates its packing buffers and is slower with 8 to 128 columns: by 1.1
/// to 2.2 times up to 1024 rows. Where all three sizes pass 1024 it is 1.05 to 1.1 times as fast under
/// -mtune=icelake-server, 0.85 times under plain -march=native.
template <class T>
void gemm(op oa, std::type_identity_t<matrix<const T>> a, op ob, std::type_identity_t<matrix<const T>> b,
          bool add, matrix<T> c) {
  const index_t k = oa == op::none ? a.cols : a.rows;
  UNROLL_ASSERT(c.rows == (oa == op::none ? a.rows : a.cols) &&
                c.cols == (ob == op::none ? b.cols : b.rows) && k == (ob == op::none ? b.rows : b.cols));
  if (c.rows == 0 || c.cols == 0) return;
  if (c.cols == 1 && ob == op::none) return gemv(oa, a, b.data, add, c.data);
  if (c.rows == 1 && c.stride == 1 && (oa == op::transpose || a.stride == 1))  // the same, transposed
    return gemv(ob == op::none ? op::transpose : op::none, b, a.data, add, c.data);
  if (k == 1 && add && oa == op::none && ob == op::transpose) return ger(1, a.data, b.data, c);
  if (k == 0 && !add)
    for (index_t j = 0; j < c.cols; ++j) std::fill_n(c.data + j * c.stride, c.rows, T(0));
  const detail::gemm_arguments<T> g{
      c.rows, c.cols, k,       a.data, a.stride, oa == op::transpose, b.data, b.stride, ob == op::transpose,
      add,    c.data, c.stride};
  simd::dispatch<detail::gemm_kernel<T>, const detail::gemm_arguments<T>&>(g);
}

/// x *= alpha, n numbers.
template <class T>
void scale(std::type_identity_t<T> alpha, T* x, index_t n) {
  simd::map([alpha](const auto& u) UNROLL_INLINE { return u * alpha; }, n, x, x);
}
/// Euclidean norm of the n numbers x.
template <class T>
T norm(const T* x, index_t n) {
  return T(std::sqrt(simd::sum<T>([](const auto& u) UNROLL_INLINE { return u * u; }, n, x)));
}
/// Whether all of the n numbers x are finite.
template <class T>
bool all_finite(const T* x, index_t n) {
  return simd::sum<T>([](const auto& u) UNROLL_INLINE { return u * T(0); }, n, x) == 0;
}

/// y = tanh(x), n numbers each; y may be x.
template <class T>
void tanh(const T* x, T* y, index_t n) {
  simd::map([](const auto& u) UNROLL_INLINE { return simd::tanh(u); }, n, y, x);
}
/// y = 1 / (1 + exp(-x)), n numbers each; y may be x.
template <class T>
void logistic(const T* x, T* y, index_t n) {
  simd::map([](const auto& u) UNROLL_INLINE { return simd::logistic(u); }, n, y, x);
}
/// y = exp(x), n numbers each; y may be x.
template <class T>
void exp(const T* x, T* y, index_t n) {
  simd::map([](const auto& u) UNROLL_INLINE { return simd::exp(u); }, n, y, x);
}

namespace detail {

template <class T>
struct transpose_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const matrix<const T>& a, const matrix<T>& b) {
    constexpr int N = simd::width<Isa, T>;
    const index_t rows = a.rows - a.rows % N, cols = a.cols - a.cols % N;  // whole N x N blocks
    for (index_t i = 0; i < rows; i += N)
      for (index_t j = 0; j < cols; j += N) {
        simd::vec<T, N> block[std::size_t(N)];
        UNROLL_FULLY
        for (int u = 0; u < N; ++u) block[u] = simd::load<N>(a.data + i + (j + u) * a.stride);
        simd::transpose(block);
        UNROLL_FULLY
        for (int u = 0; u < N; ++u) simd::store(block[u], b.data + j + (i + u) * b.stride);
      }
    for (index_t j = 0; j < a.cols; ++j)
      for (index_t i = j < cols ? rows : 0; i < a.rows; ++i)
        b.data[j + i * b.stride] = a.data[i + j * a.stride];
  }
};

template <class T>
struct sum_columns_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const matrix<const T>& a, T* y) {
    if (a.rows == 1 && a.stride == 1) {
      *y += T(simd::sum_on<Isa, T>([](const auto& v) UNROLL_INLINE { return v; }, a.cols, a.data));
      return;
    }
    index_t j = 0;
    for (; j + 4 <= a.cols; j += 4)
      simd::map_on<Isa>([](const auto& v, const auto& p, const auto& q, const auto& r, const auto& s)
                            UNROLL_INLINE { return v + ((p + q) + (r + s)); },
                        a.rows, y, y, a.data + j * a.stride, a.data + (j + 1) * a.stride,
                        a.data + (j + 2) * a.stride, a.data + (j + 3) * a.stride);
    for (; j < a.cols; ++j) axpy_on<Isa>(T(1), a.data + j * a.stride, y, a.rows);
  }
};

template <class T>
struct add_columns_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const T* b, const matrix<T>& a) {
    for (index_t j = 0; j < a.cols; ++j) axpy_on<Isa>(T(1), b, a.data + j * a.stride, a.rows);
  }
};

}  // namespace detail

/// b = a', b of a.cols x a.rows; the two must not overlap.
template <class T>
void transpose(std::type_identity_t<matrix<const T>> a, matrix<T> b) {
  simd::dispatch<detail::transpose_kernel<T>, const matrix<const T>&, const matrix<T>&>(a, b);
}
/// y += the sum of the columns of a, a.rows numbers: the gradient of a bias.
template <class T>
void sum_columns(std::type_identity_t<matrix<const T>> a, T* y) {
  simd::dispatch<detail::sum_columns_kernel<T>, const matrix<const T>&>(a, y);
}
/// Adds b, a.rows numbers, to every column of a.
template <class T>
void add_columns(const std::type_identity_t<T>* b, matrix<T> a) {
  simd::dispatch<detail::add_columns_kernel<T>, const T*, const matrix<T>&>(b, a);
}
/// Sets every column of a to b, a.rows numbers.
template <class T>
void set_columns(const std::type_identity_t<T>* b, matrix<T> a) {
  if (a.rows == 1 && a.stride == 1)
    std::fill_n(a.data, a.cols, *b);
  else
    for (index_t j = 0; j < a.cols; ++j) std::copy_n(b, a.rows, a.data + j * a.stride);
}

#if defined(UNROLL_INSTANCE)
#define UNROLL_LINALG_OF(T)                                                                \
  UNROLL_INSTANCE T dot<T>(const T*, const T*, index_t);                                   \
  UNROLL_INSTANCE void gemv<T>(op, matrix<const T>, const T*, bool, T*);                   \
  UNROLL_INSTANCE void axpy<T>(T, const T*, T*, index_t);                                  \
  UNROLL_INSTANCE void ger<T>(T, const T*, const T*, matrix<T>);                           \
  UNROLL_INSTANCE void gemm<T>(op, matrix<const T>, op, matrix<const T>, bool, matrix<T>); \
  UNROLL_INSTANCE void scale<T>(T, T*, index_t);                                           \
  UNROLL_INSTANCE T norm<T>(const T*, index_t);                                            \
  UNROLL_INSTANCE bool all_finite<T>(const T*, index_t);                                   \
  UNROLL_INSTANCE void tanh<T>(const T*, T*, index_t);                                     \
  UNROLL_INSTANCE void logistic<T>(const T*, T*, index_t);                                 \
  UNROLL_INSTANCE void exp<T>(const T*, T*, index_t);                                      \
  UNROLL_INSTANCE void transpose<T>(matrix<const T>, matrix<T>);                           \
  UNROLL_INSTANCE void sum_columns<T>(matrix<const T>, T*);                                \
  UNROLL_INSTANCE void add_columns<T>(const T*, matrix<T>);
UNROLL_LINALG_OF(float)
UNROLL_LINALG_OF(double)
#undef UNROLL_LINALG_OF
#endif

}  // namespace unroll::linalg
