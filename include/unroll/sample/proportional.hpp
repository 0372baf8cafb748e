#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "unroll/core/block.hpp"
#include "unroll/rng/chooser.hpp"

namespace unroll {

/// WRITES the inclusion probabilities p_i = min(1, c a_i) with c such that they sum to min(budget, number of
/// a_i > 0): proportional to the sizes a_i >= 0 (finite), where that would pass 1 the item is certain and the
/// others share what is left. Among all p of that sum they minimise sum a_i^2 / p_i. O(n) a round, at most
/// `budget` rounds.
inline void inclusion_probabilities(view<const double> a, index_t budget, view<double> p) {
  check_at_least("inclusion_probabilities", "budget", budget, 1);
  check_size("inclusion_probabilities", "p", p.size(), a.size());
  const auto positive = std::count_if(a.begin(), a.end(), [](double x) { return x > 0; });
  if (positive <= budget) {
    for (index_t i = 0; i < a.size(); ++i) p[i] = a[i] > 0 ? 1 : 0;
    return;
  }
  std::fill(p.begin(), p.end(), 0.0);
  const double largest = *std::max_element(a.begin(), a.end());  // ratios: their sum does not overflow
  for (index_t left = budget, certain = -1; certain != left && left > 0;) {
    double sum = 0;
    for (index_t i = 0; i < a.size(); ++i)
      if (p[i] < 1) sum += a[i] / largest;
    certain = left;
    for (index_t i = 0; i < a.size(); ++i) {
      if (p[i] == 1) continue;
      p[i] = double(certain) * (a[i] / largest) / sum;
      if (p[i] < 1) continue;
      p[i] = 1;
      --left;
    }
  }
}

/// Systematic sampling with given inclusion probabilities p: one u in [0, 1), and item i is taken where one
/// of u, u + 1, u + 2, ... lies in [p_0 + .. + p_{i-1}, p_0 + .. + p_i) (Madow 1949). Item i is taken with
/// probability p_i exactly, and the number of items is the sum of p where that is whole, else one of its two
/// neighbours (up to rounding). Items with p = 1 stand aside: they are always taken.
///
/// Only the interval between neighbouring ends p_0 + .. + p_i (mod 1) in which u lies matters; it is drawn by
/// one coin after the other, named first, first + 1, ..., at most n of them. O(n log n).
class systematic_sampler {
 public:
  explicit systematic_sampler(index_t most) : ends_(most), cuts_(most) {}

  std::size_t bytes() const { return ends_.bytes() + cuts_.bytes(); }

  /// WRITES taken[i] = 1 or 0 for the n probabilities p; returns how many. n <= most.
  template <chooser C>
  index_t draw(C& choose, std::int64_t first, view<const double> p, view<char> taken) {
    const index_t n = p.size();
    check_size("systematic_sampler::draw", "taken", taken.size(), n);
    check_at_least("systematic_sampler::draw", "most", ends_.size(), n);
    double sum = 0;
    for (index_t i = 0; i < n; ++i) ends_[i] = sum += p[i] < 1 ? p[i] : 0;
    for (index_t i = 0; i < n; ++i) cuts_[i] = ends_[i] - std::floor(ends_[i]);
    std::sort(cuts_.begin(), cuts_.begin() + n);

    double low = 0, high = 1;
    for (index_t k = 0; k < n; ++k) {
      if (cuts_[k] <= low) continue;
      if (choose.coin(first + k, (cuts_[k] - low) / (1 - low))) {
        high = cuts_[k];
        break;
      }
      low = cuts_[k];
    }
    const double u = low + (high - low) / 2;
    index_t count = 0;
    double before = std::ceil(-u);
    for (index_t i = 0; i < n; ++i) {
      const double after = std::ceil(ends_[i] - u);
      taken[i] = char(p[i] >= 1 || after > before);
      count += taken[i];
      before = after;
    }
    return count;
  }

 private:
  block<double> ends_, cuts_;
};

/// How a sample with given inclusion probabilities is drawn; the probability that two items are in it
/// together depends on that, and with it the variance of a sum over the sample.
enum class sampling_design {
  systematic,    ///< over the items in their order: near ones are seldom taken together, some pairs never
  random_order,  ///< systematic over the items in a random order
  independent    ///< a coin for every item (Poisson sampling): the number of items is random
};

/// Samples of each design, of at most `most` items.
class proportional_sampler {
 public:
  proportional_sampler(index_t most, sampling_design design)
      : design_(design),
        systematic_(most),
        order_(design == sampling_design::random_order ? most : 0),
        p_(order_.size()),
        taken_(order_.size()) {}

  sampling_design design() const { return design_; }  ///< how it draws
  std::size_t bytes() const { return systematic_.bytes() + order_.bytes() + p_.bytes() + taken_.bytes(); }

  /// WRITES taken[i] = 1 with probability p[i], else 0, as many of each; returns how many. Draws are named
  /// from `first` on.
  template <chooser C>
  index_t draw(C& choose, std::int64_t first, view<const double> p, view<char> taken) {
    if (design_ == sampling_design::systematic) return systematic_.draw(choose, first, p, taken);
    check_size("proportional_sampler::draw", "taken", taken.size(), p.size());
    index_t count = 0;
    if (design_ == sampling_design::independent) {
      for (index_t i = 0; i < p.size(); ++i) count += taken[i] = choose.coin(first + i, p[i]);
      return count;
    }
    check_at_least("proportional_sampler::draw", "most", order_.size(), p.size());
    index_t open = 0;  // items that may be taken or not
    for (index_t i = 0; i < p.size(); ++i) {
      count += taken[i] = char(p[i] >= 1);
      if (p[i] > 0 && p[i] < 1) order_[open++] = i;
    }
    for (index_t i = open - 1; i > 0; --i) std::swap(order_[i], order_[choose.uniform(first + i, i + 1)]);
    for (index_t i = 0; i < open; ++i) p_[i] = p[order_[i]];
    const view<char> found = view<char>(taken_).part(0, open);
    count += systematic_.draw(choose, first, view<const double>(p_).part(0, open), found);
    for (index_t i = 0; i < open; ++i) taken[order_[i]] = found[i];
    return count;
  }

 private:
  sampling_design design_;
  systematic_sampler systematic_;
  block<index_t> order_;
  block<double> p_;
  block<char> taken_;
};

}  // namespace unroll
