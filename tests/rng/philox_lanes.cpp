#include "unroll/rng/philox_lanes.hpp"

#include <algorithm>
#include <vector>

#include "tests/support/instruction_sets.hpp"
#include "unroll/rng/chooser.hpp"

using namespace unroll;

TEST_CASE("uniforms of many steps, and coins, are those that are drawn one by one") {
  FOR_EACH_INSTRUCTION_SET();
  for (const std::int64_t first : {std::int64_t{0}, (std::int64_t{1} << 32) - 5, std::int64_t{-9}})
    for (const index_t n : {0, 1, 7, 8, 9, 40}) {
      std::vector<double> u(std::size_t(n) + 1, 77), thrown(u), mirrored(u);
      draw_uniforms(key{3}, first, view<double>(u.data(), n));
      philox_chooser draws(key{3}), twin(key{3});
      twin.mirror(true);
      draws.coins(first, .3, view<double>(thrown.data(), n));
      twin.coins(first, .3, view<double>(mirrored.data(), n));
      std::vector<double> again(std::size_t(n), 77);
      draws.coins(first, .3, again);
      CHECK(std::equal(again.begin(), again.end(), thrown.begin()));
      for (index_t i = 0; i < n; ++i) {
        CHECK(u[std::size_t(i)] == draw_uniform(key{3}, first + i));
        CHECK(thrown[std::size_t(i)] == double(draws.coin(first + i, .3)));
        CHECK(mirrored[std::size_t(i)] == double(twin.coin(first + i, .3)));
      }
      CHECK((u.back() == 77 && thrown.back() == 77 && mirrored.back() == 77));
    }
}
