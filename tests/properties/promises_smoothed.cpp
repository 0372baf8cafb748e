#include "unroll/estimate/es.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes.hpp"

#include "tests/properties/any_cells.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/estimator_conformance.hpp"

namespace {

using strings = std::vector<std::string>;

// The estimator that `make` gives for a cell, on every cell, with one lane and with three.
template <class T, class Make>
void examine(Make&& make) {
  for (const unroll::index_t lanes : {1, 3})
    for (const auto& task : support::any_tasks<T>(53, 3, lanes, 2, 11)) {
      INFO(task.name);
      CHECK(unroll::testing::estimator_conformance(make(task.cell), task.theta, task.xs, &task.bad) ==
            strings{});
    }
}

}  // namespace

TEMPLATE_TEST_CASE("evolution strategies keep every promise on every cell", "", float, double) {
  examine<TestType>([](const auto& f) { return unroll::es(f, {.pairs = 2}); });
  examine<TestType>([](const auto& f) { return unroll::nres(f, {.pairs = 2, .window = 5}); });
  examine<TestType>([](const auto& f) { return unroll::pes(f, {.pairs = 2, .window = 5}); });
}
