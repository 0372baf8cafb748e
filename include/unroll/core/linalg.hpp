#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "unroll/core/view.hpp"

// The library's linear algebra, the only header that includes Eigen. Matrices are column-major; `stride` is
// the distance between columns. Nothing here allocates for sizes that fit Eigen's stack buffers (see
// docs/performance.md).
namespace unroll {

/// A column-major rows x cols matrix somewhere in memory.
template <class T>
struct matrix {
  T* data = nullptr;
  index_t rows = 0;
  index_t cols = 0;
  index_t stride = 0;

  matrix() = default;
  matrix(T* data_, index_t rows_, index_t cols_) : matrix(data_, rows_, cols_, rows_) {}
  matrix(T* data_, index_t rows_, index_t cols_, index_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  template <class U>
  requires std::same_as<const U, T> matrix(const matrix<U>& m) : matrix(m.data, m.rows, m.cols, m.stride) {}
};

enum class op { none, transpose };

namespace linalg {

template <class T>
auto map(const matrix<T>& m) {
  using M = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic>;
  using S = std::conditional_t<std::is_const_v<T>, const M, M>;
  return Eigen::Map<S, 0, Eigen::OuterStride<>>(m.data, m.rows, m.cols, Eigen::OuterStride<>(m.stride));
}
template <class T>
auto map(T* data, index_t n) {
  using A = Eigen::Array<std::remove_const_t<T>, Eigen::Dynamic, 1>;
  return Eigen::Map<std::conditional_t<std::is_const_v<T>, const A, A>>(data, n);
}

/// C = op(A) op(B), or C += op(A) op(B) when `add`.
template <class T>
void gemm(op oa, std::type_identity_t<matrix<const T>> a, op ob, std::type_identity_t<matrix<const T>> b,
          bool add, matrix<T> c) {
  auto C = map(c);
  const auto A = map(a);
  const auto B = map(b);
  const auto run = [&](const auto& lhs, const auto& rhs) {
    if (add)
      C.noalias() += lhs * rhs;
    else
      C.noalias() = lhs * rhs;
  };
  if (oa == op::none && ob == op::none)
    run(A, B);
  else if (oa == op::transpose && ob == op::none)
    run(A.transpose(), B);
  else if (oa == op::none)
    run(A, B.transpose());
  else
    run(A.transpose(), B.transpose());
}

/// y = op(A) x, or y += op(A) x when `add`.
template <class T>
void gemv(op oa, std::type_identity_t<matrix<const T>> a, const std::type_identity_t<T>* x, bool add, T* y) {
  const index_t rows = oa == op::none ? a.rows : a.cols, inner = oa == op::none ? a.cols : a.rows;
  gemm<T>(oa, a, op::none, {x, inner, 1}, add, {y, rows, 1});
}

/// A += alpha x y'.
template <class T>
void ger(std::type_identity_t<T> alpha, const std::type_identity_t<T>* x, const std::type_identity_t<T>* y,
         matrix<T> a) {
  map(a).noalias() += alpha * map(x, a.rows).matrix() * map(y, a.cols).matrix().transpose();
}

template <class T>
T dot(const T* x, const T* y, index_t n) {
  return (map(x, n) * map(y, n)).sum();
}
/// Euclidean norm.
template <class T>
T norm(const T* x, index_t n) {
  return map(x, n).matrix().norm();
}
/// y += alpha x.
template <class T>
void axpy(std::type_identity_t<T> alpha, const T* x, T* y, index_t n) {
  map(y, n) += alpha * map(x, n);
}
/// x *= alpha.
template <class T>
void scale(std::type_identity_t<T> alpha, T* x, index_t n) {
  map(x, n) *= alpha;
}
/// Whether every element is finite.
template <class T>
bool all_finite(const T* x, index_t n) {
  return n == 0 || (map(x, n) * T(0)).sum() == T(0);
}

/// y = tanh(x), elementwise; y may be x.
template <class T>
void tanh(const T* x, T* y, index_t n) {
  map(y, n) = map(x, n).tanh();
}
/// y = 1 / (1 + exp(-x)), elementwise; y may be x.
template <class T>
void logistic(const T* x, T* y, index_t n) {
  map(y, n) = map(x, n).logistic();
}
/// y = exp(x), elementwise; y may be x.
template <class T>
void exp(const T* x, T* y, index_t n) {
  map(y, n) = map(x, n).exp();
}

/// Writes p = softmax(logits) and returns -log p[label] in nats, 0 for a negative label; p may be logits.
/// Stable: exact up to rounding for logits of any finite size.
template <class T>
T softmax_cross_entropy(const T* logits, index_t n, index_t label, T* p) {
  const T largest = map(logits, n).maxCoeff();
  const T shifted = label < 0 ? T(0) : logits[label] - largest;
  map(p, n) = (map(logits, n) - largest).exp();
  const T sum = map(p, n).sum();
  map(p, n) *= 1 / sum;
  return label < 0 ? T(0) : std::log(sum) - shifted;
}

/// b = a'; the two must not overlap.
template <class T>
void transpose(std::type_identity_t<matrix<const T>> a, matrix<T> b) {
  constexpr index_t tile = 16;  // 16 x 16 elements of both sides stay in the first-level cache
  for (index_t i0 = 0; i0 < a.rows; i0 += tile)
    for (index_t j0 = 0; j0 < a.cols; j0 += tile)
      for (index_t i = i0; i < std::min(i0 + tile, a.rows); ++i)
        for (index_t j = j0; j < std::min(j0 + tile, a.cols); ++j)
          b.data[j + i * b.stride] = a.data[i + j * a.stride];
}
/// y += the sum of the columns of a: the gradient of a bias.
template <class T>
void sum_columns(std::type_identity_t<matrix<const T>> a, T* y) {
  for (index_t j = 0; j < a.cols; ++j) map(y, a.rows) += map(a.data + j * a.stride, a.rows);
}
/// Adds b to every column of a.
template <class T>
void add_columns(const std::type_identity_t<T>* b, matrix<T> a) {
  for (index_t j = 0; j < a.cols; ++j) map(a.data + j * a.stride, a.rows) += map(b, a.rows);
}
/// Sets every column of a to b.
template <class T>
void set_columns(const std::type_identity_t<T>* b, matrix<T> a) {
  for (index_t j = 0; j < a.cols; ++j) std::copy_n(b, a.rows, a.data + j * a.stride);
}

}  // namespace linalg
}  // namespace unroll
