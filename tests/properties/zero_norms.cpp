#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/kf_rtrl.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/ok_rtrl.hpp"
#include "unroll/estimate/preuoro.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

// Estimators that divide by norms, where a norm is exactly zero: nothing of it may reach the estimate.

using namespace unroll;

TEST_CASE(
    "a step in which every unit is saturated has slopes of zero, and estimates stay exact in the mean") {
  const cells::elman<double> cell({.in = 1, .hidden = 2, .out = 1});
  for (const std::size_t saturated : {std::size_t(0), std::size_t(1), std::size_t(2)}) {
    support::random_task t(cell, 3, key{3});
    const double strong = 1e4;  // tanh is 1 and its slope 0: no J, no F, in any of the norms
    t.xs[saturated].x = &strong;
    const auto expected = testing::backward_gradient(cell, t.theta, t.xs);
    const auto in_the_mean = [&](const char* name, auto make) {
      INFO(name << ", saturated in step " << saturated);
      testing::enumerator all;
      const auto r = testing::enumerate(all, make(testing::enumerating_chooser(all)), t.theta, t.xs);
      CHECK(golden::relative_error(r.mean, expected) < 1e-11);
      CHECK(std::isfinite(r.covariance_trace));
    };
    for (const double epsilon : {0., 1e-7}) {
      in_the_mean("uoro", [&](auto c) { return uoro(cell, {.epsilon = epsilon}, c); });
      in_the_mean("preuoro", [&](auto c) { return preuoro(cell, {.epsilon = epsilon}, c); });
      in_the_mean("preuoro, shaped",
                  [&](auto c) { return preuoro(cell, {.epsilon = epsilon, .memory = .5, .renew = 1}, c); });
      in_the_mean("nobacktrack", [&](auto c) { return nobacktrack(cell, {.epsilon = epsilon}, c); });
      in_the_mean("kf_rtrl", [&](auto c) { return kf_rtrl(cell, {.epsilon = epsilon}, c); });
    }
    in_the_mean("ok_rtrl", [&](auto c) { return ok_rtrl(cell, {.terms = 1}, c); });
  }
}
