#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"

namespace unroll {

/// Projections of a stream of independent vectors x_1, x_2, ... on the sum of those before,
/// u_i = <x_i, S_{i-1}> / ||S_{i-1}||. The direction does not depend on x_i, so that E u_i <= ||E x||, and
/// where E x = 0 the u_i are a martingale difference sequence: one scalar mean that can be tested without any
/// assumption on the covariance. Order matters. Memory: P doubles; cost: three passes over a vector.
class along_mean {
 public:
  explicit along_mean(index_t size) : sum_(size) {}

  /// One draw, as many numbers as the mean has.
  void add(view<const double> x) {
    check_size("along_mean::add", "x", x.size(), sum_.size());
    if (norm_ > 0) {
      const double u = linalg::dot(x.data(), sum_.data(), x.size()) / norm_, n = ++projected_;
      const double before = mean_;
      mean_ += (u - before) / n;
      squares_ += (u - before) * (u - mean_);
      const double v = u - norm_ / double(count_);
      powers& p = powers_[bits(count_) - 1];
      const std::array<double, 5> of_v{1, v, v * v, v * v * v, v * v * v * v};
      for (std::size_t k = 0; k < 5; ++k) p[k] += of_v[k];
    }
    ++count_;
    linalg::axpy(1.0, x.data(), sum_.data(), x.size());
    norm_ = std::sqrt(linalg::dot(sum_.data(), sum_.data(), sum_.size()));
  }

  double count() const { return projected_; }  ///< of the u_i
  double mean() const { return mean_; }
  double variance() const { return projected_ < 2 ? 0 : squares_ / (projected_ - 1); }  ///< of the u_i

  /// Of one draw along the mean: the moments of v_i = u_i - ||S_{i-1}|| / (i - 1), the same for every bias.
  struct shape_type {
    double variance = 0;  ///< 0: unknown
    double third = 0;     ///< third central moment
    /// Effective number of draws that carry the noise, N / kurtosis: N / 3 for normal noise, k where k of
    /// the draws hold an event and the others agree.
    double events = 0;
  };
  /// Over the draws that follow the first eighth to quarter, when the direction has settled.
  shape_type shape() const {
    powers sum{};
    for (std::size_t k = count_ == 0 ? 0 : bits(count_ - 1); k-- > 0 && sum[0] < 0.75 * double(count_);)
      for (std::size_t i = 0; i < 5; ++i) sum[i] += powers_[k][i];
    const double n = sum[0];
    if (n < 2) return {};
    const double m = sum[1] / n, m2 = sum[2] / n, m3 = sum[3] / n, m4 = sum[4] / n;
    const double second = m2 - m * m, third = m3 - 3 * m * m2 + 2 * m * m * m;
    const double fourth = m4 - 4 * m * m3 + 6 * m * m * m2 - 3 * m * m * m * m;
    if (!(second > 0) || !(fourth > 0)) return {};
    return {second * n / (n - 1), n > 2 ? third * n * n / ((n - 1) * (n - 2)) : third,
            double(count_) * second * second / fourth};
  }

 private:
  using powers = std::array<double, 5>;  // sums of 1, v, v^2, v^3, v^4
  static std::size_t bits(index_t n) { return std::size_t(std::bit_width(std::uint64_t(n))); }

  block<double> sum_;
  double norm_ = 0, projected_ = 0, mean_ = 0, squares_ = 0;
  std::array<powers, 63> powers_{};  // [k]: of the draws that follow 2^k to 2^(k+1) - 1 others
  index_t count_ = 0;
};

}  // namespace unroll
