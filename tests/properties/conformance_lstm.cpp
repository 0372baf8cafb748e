#include "tests/properties/cell_conformance.hpp"
#include "unroll/cells/lstm.hpp"

using support::examine_all;

TEMPLATE_TEST_CASE("the lstm cell keeps the rules of a system", "", float, double) {
  examine_all<unroll::cells::lstm<TestType>, unroll::cells::lstm_options>();
}
