#include "tests/properties/cell_conformance.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/influence_balancing.hpp"
#include "unroll/cells/linear.hpp"

using support::examine_all;
using support::strings;

TEMPLATE_TEST_CASE("the elman cell keeps the rules of a system", "", float, double) {
  examine_all<unroll::cells::elman<TestType>, unroll::cells::elman_options>();
}

TEMPLATE_TEST_CASE("the linear cell keeps the rules of a system", "", float, double) {
  examine_all<unroll::cells::linear<TestType>, unroll::cells::linear_options>();
}

TEMPLATE_TEST_CASE("influence balancing keeps the rules of a system", "", float, double) {
  const unroll::cells::influence_balancing<TestType> cell;
  const std::vector<TestType> theta{TestType(0.3)};
  const std::vector<unroll::cells::nothing> xs(6);
  CHECK(unroll::testing::system_conformance(cell, theta, xs, {.steps = 6}) == strings{});
}
