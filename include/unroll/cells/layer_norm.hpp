#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/core/config.hpp"
#include "unroll/core/view.hpp"

namespace unroll::cells {

/// N(v) = (v - mean v) / sqrt(var v + 1e-5) of n numbers (Ba, Kiros and Hinton, 2016), and its Jacobian,
///
///   dN/dv = (1 - 1 1' / n - N N' / n) / sqrt(var v + 1e-5)
///
/// which is symmetric, so that one product with it serves vjp and jvp.
template <class T>
class layer_norm {
 public:
  layer_norm(const T* numbers, index_t count) : v_(numbers), n_(count) {
    for (index_t i = 0; i < n_; ++i) middle_ += v_[i] / T(n_);
    T variance = 0;
    for (index_t i = 0; i < n_; ++i) variance += (v_[i] - middle_) * (v_[i] - middle_) / T(n_);
    factor_ = 1 / std::sqrt(variance + T(1e-5));
  }
  /// Number i of N.
  T operator()(index_t i) const { return (v_[i] - middle_) * factor_; }
  /// The product of dN/dv with a vector, of which of(i) is number i, as a function of the number.
  template <class V>
  auto through(const V& of) const {
    T mean = 0, along = 0;
    for (index_t i = 0; i < n_; ++i) mean += of(i) / T(n_), along += of(i) * (*this)(i) / T(n_);
    return [this, of, mean, along](index_t i) { return factor_ * (of(i) - mean - along * (*this)(i)); };
  }

 private:
  const T* v_;
  index_t n_;
  T middle_ = 0, factor_ = 0;
};

/// ds'/dtheta of a recurrent_cell that normalises both u and z, from by(kind, entry, v, to): v times ds' by
/// number `entry` of u (kind 0), of z (1) or of the cell's own parameters (2), of which number i is d in
/// to(i, d). There are `rows` of u and of z, and `own` of the cell's own.
template <class T, class By>
struct normed_influence {
  index_t rows;  ///< of u and of z
  index_t own;   ///< parameters of the cell's own
  By by;         ///< see above

  /// ADDS to `column` what entry (row, j) of [w_h w_x b own] moves, which multiplies v; in, hidden: of the
  /// cell.
  void immediate(index_t in, index_t hidden, index_t row, index_t j, T v, T* column) const {
    const index_t kind = j < hidden ? 0 : j <= hidden + in ? 1 : 2;
    by(kind, kind < 2 ? row : row + rows * (j - hidden - in - 1), v, [&](index_t i, T d) { column[i] += d; });
  }
  /// WRITES the norms of the n rows of ds'/dtheta to out, from h2 = ||h||^2 and x2 = ||x||^2.
  void row_norms(T h2, T x2, index_t n, T* out) const {
    std::fill_n(out, n, T(0));
    const auto add = [&](index_t i, T d) { out[i] += d * d; };
    for (index_t k = 0; k < rows; ++k) {
      by(0, k, std::sqrt(h2), add);
      by(1, k, std::sqrt(x2 + 1), add);
    }
    for (index_t k = 0; k < own; ++k) by(2, k, T(1), add);
    for (index_t i = 0; i < n; ++i) out[i] = std::sqrt(out[i]);
  }
};

}  // namespace unroll::cells
