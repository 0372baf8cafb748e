#include "tests/properties/cell_conformance.hpp"
#include "unroll/cells/gru.hpp"

using support::examine;
using support::examine_all;
using support::strings;

TEMPLATE_TEST_CASE("the gru cell keeps the rules of a system", "", float, double) {
  examine_all<unroll::cells::gru<TestType>, unroll::cells::gru_options>();
}

TEMPLATE_TEST_CASE("the gru cell with reset before the product keeps the rules of a system", "", float,
                   double) {
  for (const unroll::index_t lanes : {1, 2}) {
    unroll::cells::gru_options o;
    o.in = 2;
    o.hidden = 3;
    o.lanes = lanes;
    o.reset = unroll::cells::reset_kind::before;
    CHECK(examine(unroll::cells::gru<TestType>(o), 40) == strings{});
  }
}
