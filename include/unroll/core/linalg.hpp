#pragma once

#if defined(__GNUC__)  // Eigen warns under a strict user's flags, and g++ 12 about its own AVX-512 intrinsics
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wshadow"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#endif
#include <Eigen/Core>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "unroll/core/elementary.hpp"
#include "unroll/core/matrix.hpp"
#include "unroll/core/row_dots.hpp"
#include "unroll/core/small_gemm.hpp"
#include "unroll/core/view.hpp"

// The library's linear algebra, the only header that includes Eigen. Matrices are column-major; `stride` is
// the distance between columns. A x is Eigen's. A' x, products of matrices, rank-one updates and elementwise
// functions are our own, as measured in docs/performance/linalg.md. Nothing here
// allocates, whatever the size; gemm uses at most 330 KiB of stack. The bits of a result depend on the sizes,
// the numbers, the target's vector width and, for A x, Eigen's version, never on where in memory operands
// lie.
namespace unroll {

static_assert(EIGEN_VERSION_AT_LEAST(3, 4, 0), "unroll needs Eigen 3.4 or newer");
static_assert(sizeof(Eigen::Index) == sizeof(index_t),
              "unroll needs Eigen's 64-bit sizes: compile without -DEIGEN_DEFAULT_DENSE_INDEX_TYPE");

namespace linalg {

template <class T>
T dot(const T* x, const T* y, index_t n) {
  return T(simd::sum<T>([](auto u, auto v) { return u * v; }, n, x, y));
}

/// y = op(A) x, or y += op(A) x when `add`. y overlaps neither A nor x. Eigen's product of contiguous vectors
/// neither allocates nor treats aligned elements apart. For A' x ours is 1 to 2 times as fast in a cache and
/// 1.2 to 2.5 times out of memory.
template <class T>
void gemv(op oa, std::type_identity_t<matrix<const T>> a, const std::type_identity_t<T>* x, bool add, T* y) {
  using column = Eigen::Matrix<T, Eigen::Dynamic, 1, Eigen::ColMajor>;
  using columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
  const Eigen::Map<const columns, 0, Eigen::OuterStride<>> A(a.data, a.rows, a.cols,
                                                             Eigen::OuterStride<>(a.stride));
  const bool transposed = oa == op::transpose;
  if (transposed && a.rows >= simd::width<T>)
    return detail::row_dots(a.data, a.stride, a.rows, a.cols, x, add, y);
  const Eigen::Map<const column> X(x, transposed ? a.rows : a.cols);
  Eigen::Map<column> Y(y, transposed ? a.cols : a.rows);
  if (!add) Y.setZero();
  if (transposed)
    Y.noalias() += A.transpose() * X;
  else
    Y.noalias() += A * X;
}

/// y += alpha x.
template <class T>
void axpy(std::type_identity_t<T> alpha, const T* x, T* y, index_t n) {
  simd::map([alpha](auto u, auto v) { return v + alpha * u; }, n, y, x, y);
}
/// A += alpha x y'. A overlaps neither x nor y. 1.1 to 1.8 times as fast as Eigen's up to 256 rows, 0.8 to 1
/// beyond; Eigen's treats aligned elements apart.
template <class T>
void ger(std::type_identity_t<T> alpha, const std::type_identity_t<T>* x, const std::type_identity_t<T>* y,
         matrix<T> a) {
  for (index_t j = 0; j < a.cols; ++j) axpy(alpha * y[j], x, a.data + j * a.stride, a.rows);
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
  detail::small_gemm_of_width<T, simd::width<T>>(c.rows, c.cols, k, a.data, a.stride, oa == op::transpose,
                                                 b.data, b.stride, ob == op::transpose, add, c.data,
                                                 c.stride);
}

/// x *= alpha.
template <class T>
void scale(std::type_identity_t<T> alpha, T* x, index_t n) {
  simd::map([alpha](auto u) { return u * alpha; }, n, x, x);
}
/// Euclidean norm.
template <class T>
T norm(const T* x, index_t n) {
  return T(std::sqrt(simd::sum<T>([](auto u) { return u * u; }, n, x)));
}
/// Whether every element is finite.
template <class T>
bool all_finite(const T* x, index_t n) {
  return simd::sum<T>([](auto u) { return u * T(0); }, n, x) == 0;
}

/// y = tanh(x), elementwise; y may be x.
template <class T>
void tanh(const T* x, T* y, index_t n) {
  simd::map([](auto u) { return simd::tanh<T>(u); }, n, y, x);
}
/// y = 1 / (1 + exp(-x)), elementwise; y may be x.
template <class T>
void logistic(const T* x, T* y, index_t n) {
  simd::map([](auto u) { return simd::logistic<T>(u); }, n, y, x);
}
/// y = exp(x), elementwise; y may be x.
template <class T>
void exp(const T* x, T* y, index_t n) {
  simd::map([](auto u) { return simd::exp<T>(u); }, n, y, x);
}

/// Writes p = softmax(logits) and returns -log p[label] in nats, 0 for a negative label; p may be logits.
/// Stable: exact up to rounding for logits of any finite size.
template <class T>
T softmax_cross_entropy(const T* logits, index_t n, index_t label, T* p) {
  const T largest = *std::max_element(logits, logits + n);
  const T shifted = label < 0 ? T(0) : logits[label] - largest;
  simd::map([largest](auto u) { return simd::exp<T>(u - largest); }, n, p, logits);
  const T sum = T(simd::sum<T>([](auto u) { return u; }, n, p));
  scale(1 / sum, p, n);
  return label < 0 ? T(0) : std::log(sum) - shifted;
}

/// b = a'; the two must not overlap.
template <class T>
void transpose(std::type_identity_t<matrix<const T>> a, matrix<T> b) {
  constexpr int N = simd::width<T>;
  const index_t rows = a.rows - a.rows % N, cols = a.cols - a.cols % N;  // whole N x N blocks
  for (index_t i = 0; i < rows; i += N)
    for (index_t j = 0; j < cols; j += N) {
      simd::vec<T> block[std::size_t(N)];
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
/// y += the sum of the columns of a: the gradient of a bias.
template <class T>
void sum_columns(std::type_identity_t<matrix<const T>> a, T* y) {
  if (a.rows == 1 && a.stride == 1) {
    *y += T(simd::sum<T>([](auto v) { return v; }, a.cols, a.data));
    return;
  }
  const auto column = [&](index_t j) { return a.data + j * a.stride; };
  index_t j = 0;
  for (; j + 4 <= a.cols; j += 4)
    simd::map([](auto v, auto p, auto q, auto r, auto s) { return v + ((p + q) + (r + s)); }, a.rows, y, y,
              column(j), column(j + 1), column(j + 2), column(j + 3));
  for (; j < a.cols; ++j) axpy(1, column(j), y, a.rows);
}
/// Adds b to every column of a.
template <class T>
void add_columns(const std::type_identity_t<T>* b, matrix<T> a) {
  for (index_t j = 0; j < a.cols; ++j) axpy(1, b, a.data + j * a.stride, a.rows);
}
/// Sets every column of a to b.
template <class T>
void set_columns(const std::type_identity_t<T>* b, matrix<T> a) {
  if (a.rows == 1 && a.stride == 1)
    std::fill_n(a.data, a.cols, *b);
  else
    for (index_t j = 0; j < a.cols; ++j)
      simd::map([](auto v) { return v; }, a.rows, a.data + j * a.stride, b);
}

}  // namespace linalg
}  // namespace unroll
