#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "unroll/cells/example.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::cells {

/// The input side of a cell, z = W_x x + b, where x is dense or a token (one-hot: z = column `token` of W_x
/// plus b). `in` may be 0: z = b.
///
/// Every function works on `steps` steps of all lanes at once: z has steps x lanes columns, column
/// step * lanes + lane, of `rows` scalars each. When the dense x of consecutive steps lie side by side in
/// memory a window is one product straight from them, otherwise they are first gathered into `workspace`.
/// `w` and `dw` point to the params() parameters: w_x (rows x in), then b; `workspace` has workspace(steps)
/// numbers.
template <class T>
class affine_input {
 public:
  affine_input() = default;
  affine_input(index_t in, index_t rows, index_t lanes) : in_(in), rows_(rows), lanes_(lanes) {}

  index_t params() const { return rows_ * (in_ + 1); }
  index_t workspace(index_t steps) const { return steps > 1 ? in_ * lanes_ * steps : 0; }

  /// WRITES z = W_x x + b for the columns x, in x columns.
  void forward(const T* w, matrix<const T> x, matrix<T> z) const {
    linalg::set_columns<T>(w + rows_ * in_, z);
    linalg::gemm<T>(op::none, {w, rows_, in_}, op::none, x, true, z);
  }
  /// ADDS dz x' to dw_x and dz to db, summed over the columns.
  void backward(matrix<const T> x, matrix<const T> dz, T* dw) const {
    linalg::sum_columns<T>(dz, dw + rows_ * in_);
    linalg::gemm<T>(op::none, dz, op::transpose, x, true, {dw, rows_, in_});
  }

  /// WRITES z = W_x x + b. With (dw instead of w) this is also the directional derivative of z.
  void forward(const T* w, std::span<const example<T>> xs, matrix<T> z, T* workspace) const {
    linalg::set_columns<T>(w + rows_ * in_, z);
    if (in_ == 0) return;
    if (all_dense(xs)) {
      linalg::gemm<T>(op::none, {w, rows_, in_}, op::none, columns(xs, workspace), true, z);
      return;
    }
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const matrix<T> zi{z.data + index_t(i) * lanes_ * z.stride, rows_, lanes_, z.stride};
      if (!xs[i].token)
        linalg::gemm<T>(op::none, {w, rows_, in_}, op::none, {xs[i].x, in_, lanes_}, true, zi);
      else
        for (index_t l = 0; l < lanes_; ++l)
          linalg::axpy<T>(1, w + rows_ * xs[i].token[l], zi.data + l * z.stride, rows_);
    }
  }

  /// ADDS dz x' to dw_x and dz to db, summed over steps and lanes.
  void backward(std::span<const example<T>> xs, matrix<const T> dz, T* dw, T* workspace) const {
    linalg::sum_columns<T>(dz, dw + rows_ * in_);
    if (in_ == 0) return;
    if (all_dense(xs)) {
      linalg::gemm<T>(op::none, dz, op::transpose, columns(xs, workspace), true, {dw, rows_, in_});
      return;
    }
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const matrix<const T> dzi{dz.data + index_t(i) * lanes_ * dz.stride, rows_, lanes_, dz.stride};
      if (!xs[i].token)
        linalg::gemm<T>(op::none, dzi, op::transpose, {xs[i].x, in_, lanes_}, true, {dw, rows_, in_});
      else
        for (index_t l = 0; l < lanes_; ++l)
          linalg::axpy<T>(1, dzi.data + l * dz.stride, dw + rows_ * xs[i].token[l], rows_);
    }
  }

  /// The same for lane `lane` of one step alone; dz: `rows` numbers.
  void backward_lane(const example<T>& x, index_t lane, const T* dz, T* dw) const {
    const affine_input one(in_, rows_, 1);
    const example<T> part = lanes_from(x, lane, in_, 0);
    one.backward({&part, 1}, {dz, rows_, 1}, dw, nullptr);
  }

  /// x_j of lane `lane`.
  T at(const example<T>& x, index_t lane, index_t j) const {
    return x.token ? T(x.token[lane] == j) : x.x[lane * in_ + j];
  }
  /// The same, of the columns `below`, in x lanes, where they are given.
  T at(const example<T>& x, matrix<const T> below, index_t lane, index_t j) const {
    return below.data ? below.data[lane * below.stride + j] : at(x, lane, j);
  }
  /// WRITES all of them, `in` numbers, to `to`, and returns what is behind them.
  T* copy(const example<T>& x, matrix<const T> below, index_t lane, T* to) const {
    if (below.data) return std::copy_n(below.data + lane * below.stride, in_, to);
    if (in_ > 0 && x.x) return std::copy_n(x.x + lane * in_, in_, to);
    for (index_t j = 0; j < in_; ++j) *to++ = at(x, lane, j);
    return to;
  }
  /// ||x||^2 of lane `lane`.
  T squared_norm(const example<T>& x, index_t lane) const {
    if (in_ == 0) return 0;
    return x.token ? T(1) : linalg::dot<T>(x.x + lane * in_, x.x + lane * in_, in_);
  }

  /// False when x holds NaN or infinity. Throws unroll::error when a token is not in [0, in), when not
  /// exactly one of x and token is given, or when the example has other lanes.
  bool finite(const char* cell, const example<T>& x) const {
    check_lanes(cell, x, lanes_);
    if (in_ == 0) return true;
    if (!x.x == !x.token)
      fail(cell, "x", x.x ? "has x and token, must have one of them" : "has neither x nor token");
    if (x.x) return linalg::all_finite<T>(x.x, in_ * lanes_);
    for (index_t l = 0; l < lanes_; ++l)
      if (x.token[l] < 0 || x.token[l] >= in_)
        fail(cell, "x.token",
             "is " + std::to_string(x.token[l]) + ", must be in [0, " + std::to_string(in_) + ")");
    return true;
  }

 private:
  static bool all_dense(std::span<const example<T>> xs) {
    return std::all_of(xs.begin(), xs.end(), [](const example<T>& x) { return x.token == nullptr; });
  }
  // All x as one in x (steps x lanes) matrix.
  matrix<const T> columns(std::span<const example<T>> xs, T* workspace) const {
    const index_t n = in_ * lanes_;
    const T* data = xs.front().x;
    for (std::size_t i = 1; i < xs.size(); ++i)
      if (xs[i].x != data + index_t(i) * n) {
        for (std::size_t j = 0; j < xs.size(); ++j)
          std::copy(xs[j].x, xs[j].x + n, workspace + index_t(j) * n);
        data = workspace;
        break;
      }
    return {data, in_, lanes_ * index_t(xs.size())};
  }
  index_t in_ = 0, rows_ = 0, lanes_ = 1;
};

/// Independent uniform draws in [-bound, bound], one for each parameter.
template <class T>
void uniform_init(params<T> theta, double bound, key k) {
  for (index_t i = 0; i < theta.size(); ++i)
    theta[i] = T(bound * (2 * draw_uniform(k, 0, std::uint32_t(i)) - 1));
}

}  // namespace unroll::cells
