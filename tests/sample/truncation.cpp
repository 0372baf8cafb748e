#include "unroll/sample/truncation.hpp"

#include <limits>

#include "tests/support/catch.hpp"
#include "unroll/rng/chooser.hpp"

namespace {

using unroll::index_t;
static_assert(unroll::truncation_law<unroll::fixed_truncation> &&
              unroll::truncation_law<unroll::polynomial_truncation>);

// sum over l >= 0 of P(length > l)
template <class L>
double mean_length(const L& law, index_t terms) {
  double p = 1, mean = 0;
  for (index_t k = 1; k <= terms; ++k) {
    mean += p;
    p *= 1 - law.cut(k);
  }
  return mean;
}

}  // namespace

TEST_CASE("fixed truncation has geometric lengths of the stated mean") {
  for (const double mean : {1.5, 2., 16., 50.}) {
    const unroll::fixed_truncation law(mean);
    CHECK(law.cut(1) == 1 / mean);
    CHECK(law.cut(1000) == 1 / mean);
    CHECK(std::abs(mean_length(law, 10000) - mean) < 1e-11 * mean);
    CHECK(std::abs(unroll::survival(law, 7) - std::pow(1 - 1 / mean, 7)) < 1e-14);
  }
}

TEST_CASE("polynomial truncation has the stated mean exactly") {
  for (const double mean : {1.01, 1.5, 16., 50.})
    for (const double alpha : {3., 4., 6.}) {
      const unroll::polynomial_truncation law(mean, alpha);
      // P(length > n) < (1 + (n - alpha) / a)^-(alpha - 1) with a = (alpha - 2) mean + 1, summed from n on
      const index_t n = 2000000;
      const double a = (alpha - 2) * mean + 1;
      const double rest = a / (alpha - 2) * std::pow(1 + (double(n) - alpha) / a, 2 - alpha);
      CHECK(std::abs(mean_length(law, n) - mean) < rest + 1e-9 * mean);
    }
}

TEST_CASE("polynomial truncation has the closed form (x)_(alpha - 1) / (x + l)_(alpha - 1) of survival") {
  // alpha = 4: 1 - cut(k) = (b + k - 3) / (b + k) with b = 2 mean, a telescoping product
  const double mean = 16, b = 2 * mean;
  const unroll::polynomial_truncation law(mean, 4);
  for (const index_t l : {0, 1, 2, 5, 100}) {
    const double x = double(l);
    const double expected = (b - 2) * (b - 1) * b / ((b + x - 2) * (b + x - 1) * (b + x));
    CHECK(std::abs(unroll::survival(law, l) - expected) < 1e-13);
  }
}

TEST_CASE("no truncation law cuts with probability one") {
  for (const double mean : {1.0000001, 1.001, 2., 1e9, std::numeric_limits<double>::infinity()}) {
    const unroll::fixed_truncation fixed(mean);
    CHECK((fixed.cut(1) >= 0 && fixed.cut(1) < 1));
    for (const double alpha : {2.001, 4., 6., 1000.}) {
      const unroll::polynomial_truncation law(mean, alpha);
      for (index_t k = 1; k < 100; ++k) CHECK((law.cut(k) >= 0 && law.cut(k) < 1));
    }
  }
  CHECK(unroll::fixed_truncation(std::numeric_limits<double>::infinity()).cut(1) == 0);
  CHECK_THROWS_AS(unroll::fixed_truncation(1), unroll::error);
  CHECK_THROWS_AS(unroll::fixed_truncation(0), unroll::error);
  CHECK_THROWS_AS(unroll::fixed_truncation(-3), unroll::error);
  CHECK_THROWS_AS(unroll::fixed_truncation(std::nan("")), unroll::error);
  CHECK_THROWS_AS(unroll::polynomial_truncation(1), unroll::error);
  CHECK_THROWS_AS(unroll::polynomial_truncation(std::nan("")), unroll::error);
  CHECK_THROWS_AS(unroll::polynomial_truncation(5, 2), unroll::error);
  // above 1, but (alpha - 2) mean + 1 is rounded to alpha - 1
  CHECK_THROWS_WITH(unroll::polynomial_truncation(std::nextafter(1.0, 2.0), 3),
                    Catch::Matchers::ContainsSubstring("the first step always cuts"));
}

TEST_CASE("runs drawn by a chooser have the mean of the law") {
  // polynomial, alpha = 6: the variance of a length is below 2 mean^2
  const double mean = 16;
  const unroll::polynomial_truncation law(mean, 6);
  const unroll::philox_chooser chooser(unroll::key{5});
  index_t k = 0;
  std::int64_t runs = 0, last = 0;
  const std::int64_t steps = 400000;
  for (std::int64_t t = 0; t < steps; ++t)
    if (chooser.coin(t, law.cut(++k))) {
      ++runs;
      k = 0;
      last = t + 1;
    }
  const double error = 5 * std::sqrt(2.) * mean / std::sqrt(double(runs));
  CHECK(std::abs(double(last) / double(runs) - mean) < error);
}
