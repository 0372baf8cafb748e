#include "unroll/rng/draw.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;

// The keys are fixed, so a bound of 4 standard deviations either holds for ever or shows a defect; by chance
// a sound generator would have failed one of about ten such bounds with probability 6e-4.
namespace {
constexpr double bound = 4;
constexpr key k{2024};
}  // namespace

TEST_CASE("the bits are those of cuRAND's and PyTorch's Philox") {
  // at::Philox4_32(1234, 9, 2^32 + 2) of torch 2.15.0; cuRAND 10.4.0's host generator at offset 2^50 + 36
  using words = std::array<std::uint32_t, 4>;
  CHECK(draw_bits(key{1234}, draw_kind::sign, 9, 2) ==
        words{3410552841u, 28363224u, 3841852331u, 1781016892u});
  CHECK(draw_bits(key{1234}, draw_kind::sign, 9, 0) ==
        words{2292029505u, 2268478062u, 4283935297u, 2610842585u});
}

TEST_CASE("signs are balanced, uncorrelated from step to step and within what one call of philox gives") {
  const index_t n = 1 << 16;
  std::vector<double> now(std::size_t(n), 0.0), next(now.size());
  draw_signs(k, 5, view<double>(now));
  draw_signs(k, 6, view<double>(next));
  double sum = 0, across = 0;
  for (std::size_t i = 0; i < now.size(); ++i) {
    REQUIRE(std::abs(now[i]) == 1);
    sum += now[i];
    across += now[i] * next[i];
  }
  const double sd = std::sqrt(double(n));
  CHECK(std::abs(sum) < bound * sd);
  CHECK(std::abs(across) < bound * sd);
  for (std::size_t lag = 1; lag <= 128; ++lag) {
    double along = 0;
    for (std::size_t i = lag; i < now.size(); ++i) along += now[i] * now[i - lag];
    INFO("lag " << lag);
    CHECK(std::abs(along) < bound * sd);
  }
}

TEST_CASE("a shorter draw of signs is the beginning of a longer one, in float as in double") {
  std::vector<double> all(300);
  draw_signs(k, 9, view<double>(all));
  for (const index_t n : {0, 1, 31, 32, 127, 128, 129, 299}) {
    std::vector<float> some(std::size_t(n), 0.f);
    draw_signs(k, 9, view<float>(some));
    CHECK(std::equal(some.begin(), some.end(), all.begin()));
  }
}

TEST_CASE("uniforms have the moments of the unit interval") {
  const int n = 40000;
  double sum = 0, squares = 0;
  for (int t = 0; t < n; ++t) {
    const double u = draw_uniform(k, t);
    REQUIRE((u >= 0 && u < 1));
    sum += u - 0.5;
    squares += (u - 0.5) * (u - 0.5) - 1.0 / 12;
  }
  CHECK(std::abs(sum) < bound * std::sqrt(n / 12.0));
  CHECK(std::abs(squares) < bound * std::sqrt(n / 180.0));  // var (u - 1/2)^2 = 1/80 - 1/144 = 1/180
}

TEST_CASE("indices are uniform over 0 .. n-1") {
  const int draws = 42000, n = 7;
  double count[n] = {};
  for (int t = 0; t < draws; ++t) {
    const index_t i = draw_index(k, t, n);
    REQUIRE((i >= 0 && i < n));
    ++count[i];
  }
  const double mean = double(draws) / n, sd = std::sqrt(mean * (1 - 1.0 / n));
  for (const double c : count) CHECK(std::abs(c - mean) < bound * sd);
  CHECK(draw_index(k, 1, 1) == 0);
}

TEST_CASE("normals have the first four moments of N(0, 1) and independent pairs") {
  const index_t n = 40000;
  std::vector<double> z(std::size_t(n), 0.0);
  draw_normals(k, 3, view<double>(z));
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, pair = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    m1 += z[i];
    m2 += z[i] * z[i] - 1;
    m3 += z[i] * z[i] * z[i];
    m4 += z[i] * z[i] * z[i] * z[i] - 3;
    if (i % 2 == 1) pair += z[i] * z[i - 1];  // both from one Box-Muller draw
  }
  const double root = std::sqrt(double(n));  // variances 1, 2, 15, 96 and 1
  CHECK(std::abs(m1) < bound * root);
  CHECK(std::abs(m2) < bound * root * std::sqrt(2.0));
  CHECK(std::abs(m3) < bound * root * std::sqrt(15.0));
  CHECK(std::abs(m4) < bound * root * std::sqrt(96.0));
  CHECK(std::abs(pair) < bound * root / std::sqrt(2.0));
}

TEST_CASE("draws are replayed by name and differ by key, kind and step") {
  CHECK(draw_normal(k, 8, 3) == draw_normal(k, 8, 3));
  std::array<double, 5> some{};
  draw_normals(k, 8, view<double>(some.data(), 3));
  for (std::size_t i = 0; i < 3; ++i) CHECK(some[i] == draw_normal(k, 8, i));
  CHECK((some[3] == 0 && some[4] == 0));
  CHECK(draw_uniform(k, 8) == draw_uniform(k, 8));
  CHECK(draw_uniform(k, 8) != draw_uniform(k, 9));
  CHECK(draw_uniform(k, 8) != draw_uniform(key{2025}, 8));
  CHECK(draw_uniform(k, 8, 0) != draw_uniform(k, 8, 1));
  CHECK(draw_bits(k, draw_kind::sign, 8, 0) != draw_bits(k, draw_kind::normal, 8, 0));
  CHECK(draw_bits(k, draw_kind::sign, 8, 0) != draw_bits(k, draw_kind::sign, 8 + (std::int64_t{1} << 32), 0));
  CHECK(draw_normal(k, 8, 0) != draw_normal(k, 8, std::uint64_t{1} << 33));  // billions of parameters
}
