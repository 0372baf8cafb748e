#include "unroll/core/error.hpp"

#include <stdexcept>
#include <type_traits>

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("a failure names the function and the argument") {
  CHECK_THROWS_WITH(fail("bptt", "window", "is odd"), "bptt: window: is odd");
  STATIC_REQUIRE(std::is_base_of_v<std::invalid_argument, error>);
}

TEST_CASE("check_size throws exactly when the sizes differ") {
  CHECK_NOTHROW(check_size("f", "x", 3, 3));
  CHECK_THROWS_AS(check_size("f", "x", 2, 3), error);
  CHECK_THROWS_WITH(check_size("f", "x", 4, 3), "f: x: has size 4, expected 3");
}

TEST_CASE("check_at_least throws exactly below the bound") {
  CHECK_NOTHROW(check_at_least("f", "n", 1, 1));
  CHECK_NOTHROW(check_at_least("f", "n", 2, 1));
  CHECK_THROWS_WITH(check_at_least("f", "n", 0, 1), "f: n: is 0, must be at least 1");
}
