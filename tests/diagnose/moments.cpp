#include "unroll/diagnose/moments.hpp"

#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/rng/draw.hpp"

using namespace unroll;

namespace {

std::vector<double> draw(index_t i, index_t size) {
  std::vector<double> x(std::size_t(size), 0.0);
  for (index_t j = 0; j < size; ++j)
    x[std::size_t(j)] = 1e6 * double(j) + draw_normal(key{7}, i, std::uint32_t(j));
  return x;
}

}  // namespace

TEST_CASE("moments are those of two passes, also far from the origin") {
  const index_t n = 101, size = 3;
  moments m(size);
  for (index_t i = 0; i < n; ++i) m.add(view<double>(draw(i, size)));
  double total = 0;
  for (index_t j = 0; j < size; ++j) {
    double mean = 0, squares = 0;
    for (index_t i = 0; i < n; ++i) mean += draw(i, size)[std::size_t(j)] / double(n);
    for (index_t i = 0; i < n; ++i) squares += std::pow(draw(i, size)[std::size_t(j)] - mean, 2);
    CHECK(m.mean()[j] == Approx(mean).epsilon(1e-14));
    CHECK(m.variance(j) == Approx(squares / double(n - 1)).epsilon(1e-8));
    total += squares / double(n - 1);
  }
  CHECK(m.total_variance() == Approx(total).epsilon(1e-8));
  CHECK(m.count() == n);
}

TEST_CASE("merging parts gives the moments of the whole") {
  const index_t size = 4;
  moments whole(size), left(size), right(size), none(size);
  for (index_t i = 0; i < 50; ++i) {
    whole.add(view<double>(draw(i, size)));
    (i < 13 ? left : right).add(view<double>(draw(i, size)));
  }
  left.merge(none);
  left.merge(right);
  none.merge(whole);
  for (index_t j = 0; j < size; ++j) {
    CHECK(left.mean()[j] == Approx(whole.mean()[j]).epsilon(1e-14).margin(1e-12));
    CHECK(left.variance(j) == Approx(whole.variance(j)).epsilon(1e-8));
    CHECK(none.variance(j) == Approx(whole.variance(j)).epsilon(1e-12));
  }
  CHECK(left.count() == 50);
}

TEST_CASE("equal vectors have exactly zero variance, alone and merged") {
  const std::vector<double> x{0.1, 1.0 / 3};
  moments a(2), b(2);
  for (int i = 0; i < 5; ++i) a.add(view<const double>(x));
  for (int i = 0; i < 3; ++i) b.add(view<const double>(x));
  a.merge(b);
  CHECK(a.total_variance() == 0);
  CHECK(moments(2).total_variance() == 0);
}

TEST_CASE("moments refuse a vector of another size") {
  moments m(2);
  CHECK_THROWS_AS(m.add(view<double>(draw(0, 3))), unroll::error);
}
