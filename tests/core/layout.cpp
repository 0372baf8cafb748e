#include "unroll/core/layout.hpp"

#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;

namespace {

layout example_layout() {
  layout l;
  l.add("W", 3, 2);
  l.add("b", 3);
  l.add("V", 1, 3);
  return l;
}

}  // namespace

TEST_CASE("blocks of a layout lie one behind the other") {
  layout l;
  CHECK(l.size() == 0);
  CHECK(l.add("W", 3, 2) == 0);
  CHECK(l.add("b", 3) == 6);
  CHECK(l.size() == 9);
  REQUIRE(l.blocks().size() == 2);
  CHECK((l.blocks()[1].name == "b" && l.blocks()[1].rows == 3 && l.blocks()[1].cols == 1));
  CHECK(l.at("W").size() == 6);
}

TEST_CASE("a named part covers its block in the space it was asked in") {
  const layout l = example_layout();
  std::vector<double> flat(12);
  for (std::size_t i = 0; i < flat.size(); ++i) flat[i] = double(i);
  const params<double> theta = flat;
  const params<double> v = l.part(theta, "V");
  CHECK(v.size() == 3);
  CHECK(v[0] == 9);
  const params<const double> constant = flat;
  CHECK(l.part(constant, "b")[2] == 8);
}

TEST_CASE("an unknown name is answered with the names there are, a wrong size with both sizes") {
  const layout l = example_layout();
  CHECK_THROWS_WITH(l.at("U"), "layout::at: name: \"U\" is none of W, b, V");
  std::vector<double> flat(11);
  CHECK_THROWS_WITH(l.part(view<double>(flat), "W"), "layout::part: flat: has size 11, expected 12");
}

TEST_CASE("a block whose size would overflow is refused") {
  layout l;
  l.add("a", 1000, 1000);
  for (const index_t rows : {index_t{1} << 40, std::numeric_limits<index_t>::max(), index_t{-1}})
    CHECK_THROWS_WITH(
        l.add("b", rows, index_t{1} << 40),
        Catch::Matchers::ContainsSubstring("layout::add: b: is " + std::to_string(rows) + " x "));
  CHECK(l.size() == 1000000);
  CHECK(l.blocks().size() == 1);
}
