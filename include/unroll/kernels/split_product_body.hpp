#pragma once

#include "unroll/kernels/gemm_mma_body.hpp"

// A product of few numbers with many terms, such as an adapter's A' x of few tokens: a device has too few
// tiles of it to be busy, so its terms are summed up in parts, which are added in order.
namespace unroll::kernels {

/// How a product m x n of k terms is split: by m and k alone, so that the bits of a column do not depend on
/// how many columns there are.
struct product_split {
  static constexpr index_t most_rows = 256, least_terms = 1024, most_parts = 16;
  UNROLL_HD static bool pays(index_t m, index_t k) { return m <= most_rows && k >= least_terms; }
  /// Terms of a part.
  UNROLL_HD static index_t terms(index_t k) { return 128 * ceil_div(k, 128 * most_parts); }
  UNROLL_HD static index_t parts(index_t k) { return ceil_div(k, terms(k)); }
};

/// c = alpha (p_0 + p_1 + ...) [+ c]: the products of the parts, m x n each, lie one behind the other.
template <class C>
struct join_products_body {
  const float* products;
  index_t parts;
  float alpha;
  bool add;
  matrix<C> c;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD index_t blocks() const { return ceil_div(c.rows * c.cols, threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& x) const {
    x.phase([&](int t) {
      const index_t at = x.block() * threads + t, n = c.rows * c.cols;
      if (at >= n) return;
      float sum = 0;
      for (index_t first = 0; first < parts; first += ahead) {
        float term[ahead];
        UNROLL_UNROLLED
        for (int i = 0; i < ahead; ++i) term[i] = first + i < parts ? products[at + (first + i) * n] : 0.f;
        UNROLL_UNROLLED
        for (int i = 0; i < ahead; ++i) sum = sum + term[i];
      }
      C& to = c.data[at % c.rows + at / c.rows * c.stride];
      to = C(add ? fmaf(alpha, sum, float(to)) : alpha * sum);
    });
  }

 private:
  static constexpr int ahead = 8;  // loads that are under way
};

}  // namespace unroll::kernels
