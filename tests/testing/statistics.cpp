#include "unroll/testing/statistics.hpp"

#include <array>

#include "tests/support/catch.hpp"
#include "unroll/rng/draw.hpp"

namespace testing = unroll::testing;
using unroll::index_t;
using unroll::key;

TEST_CASE("the chi-square quantile is close to the tables") {
  CHECK(testing::chi_square_quantile(0.95, 30) == Approx(43.773).epsilon(1e-3));
  CHECK(testing::chi_square_quantile(0.01, 20) == Approx(8.260).epsilon(5e-3));
  CHECK(testing::chi_square_quantile(0.9999, 32) == Approx(72.0).epsilon(0.02));
}

namespace {

// `draws` vectors of three: a shifted normal, a sign and a constant.
template <class Change>
testing::mean_test draw(index_t draws, const std::array<double, 3>& expected, Change&& change) {
  testing::sample s(3, draws);
  std::array<double, 3> x{};
  for (index_t i = 0; i < draws; ++i) {
    const index_t at = change(i, x);
    x = {2 + 3 * unroll::draw_normal(key{9}, at), unroll::draw_uniform(key{9}, at) < 0.5 ? -1.0 : 1.0, 4};
    change(i, x);
    s.add(x);
  }
  return s.test_mean(expected);
}

const auto as_drawn = [](index_t i, std::array<double, 3>&) { return i; };

}  // namespace

TEST_CASE("a sample with the right mean passes, with z values of ordinary size") {
  const auto r = draw(20000, {2, 0, 4}, as_drawn);
  CHECK(r.failures.empty());
  CHECK(r.worst_z > 0.01);
  CHECK(r.worst_z < 4);
  CHECK(r.bound_z == Approx(5.2).margin(0.1));  // 1e-6 / 2 over 3 coordinates, two sides
  CHECK(r.least_spread > r.least_bound);
  CHECK(r.most_spread < r.most_bound);
}

TEST_CASE("a bias of a tenth of the standard deviation is found") {
  CHECK(draw(20000, {2.3, 0, 4}, as_drawn).failures.size() >= 1);
  CHECK(draw(20000, {2, 0.1, 4}, as_drawn).failures.size() >= 1);
}

TEST_CASE("a constant must be exact") {
  const auto r = draw(2000, {2, 0, 4.001}, as_drawn);
  REQUIRE(r.failures.size() == 1);
  CHECK(r.failures[0].find("always") != std::string::npos);
}

TEST_CASE("draws that repeat scatter too much") {
  const auto r = draw(20000, {2, 0, 4}, [](index_t i, std::array<double, 3>&) { return i / 200; });
  bool found = false;
  for (const auto& f : r.failures) found = found || f.find("too much") != std::string::npos;
  CHECK(found);
}

TEST_CASE("draws that cancel each other scatter too little") {
  const auto r = draw(20000, {2, 0, 4}, [](index_t i, std::array<double, 3>& x) {
    if (i % 2 == 1) x[0] = 4 - x[0];  // the antithetic twin
    return i / 2 * 2;
  });
  bool found = false;
  for (const auto& f : r.failures) found = found || f.find("too little") != std::string::npos;
  CHECK(found);
}

TEST_CASE("a sample needs enough draws, and as many as announced") {
  CHECK_THROWS_AS(testing::sample(1, 100), unroll::error);
  testing::sample s(1, 2000);
  for (int i = 0; i < 500; ++i) s.add(std::array<double, 1>{double(i)});
  CHECK_THROWS_AS(s.test_mean(std::array<double, 1>{0}), unroll::error);
  CHECK_THROWS_AS(s.add(std::array<double, 2>{}), unroll::error);
}

TEST_CASE("mean and variance are those of the numbers") {
  testing::sample s(1, 960);
  for (int i = 0; i < 960; ++i) s.add(std::array<double, 1>{i % 2 == 0 ? 1e8 : 1e8 + 2});
  CHECK(s.mean(0) == Approx(1e8 + 1).epsilon(1e-15));
  CHECK(s.variance(0) == Approx(960.0 / 959.0).epsilon(1e-7));
}
