#include "unroll/ranks/own_device.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("each process of a machine takes a device of its own, or is refused") {
  CHECK(own_device("f", 1, 0, 1, false) == 0);
  CHECK(own_device("f", 4, 0, 1, true) == 0);
  for (index_t rank = 0; rank < 3; ++rank) {
    CHECK(own_device("f", 4, rank, 3, false) == rank);
    CHECK(own_device("f", 1, rank, 3, true) == 0);  // each sees the one that is its own
  }
  const auto refused = Catch::Matchers::ContainsSubstring("f: devices: are 2, on this machine 3 processes");
  CHECK_THROWS_WITH(own_device("f", 2, 0, 3, false), refused);
  CHECK_THROWS_WITH(own_device("f", 2, 2, 3, true), refused);
  CHECK_THROWS_AS(own_device("f", 1, 0, 2, false), error);
  CHECK_THROWS_AS(own_device("f", 0, 0, 1, false), error);
}
