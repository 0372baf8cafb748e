#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/small_svd.hpp"

namespace unroll::influence {

/// Q of pre_activation, of every lane its own: a symmetric matrix of rows x rows by which noise nu, of mean
/// nu nu' = I, becomes Q nu on one side of a product and Q^-1 nu on the other, whose product is as before in
/// the mean. With B the running mean of r r', r what losses owe to the rows,
///
///     Q = (B / mean + floor)^(-1/4)          mean: of B's diagonal; Q = 1 where it is 0
///
/// of all of B, or of its diagonal alone. The floor leaves every direction noise. Whole, a step takes 3
/// rows^2 multiply-adds and every `renew` steps about 20 rows^3 for the root; memory 4 rows^2 numbers a lane.
template <class T>
class row_mixing {
 public:
  /// Q = 1: nothing is kept.
  row_mixing() = default;
  /// memory: of the running mean, in (0, 1). floor: above 0. renew: steps between two roots of all of B; 0:
  /// its diagonal.
  row_mixing(index_t lanes, index_t rows, double memory, double floor, index_t renew)
      : rows_(rows), memory_(memory), floor_(floor), renew_(renew), shaped_(rows) {
    owed_ = buffer<double>(lanes * (renew_ > 0 ? rows * rows : rows));
    if (renew_ > 0) {
      q_ = inverse_ = buffer<T>(lanes * rows * rows);
      over_ = buffer<T>(rows);
      root_ = turned_ = buffer<double>(rows * rows);
      values_ = buffer<double>(rows);
      reset();
    }
  }

  bool on() const { return memory_ > 0; }  ///< whether Q may be another than 1
  void reset() {
    owed_.zero();
    for (index_t k = 0; k < q_.size(); ++k) q_[k] = inverse_[k] = T(k % (rows_ * rows_) % (rows_ + 1) == 0);
  }

  /// B of lane l learns r, `rows` numbers; nothing where the square of r is not finite.
  void remember(index_t l, const T* r) {
    double square = 0;
    for (index_t i = 0; i < rows_; ++i) square += double(r[i]) * double(r[i]);
    if (!std::isfinite(square)) return;
    const index_t columns = renew_ > 0 ? rows_ : 1;
    double* b = owed_.data() + l * rows_ * columns;
    for (index_t c = 0; c < columns; ++c)
      for (index_t i = 0; i < rows_; ++i, ++b)
        *b = memory_ * *b + (1 - memory_) * double(r[i]) * double(r[renew_ > 0 ? c : i]);
  }
  /// nu <- Q^-1 nu; returns Q nu, valid until the next call. nu: that of lane l in step t, `rows` numbers.
  const T* shape(index_t l, std::int64_t t, T* nu) {
    if (renew_ == 0) {
      const double* b = owed_.data() + l * rows_;
      const double mean = mean_of(b, 1);
      for (index_t r = 0; r < rows_; ++r) {
        const double root = fourth_root(b[r], mean);
        shaped_[r] = T(double(nu[r]) / root);
        nu[r] = T(double(nu[r]) * root);
      }
      return shaped_.data();
    }
    if (t % renew_ == 0) take_root(l);
    const index_t whole = rows_ * rows_;
    linalg::gemv<T>(op::none, {q_.data() + l * whole, rows_, rows_}, nu, false, shaped_.data());
    linalg::gemv<T>(op::none, {inverse_.data() + l * whole, rows_, rows_}, nu, false, over_.data());
    std::copy_n(over_.data(), rows_, nu);
    return shaped_.data();
  }

  std::size_t bytes() const {
    return owed_.bytes() + q_.bytes() + inverse_.bytes() + root_.bytes() + turned_.bytes() + values_.bytes() +
           shaped_.bytes() + over_.bytes();
  }
  template <class V>
  void visit(V&& v) {
    v("owed", view<double>(owed_));
    if (renew_ > 0) {
      v("q", view<T>(q_));
      v("inverse of q", view<T>(inverse_));
    }
  }

 private:
  // Of `rows` numbers, `stride` apart.
  double mean_of(const double* b, index_t stride) const {
    double mean = 0;
    for (index_t r = 0; r < rows_; ++r) mean += b[r * stride] / double(rows_);
    return mean;
  }
  // An eigenvalue of 1 / Q.
  double fourth_root(double b, double mean) const {
    return mean > 0 ? std::sqrt(std::sqrt(std::max(b, 0.) / mean + floor_)) : 1;
  }
  // Q and its inverse of B / mean = V diag(values) V'. V is orthonormal whatever the rank.
  void take_root(index_t l) {
    const double* b = owed_.data() + l * rows_ * rows_;
    const double mean = mean_of(b, rows_ + 1);
    if (!(mean > 0)) return;
    for (index_t k = 0; k < rows_ * rows_; ++k) root_[k] = b[k] / mean;  // squares of B could overflow
    linalg::jacobi_svd(rows_, rows_, root_.data(), turned_.data(), values_.data());
    T *q = q_.data() + l * rows_ * rows_, *inverse = inverse_.data() + l * rows_ * rows_;
    for (index_t c = 0; c < rows_; ++c)
      for (index_t i = 0; i < rows_; ++i, ++q, ++inverse) {
        double sum = 0, other = 0;
        for (index_t k = 0; k < rows_; ++k) {
          const double root = fourth_root(values_[k], 1),
                       product = turned_[k * rows_ + i] * turned_[k * rows_ + c];
          sum += product / root;
          other += product * root;
        }
        *q = T(sum);
        *inverse = T(other);
      }
  }

  index_t rows_ = 0;
  double memory_ = 0, floor_ = 0;
  index_t renew_ = 0;
  buffer<double> owed_;      // B, lanes x rows x rows, or its diagonal, lanes x rows
  buffer<T> q_, inverse_;    // lanes x rows x rows
  buffer<T> shaped_, over_;  // Q nu, Q^-1 nu
  buffer<double> root_, turned_, values_;
};

}  // namespace unroll::influence
