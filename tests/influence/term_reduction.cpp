#include "unroll/influence/term_reduction.hpp"

#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"
#include "unroll/rng/draw.hpp"

using namespace unroll;

namespace {

using numbers = std::vector<double>;

numbers random(index_t size, std::uint64_t stream) {
  numbers v(static_cast<std::size_t>(size));
  draw_normals(key{11}, std::int64_t(stream), view<double>(v));
  return v;
}

// X Y' - C
numbers error(const numbers& x, const numbers& y, const numbers& c, std::size_t m) {
  numbers e(m * m);
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t k = 0; k < m; ++k) {
      e[k * m + i] = -c[k * m + i];
      for (std::size_t j = 0; j + 1 < m; ++j) e[k * m + i] += x[j * m + i] * y[j * m + k];
    }
  return e;
}
double squares(const numbers& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return sum;
}

struct moments {
  numbers mean;
  double variance = 0;
};
moments over_all_signs(index_t terms, const numbers& c) {
  const auto m = std::size_t(terms + 1);
  influence::term_reduction reduction(terms);
  moments r{numbers(m * m)};
  const std::size_t outcomes = std::size_t(1) << m;
  numbers x(m * (m - 1)), y(x), signs(m);
  for (std::size_t bits = 0; bits < outcomes; ++bits) {
    for (std::size_t i = 0; i < m; ++i) signs[i] = bits >> i & 1 ? 1 : -1;
    reduction.reduce(c.data(), signs.data(), x.data(), y.data());
    const numbers e = error(x, y, c, m);
    for (std::size_t k = 0; k < m * m; ++k) r.mean[k] += e[k] / double(outcomes);
    r.variance += squares(e) / double(outcomes);
  }
  return r;
}

// S^2 / (r - k) - sum of squares behind k, for values in descending order
double least_variance(const numbers& d, index_t terms) {
  double least = 1e300;
  for (index_t k = 0; k < terms; ++k) {
    double sum = 0, square = 0;
    for (auto i = std::size_t(k); i < d.size(); ++i) sum += d[i], square += d[i] * d[i];
    if (d[std::size_t(k)] * double(terms - k) <= sum)
      least = std::min(least, sum * sum / double(terms - k) - square);
  }
  return least;
}

}  // namespace

TEST_CASE("r + 1 products are drawn to r without bias and with the least variance") {
  for (const index_t terms : {1, 2, 3, 4}) {
    const index_t m = terms + 1;
    for (std::uint64_t trial = 0; trial < 6; ++trial) {
      numbers c = random(m * m, trial);
      if (trial == 1)  // one value far above the others, which is kept
        for (index_t i = 0; i < m; ++i) c[std::size_t(i)] *= 1000;
      if (trial == 2) std::fill(c.end() - m, c.end(), 0.);  // not of full rank
      numbers p = c, v(c.size()), d(static_cast<std::size_t>(m));
      linalg::jacobi_svd(m, m, p.data(), v.data(), d.data());
      const moments r = over_all_signs(terms, c);
      CHECK(std::sqrt(squares(r.mean)) < 1e-13 * std::sqrt(squares(c)));
      CHECK(std::abs(r.variance - least_variance(d, terms)) < 1e-11 * squares(c));
    }
    // r products, or none, are drawn as they are
    numbers one(std::size_t(m * m));
    CHECK(over_all_signs(terms, one).variance == 0);
    for (index_t i = 0; i < terms; ++i) one[std::size_t(i * m + i)] = double(i + 1);
    CHECK(over_all_signs(terms, one).variance < 1e-24);
  }
  CHECK_THROWS_WITH(influence::term_reduction(0), Catch::Matchers::ContainsSubstring("terms"));
}

TEST_CASE("products that were not finite leave no trace in the next ones") {
  influence::term_reduction reduction(2);
  numbers c(9), x(6), y(6);
  const numbers signs(3, 1.);
  for (const double poison : {1e300, std::numeric_limits<double>::infinity(), std::nan("")}) {
    std::fill(c.begin(), c.end(), poison);
    reduction.reduce(c.data(), signs.data(), x.data(), y.data());
    std::fill(c.begin(), c.end(), 0.);
    reduction.reduce(c.data(), signs.data(), x.data(), y.data());
    CHECK((x == numbers(6) && y == numbers(6)));
  }
}

TEST_CASE("jacobi_svd finds singular values and vectors, small ones too") {
  const index_t m = 5, n = 3;
  numbers a = random(m * n, 9);
  for (index_t i = 0; i < m; ++i) a[std::size_t(2 * m + i)] *= 1e-9;
  numbers p = a, v(9), d(3);
  linalg::jacobi_svd(m, n, p.data(), v.data(), d.data());
  CHECK((d[0] >= d[1] && d[1] > d[2] && d[2] > 0));
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < 3; ++k) sum += p[k * 5 + i] * d[k] * v[k * 3 + j];
      CHECK(std::abs(sum - a[j * 5 + i]) < 1e-14 * (j == 2 ? 1e-8 : 1));
    }
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      double pp = 0, vv = 0;
      for (std::size_t k = 0; k < 5; ++k) pp += p[i * 5 + k] * p[j * 5 + k];
      for (std::size_t k = 0; k < 3; ++k) vv += v[i * 3 + k] * v[j * 3 + k];
      CHECK(std::abs(pp - double(i == j)) < 1e-13);
      CHECK(std::abs(vv - double(i == j)) < 1e-13);
    }
  // diag(3, 4) turned: values in order
  numbers known{3, 0, 0, 4}, w(4), e(2);
  linalg::jacobi_svd(2, 2, known.data(), w.data(), e.data());
  CHECK(e == numbers{4, 3});
  numbers zero(4);
  linalg::jacobi_svd(2, 2, zero.data(), w.data(), e.data());
  CHECK((e == numbers{0, 0} && zero == numbers(4)));
}
