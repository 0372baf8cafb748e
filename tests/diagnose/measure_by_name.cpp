#include "unroll/diagnose/measure_by_name.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"
#include "unroll/cells/elman.hpp"

using namespace unroll;

namespace {

void check_same(const measurement& a, const measurement& b) {
  CHECK(a.relative_bias == b.relative_bias);
  CHECK(a.relative_bias_high == b.relative_bias_high);
  CHECK(a.variance == b.variance);
  CHECK(a.vjps == b.vjps);
  CHECK(a.replicas == b.replicas);
}

}  // namespace

TEST_CASE("an estimator is measured by its name, on a recurrent system and on a memory model") {
  using Catch::Matchers::ContainsSubstring;
  const support::random_task<cells::elman<double>> r(cells::elman<double>({.hidden = 2}), 9, key{3});
  const measure_options how{.replicas = 16, .threads = 1};
  check_same(measure_by_name("uoro:3", r.cell, r.theta, r.xs, how),
             measure(uoro(r.cell, {.block = 3}), r.theta, r.xs, how));
  check_same(measure_by_name("tbptt:2", r.cell, r.theta, r.xs, how),
             measure(tbptt(r.cell, {.k1 = 1, .k2 = 2}), r.theta, r.xs, how));
  CHECK_THROWS_WITH(measure_by_name("window:2", r.cell, r.theta, r.xs, how),
                    ContainsSubstring("none of bptt"));

  const memory_task::task<memory_task::linear> m(memory_task::make_linear(), 5);
  check_same(measure_by_name("reservoir:2", m.model, m.theta, m.xs, how),
             measure(reservoir_tbptt(m.model, {.segments = 5, .size = 2}), m.theta, m.xs, how));
  CHECK_THROWS_WITH(measure_by_name("uoro", m.model, m.theta, m.xs, how),
                    ContainsSubstring("none of rematerialise"));
}
