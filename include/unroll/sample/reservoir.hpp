#pragma once

#include <algorithm>

#include "unroll/rng/chooser.hpp"

namespace unroll {

/// Algorithm R: a uniform sample of `size` items of a stream whose length nobody knows (Vitter 1985). The
/// first `size` items are taken; item n (from 0) then draws one of n + 1 places, takes a slot's place if it
/// is one of the first `size`, and is rejected otherwise. After n items each is held with probability min(1,
/// size / n), and one that was thrown out never comes back.
class reservoir {
 public:
  explicit reservoir(index_t size) : size_(size) { check_at_least("reservoir", "size", size, 1); }

  index_t size() const { return size_; }

  /// The slot of item n, whose holder, if any, is thrown out; -1: rejected. One draw, named by n.
  template <chooser C>
  index_t slot(C& choose, index_t n) const {
    if (n < size_) return n;
    const index_t place = choose.uniform(n, n + 1);
    return place < size_ ? place : -1;
  }

  /// Probability that an item is held after n have come, and that two of them both are.
  double inclusion(index_t n) const { return n <= size_ ? 1 : double(size_) / double(n); }
  /// Probability that two given items of the first n are both held.
  double inclusion_of_two(index_t n) const {
    return n <= size_ ? 1 : double(size_) * double(size_ - 1) / (double(n) * double(n - 1));
  }
  /// The factor that makes its expectation 1: E[1{held after n} weight(n)] = 1.
  double weight(index_t n) const { return n <= size_ ? 1 : double(n) / double(size_); }

  /// Covariance of the weighted indicators 1{s held after n} weight(n) and 1{u held after m} weight(m), for n
  /// <= m and s, u < n: of one item and itself, or of two. It does not depend on m: the later indicator
  /// implies the earlier one, and the weight makes up for that. Zero where u >= n.
  double covariance(index_t n, bool same) const {
    if (n <= size_) return 0;
    const double excess = double(n - size_) / double(size_);
    return same ? excess : -excess / double(n - 1);
  }

 private:
  index_t size_;
};

}  // namespace unroll
