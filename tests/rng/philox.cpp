#include "unroll/rng/philox.hpp"

#include <algorithm>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/rng/key.hpp"

using namespace unroll;

// Known answers of philox4x32-10 published with Random123.
TEST_CASE("philox gives the published known answers") {
  using counter = std::array<std::uint32_t, 4>;
  constexpr std::uint32_t ones = 0xffffffffu;
  STATIC_REQUIRE(philox({0, 0, 0, 0}, {0, 0}) == counter{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  STATIC_REQUIRE(philox({ones, ones, ones, ones}, {ones, ones}) ==
                 counter{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  STATIC_REQUIRE(philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
                 counter{0xd16cfe09u, 0x94fdcceb, 0x5001e420u, 0x24126ea1u});
  CHECK(philox({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5u);
}

TEST_CASE("folds of one key, and folds of folds, are all different") {
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t n = 0; n < 300; ++n) {
    const key child = fold(key{7}, n);
    seeds.push_back(child.seed);
    seeds.push_back(fold(child, n).seed);
    seeds.push_back(fold(key{8}, n << 32).seed);
  }
  std::sort(seeds.begin(), seeds.end());
  CHECK(std::adjacent_find(seeds.begin(), seeds.end()) == seeds.end());
  CHECK(fold(key{7}, 3) == fold(key{7}, 3));
  // by philox written down in Python: counter (n, n >> 32, "fold", 0), the seed as its key
  CHECK(fold(key{7}, 3).seed == 0xaa69b68a9eaf0edu);
  CHECK(fold(key{1ull << 40 | 7}, 1ull << 33 | 3).seed == 0x5ff3e17a4ee7305eu);
}
