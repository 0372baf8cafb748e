#include "unroll/rng/box_muller.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/support/instruction_sets.hpp"
#include "unroll/rng/draw.hpp"

using namespace unroll;

namespace {

// What box_muller computes, by the standard library in long double.
double by_library(key k, std::int64_t step, std::uint64_t index) {
  const auto r = draw_bits(k, draw_kind::normal, step, index / 2);
  const long double u =
      (static_cast<long double>(r[0]) + 0.5L) * 0x1p-32L + static_cast<long double>(r[1] >> 11) * 0x1p-53L;
  const long double v = (static_cast<long double>(r[2]) + 0.5L) * 0x1p-32L;
  const long double radius = std::sqrt(-2 * std::log(std::min(u, 1.0L)));
  const long double angle = 6.283185307179586476925286766559L * v;
  return double(radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle)));
}

std::uint64_t bits_of(const std::vector<double>& x) {
  std::uint64_t all = 0;
  for (const double one : x) all = 31 * all + __builtin_bit_cast(std::uint64_t, one);
  return all;
}

}  // namespace

TEST_CASE("normals have the same bits on every instruction set, by every compiler") {
  FOR_EACH_INSTRUCTION_SET();
  std::vector<double> x(10000);
  draw_normals(key{1234}, 9, view<double>(x));
  CHECK(x[0] == -0x1.33d7386b4fd4dp-4);
  CHECK(x[1] == 0x1.0de8b49fc406cp-3);
  CHECK(bits_of(x) == 133231863318490763u);
}

TEST_CASE("normals are Box and Muller's within three units in the last place of the radius") {
  FOR_EACH_INSTRUCTION_SET();
  std::vector<double> x(4000);
  draw_normals(key{7}, (std::int64_t{1} << 40) + 3, view<double>(x));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t other = i ^ 1;
    const double radius = std::hypot(x[i], x[other]);
    REQUIRE(std::abs(x[i] - by_library(key{7}, (std::int64_t{1} << 40) + 3, i)) <= 3 * 0x1p-53 * radius);
  }
}

TEST_CASE("normals of any number, from any pair on and in float are those of a long draw") {
  FOR_EACH_INSTRUCTION_SET();
  std::vector<double> all(200);
  draw_normals(key{5}, 2, view<double>(all));
  for (const index_t n : {0, 1, 2, 3, 7, 15, 16, 17, 63, 64, 65, 129, 199}) {
    INFO(n << " normals");
    std::vector<double> some(std::size_t(n) + 1, 77);
    std::vector<float> narrow(some.size(), 77);
    draw_normals(key{5}, 2, view<double>(some.data(), n));
    draw_normals(key{5}, 2, view<float>(narrow.data(), n));
    for (std::size_t i = 0; i < std::size_t(n); ++i) {
      CHECK(some[i] == all[i]);
      CHECK(narrow[i] == float(all[i]));
    }
    CHECK((some.back() == 77 && narrow.back() == 77));
  }
  // pairs whose number takes more than 32 bits
  const std::uint64_t far = (std::uint64_t{1} << 32) - 3;
  std::vector<double> across(20);
  box_muller::fill(5, std::uint32_t(draw_kind::normal), 2, far, across.data(), 20);
  for (std::size_t i = 0; i < across.size(); ++i) {
    CHECK(across[i] == draw_normal(key{5}, 2, 2 * far + i));
    CHECK(std::abs(across[i] - by_library(key{5}, 2, 2 * far + i)) < 1e-14);
  }
}
