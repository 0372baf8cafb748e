#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/core/small_svd.hpp"

namespace unroll::influence {

/// A sum of r + 1 products replaced by a random one of r, with the same mean and the least variance possible.
/// C is (r + 1) x (r + 1), the random X and Y are (r + 1) x r, E X Y' = C: with the singular values of C =
/// P diag(d) Q', d_1 >= d_2 >= ..., the k largest are kept,
///
///     k = the least with d_{k+1} (r - k) <= S,  S = d_{k+1} + ... + d_{r+1};  always k < r
///
/// and the others are mixed by signs sigma and any Z of r - k columns with Z Z' = 1 - z z', where z_i^2 = 1 -
/// (r - k) d_i / S, so that the diagonal of S / (r - k) Z Z' is d:
///
///     X = P diag(sigma) Z sqrt(S / (r - k)),   Y = Q diag(sigma) Z sqrt(S / (r - k))
///
/// E |X Y' - C|^2 = S^2 / (r - k) - sum of the d_i^2 that are mixed. Benzing et al. 2019. Here Z is what a
/// Householder reflection of z leaves beside it.
class term_reduction {
 public:
  /// For so many terms, r, at least 1.
  explicit term_reduction(index_t terms)
      : terms_(terms),
        p_(std::size_t((terms + 1) * (terms + 1))),
        q_(p_.size()),
        d_(std::size_t(terms + 1)),
        z_(d_.size()) {
    check_at_least("term_reduction", "terms", terms, 1);
  }
  index_t terms() const { return terms_; }  ///< r
  std::size_t bytes() const { return (p_.size() + q_.size() + d_.size() + z_.size()) * sizeof(double); }

  /// c: (r + 1) x (r + 1), column-major. signs: r + 1 of them. WRITES x and y, (r + 1) x r, column-major.
  template <class T>
  void reduce(const double* c, const T* signs, T* x, T* y) {
    const index_t m = terms_ + 1;
    std::copy_n(c, m * m, p_.data());
    linalg::jacobi_svd(m, m, p_.data(), q_.data(), d_.data());
    index_t k = 0;
    double sum = total(k);
    while (d_[std::size_t(k)] * double(terms_ - k) > sum) sum = total(++k);

    for (index_t j = 0; j < k; ++j) {
      const double root = std::sqrt(d_[std::size_t(j)]);
      for (index_t i = 0; i < m; ++i) {
        x[j * m + i] = T(p_[std::size_t(j * m + i)] * root);
        y[j * m + i] = T(q_[std::size_t(j * m + i)] * root);
      }
    }
    const double scale = std::sqrt(sum / double(terms_ - k));
    const double over = reflect(k, sum);
    for (index_t j = k; j < terms_; ++j)
      for (index_t i = 0; i < m; ++i) {
        double px = 0, qy = 0;
        for (index_t l = k; l < m; ++l) {
          // entry (l, j + 1) of 1 - v v' / over, of which column k is z
          const double zlj = double(l == j + 1) - z_[std::size_t(l)] * z_[std::size_t(j + 1)] * over;
          const double w = double(signs[l]) * zlj;
          px += p_[std::size_t(l * m + i)] * w;
          qy += q_[std::size_t(l * m + i)] * w;
        }
        x[j * m + i] = T(px * scale);
        y[j * m + i] = T(qy * scale);
      }
  }

 private:
  // d_{k+1} + ... + d_{r+1}
  double total(index_t k) const {
    double sum = 0;
    for (index_t i = terms_; i >= k; --i) sum += d_[std::size_t(i)];
    return sum;
  }
  // z_ = z + e_k from entry k on, whose reflection moves z to -e_k. Returns 2 / |z_|^2, 0 where C is 0.
  double reflect(index_t k, double sum) {
    if (!(sum > 0)) {
      std::fill(z_.begin(), z_.end(), 0.);
      return 0;
    }
    double squares = 0;
    for (index_t i = k; i <= terms_; ++i) {
      const double z2 = std::max(0., 1 - double(terms_ - k) * d_[std::size_t(i)] / sum);
      squares += z2;
      z_[std::size_t(i)] = std::sqrt(z2);
    }
    const double root = std::sqrt(squares);
    for (index_t i = k; i <= terms_; ++i) z_[std::size_t(i)] /= root;
    z_[std::size_t(k)] += 1;
    return 1 / z_[std::size_t(k)];  // |z + e_k|^2 = 2 (1 + z_k)
  }

  index_t terms_;
  std::vector<double> p_, q_, d_, z_;
};

}  // namespace unroll::influence
