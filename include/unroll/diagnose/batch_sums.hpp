#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"

namespace unroll {

/// Interleaved sums of a stream of vectors: draw i belongs to batch i mod 32. Their Gram matrix sees every
/// pair of draws in different batches, and so a rare event in any direction, axis or not, as soon as two
/// draws hold it. Order matters. Memory: 32 P doubles; cost: one addition a draw.
class batch_sums {
 public:
  static constexpr index_t most = 32;  ///< batches that are kept

  /// With `keep` false nothing is held and count() is 0.
  batch_sums(index_t size, bool keep) : size_(size), sums_(keep ? most * size : 0) {}

  /// One draw, as many numbers as the others.
  void add(view<const double> x) {
    check_size("batch_sums::add", "x", x.size(), size_);
    if (sums_.size() > 0) linalg::axpy(1.0, x.data(), sums_.data() + (draws_ % most) * size_, size_);
    ++draws_;
  }

  /// Batches that hold a draw.
  index_t count() const { return sums_.size() > 0 ? std::min(draws_, most) : 0; }
  std::size_t bytes() const { return sums_.bytes(); }

  /// tr V^2 for the covariance V of a draw, from the centred sums z_k = (s_k - n_k m) / sqrt(N) of K batches:
  ///
  ///   K^2 mean over k != l of (z_k'z_l + (a_k + a_l) / K - A / K^2)^2,
  ///
  /// where a_k = (||z_k||^2 - A / K^2) / (1 - 2 / K), A = K / (K - 1) sum_k ||z_k||^2, stands for the squared
  /// length before centring, and the last two terms for what centring takes from the product. For normal
  /// noise its mean is (1 - 2 / K - 2 / K^2 + 6 / K^3) tr V^2. 0 for fewer than three batches.
  double trace_of_square(view<const double> mean) const {
    const index_t K = count();
    if (K < 3) return 0;
    constexpr index_t chunk = 64;
    std::array<double, most * chunk> z;
    std::array<double, most * most> gram{};
    for (index_t j = 0; j < size_; j += chunk) {
      const index_t n = std::min(chunk, size_ - j);
      for (index_t k = 0; k < K; ++k)
        for (index_t i = 0; i < n; ++i) z[std::size_t(k * chunk + i)] = centred(k, j + i, mean);
      for (index_t k = 0; k < K; ++k)
        for (index_t l = 0; l <= k; ++l)
          gram[std::size_t(k * most + l)] +=
              linalg::dot(&z[std::size_t(k * chunk)], &z[std::size_t(l * chunk)], n);
    }
    const auto n = double(K);
    double all = 0, sum = 0;
    for (index_t k = 0; k < K; ++k) all += gram[std::size_t(k * most + k)] * n / (n - 1);
    const auto length = [&](index_t k) {
      return (gram[std::size_t(k * most + k)] - all / (n * n)) / (1 - 2 / n);
    };
    for (index_t k = 0; k < K; ++k)
      for (index_t l = 0; l < k; ++l) {
        const double product = gram[std::size_t(k * most + l)] + (length(k) + length(l)) / n - all / (n * n);
        sum += product * product;
      }
    return n * n * sum / (n * (n - 1) / 2);
  }

  /// Effective number of batches that carry the spread of coordinate j, (sum z^2)^2 / sum z^4: about K / 3
  /// for normal noise, k where k batches hold an event. mean: of all draws, one number a coordinate.
  double events(index_t j, view<const double> mean) const {
    double second = 0, fourth = 0;
    for (index_t k = 0; k < count(); ++k) {
      const double z = centred(k, j, mean);
      second += z * z;
      fourth += z * z * z * z;
    }
    return fourth > 0 ? second * second / fourth : 0;
  }

 private:
  double centred(index_t k, index_t j, view<const double> mean) const {
    const index_t held = draws_ / most + (k < draws_ % most ? 1 : 0);
    return (sums_[k * size_ + j] - double(held) * mean[j]) / std::sqrt(double(draws_));
  }

  index_t size_, draws_ = 0;
  block<double> sums_;
};

}  // namespace unroll
