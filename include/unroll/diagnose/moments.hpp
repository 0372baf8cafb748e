#pragma once

#include "unroll/core/block.hpp"
#include "unroll/core/visit.hpp"

namespace unroll {

/// Mean and variance of a stream of vectors, in double whatever the vectors are (Welford 1962), mergeable
/// (Chan, Golub, LeVeque 1979). Cost: O(size) a vector, 2 size doubles.
class moments {
 public:
  explicit moments(index_t size) : mean_(size), squares_(size) {}

  void clear() {
    mean_.zero();
    squares_.zero();
    count_ = 0;
  }

  /// One vector x, as many numbers as the others.
  template <class T, class Space>
  void add(view<T, Space> x) {
    check_size("moments::add", "x", x.size(), mean_.size());
    ++count_;
    const double weight = 1.0 / double(count_);
    for (index_t j = 0; j < x.size(); ++j) {
      const double delta = double(x[j]) - mean_[j];
      mean_[j] += delta * weight;
      squares_[j] += delta * (double(x[j]) - mean_[j]);
    }
  }

  /// As if the vectors of `other` had been added after ours.
  void merge(const moments& other) {
    check_size("moments::merge", "other", other.mean_.size(), mean_.size());
    if (other.count_ == 0) return;
    const double n = double(count_), m = double(other.count_), all = n + m;
    for (index_t j = 0; j < mean_.size(); ++j) {
      const double delta = other.mean_[j] - mean_[j];
      mean_[j] += delta * (m / all);
      squares_[j] += other.squares_[j] + delta * delta * (n * m / all);
    }
    count_ += other.count_;
  }

  /// Count, mean and squares, for where else they are needed (core/visit.hpp).
  template <class V>
  void visit(V&& v) {
    visit_integer(v, "count", count_);
    v("mean", view<double>(mean_));
    v("squares", view<double>(squares_));
  }

  index_t count() const { return count_; }  ///< vectors added
  index_t size() const { return mean_.size(); }
  view<const double> mean() const& { return mean_; }
  void mean() && = delete;  // it would be gone with them
  /// Unbiased sample variance of coordinate j; 0 for fewer than two vectors.
  double variance(index_t j) const { return count_ < 2 ? 0 : squares_[j] / double(count_ - 1); }
  /// Trace of the sample covariance.
  double total_variance() const {
    double sum = 0;
    for (index_t j = 0; j < size(); ++j) sum += variance(j);
    return sum;
  }

 private:
  block<double> mean_, squares_;  // squares: sum of (x - mean)^2
  index_t count_ = 0;
};

}  // namespace unroll
