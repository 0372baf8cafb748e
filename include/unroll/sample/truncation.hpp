#pragma once

#include <cmath>
#include <concepts>
#include <string>

#include "unroll/core/error.hpp"

// Random places where backward passes are cut. Let k = 1, 2, ... count the steps since the last cut: a cut
// follows step k with probability cut(k), independently of all others. The gradient of a loss by parameters
// used l steps earlier passes where no cut follows any of the l steps between; the probability of that is
// survival(law, l) = (1 - cut(1)) ... (1 - cut(l)).
namespace unroll {

/// cut(k) must lie in [0, 1): a law that cuts with probability 1 somewhere cannot be compensated.
template <class L>
concept truncation_law = std::copyable<L> && requires(const L& law, index_t k) {
  { law.cut(k) } -> std::same_as<double>;
};

/// The probability that a run is longer than `lag` steps. O(lag), for reports and tests: it underflows, so
/// estimators divide by 1 - cut(k) step by step.
template <truncation_law L>
double survival(const L& law, index_t lag) {
  double p = 1;
  for (index_t k = 1; k <= lag; ++k) p *= 1 - law.cut(k);
  return p;
}

/// Cuts with probability 1 / mean after every step: geometric lengths, survival (1 - 1 / mean)^l. An infinite
/// mean never cuts. Let rho be the factor by which J_{t:s} shrinks a step. The variance of an estimate is
/// finite for every length T; what one loss adds to it stays bounded as T grows if rho^2 < 1 - 1 / mean, and
/// otherwise grows like (rho^2 / (1 - 1 / mean))^T.
class fixed_truncation {
 public:
  explicit fixed_truncation(double mean) : cut_(1 / mean) {
    if (!(mean > 1)) fail("fixed_truncation", "mean", "is " + std::to_string(mean) + ", must be above 1");
  }
  double cut(index_t) const { return cut_; }  ///< the same for every k

 private:
  double cut_;
};

/// cut(k) = (alpha - 1) / ((alpha - 2) mean + k), the law of Tallec and Ollivier 2017. The mean length
/// is exactly `mean`; survival falls like (1 + l / ((alpha - 2) mean))^-(alpha - 1), slower than any
/// exponential, so that what one loss adds to the variance stays bounded in every contracting system. The
/// longest of N runs has about N^(1 / (alpha - 1)) (alpha - 2) mean steps.
class polynomial_truncation {
 public:
  explicit polynomial_truncation(double mean, double alpha = 4)
      : numerator_(alpha - 1), offset_((alpha - 2) * mean) {
    if (!(mean > 1))
      fail("polynomial_truncation", "mean", "is " + std::to_string(mean) + ", must be above 1");
    if (!(alpha > 2) || !std::isfinite(alpha))
      fail("polynomial_truncation", "alpha",
           "is " + std::to_string(alpha) + ", must be above 2 for the mean to exist");
    // cut(k) <= cut(1) < 1 is (alpha - 1) < (alpha - 2) mean + 1, the same as mean > 1 up to rounding
    if (!(cut(1) < 1)) fail("polynomial_truncation", "mean", "is too close to 1: the first step always cuts");
  }
  /// Probability after k steps without a cut.
  double cut(index_t k) const { return numerator_ / (offset_ + double(k)); }

 private:
  double numerator_, offset_;
};

}  // namespace unroll
