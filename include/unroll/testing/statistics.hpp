#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unroll/core/view.hpp"
#include "unroll/diagnose/interval.hpp"

namespace unroll::testing {

/// The x with P(Q < x) = p for Q chi-square with n degrees of freedom: Wilson and Hilferty's cube, good to a
/// few per cent in the far tails for n >= 10.
inline double chi_square_quantile(double p, double n) {
  const double c = 2 / (9 * n);
  const double root = 1 - c + normal_quantile(p) * std::sqrt(c);
  return n * root * root * root;
}

/// What test_mean found. `failures` is empty when the sample agrees with the expected value.
struct mean_test {
  double worst_z = 0;       ///< largest |z| over the coordinates
  double bound_z = 0;       ///< what it may be
  double least_spread = 0;  ///< smallest and largest mean square of the batches' z over the coordinates
  double most_spread = 0;   ///< the largest of them
  double least_bound = 0, most_bound = 0;  ///< between which the spreads may be
  std::vector<std::string> failures;       ///< what is wrong, in sentences
};

/// A sample of independent random vectors, kept as moments: of all draws, and of batches of neighbouring
/// draws.
class sample {
 public:
  /// size: of one vector; draws: how many will come; batches: into how many groups they are cut.
  sample(index_t size, index_t draws, index_t batches = 32)
      : n_(size), per_batch_(draws / batches), batches_(batches) {
    check_at_least("sample", "batches", batches, 10);
    check_at_least("sample", "draws", draws, 30 * batches);
    mean_.resize(std::size_t(n_));
    squares_.resize(std::size_t(n_));
    batch_.resize(std::size_t(n_ * batches));
  }

  /// One draw.
  template <class Vector>
  void add(const Vector& draw) {
    check_size("sample::add", "draw", index_t(draw.size()), n_);
    const index_t b = std::min(count_ / per_batch_, batches_ - 1);
    ++count_;
    if (count_ > per_batch_ * batches_) ++extra_;
    auto x = draw.begin();
    for (index_t i = 0; i < n_; ++i, ++x) {
      const auto k = std::size_t(i);
      const double before = double(*x) - mean_[k];
      mean_[k] += before / double(count_);
      squares_[k] += before * (double(*x) - mean_[k]);
      batch_[std::size_t(i + b * n_)] += double(*x);
    }
  }

  index_t size() const { return n_; }
  index_t count() const { return count_; }  ///< draws added
  double mean(index_t i) const { return mean_[std::size_t(i)]; }
  /// Of coordinate i, of one draw.
  double variance(index_t i) const { return squares_[std::size_t(i)] / double(count_ - 1); }

  /// Is the mean `expected`? Two questions, each with half of the false-alarm rate, shared by the coordinates
  /// after Bonferroni: (1) no |z| = |mean - expected| / sqrt(variance / draws) is too large; (2) the means of
  /// the batches scatter as independent draws must, neither more (a stream that repeats itself) nor less
  /// (draws that cancel, a variance that counts too much). Draws need a few moments; at heavy tails the
  /// normal limit is late and the stated rate is not kept.
  template <class Vector>
  mean_test test_mean(const Vector& expected, double false_alarm = 1e-6) const {
    check_size("sample::test_mean", "expected", index_t(expected.size()), n_);
    mean_test r;
    if (count_ < per_batch_ * batches_ || extra_ >= per_batch_)
      fail("sample::test_mean", "draws", "are not as many as announced");
    const double each = false_alarm / 2 / double(n_);
    r.bound_z = -normal_quantile(each / 2);
    const double b = double(batches_);
    r.least_bound = chi_square_quantile(each / 2, b) / b;
    r.most_bound = chi_square_quantile(1 - each / 2, b) / b;
    r.least_spread = std::numeric_limits<double>::infinity();
    auto target = expected.begin();
    for (index_t i = 0; i < n_; ++i) {
      const double exact = double(*target++);
      const std::string where = "coordinate " + std::to_string(i) + ": ";
      const double rounding = 1e-9 * std::max(std::abs(exact), std::abs(mean(i)));
      if (variance(i) <= rounding * rounding) {  // a constant: no statistics to make
        if (std::abs(mean(i) - exact) > rounding)
          r.failures.push_back(where + "always " + std::to_string(mean(i)) + ", expected " +
                               std::to_string(exact));
        continue;
      }
      const double z = std::abs(mean(i) - exact) / std::sqrt(variance(i) / double(count_));
      r.worst_z = std::max(r.worst_z, z);
      if (!(z <= r.bound_z))
        r.failures.push_back(where + "|z| is " + std::to_string(z) + ", may be " + std::to_string(r.bound_z));
      double spread = 0;
      for (index_t k = 0; k < batches_; ++k) {
        const index_t draws = k + 1 < batches_ ? per_batch_ : count_ - per_batch_ * (batches_ - 1);
        const double d = batch_[std::size_t(i + k * n_)] / double(draws) - exact;
        spread += d * d / (variance(i) / double(draws)) / b;
      }
      r.least_spread = std::min(r.least_spread, spread);
      r.most_spread = std::max(r.most_spread, spread);
      if (!(spread >= r.least_bound))
        r.failures.push_back(where + "the batches scatter too little: " + std::to_string(spread) +
                             ", must be above " + std::to_string(r.least_bound));
      if (!(spread <= r.most_bound))
        r.failures.push_back(where + "the batches scatter too much: " + std::to_string(spread) +
                             ", must be below " + std::to_string(r.most_bound));
    }
    return r;
  }

 private:
  index_t n_, per_batch_, batches_, count_ = 0, extra_ = 0;
  std::vector<double> mean_, squares_, batch_;
};

}  // namespace unroll::testing
