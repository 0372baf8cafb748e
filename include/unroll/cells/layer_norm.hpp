#pragma once

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

}  // namespace unroll::cells
