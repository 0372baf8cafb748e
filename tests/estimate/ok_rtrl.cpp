#include "unroll/estimate/ok_rtrl.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_columns.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

template <class F>
testing::enumeration exact(const F& f, params<const double> theta, std::span<const typename F::input> xs,
                           index_t terms) {
  testing::enumerator all;
  return testing::enumerate(all, ok_rtrl(f, {.terms = terms}, testing::enumerating_chooser(all)), theta, xs);
}

}  // namespace

TEST_CASE("ok_rtrl in the paper's timing has the golden mean and covariance") {
  const auto theta = golden::columns_theta();
  const auto xs = golden::delayed_inputs();
  std::vector<double> traces;
  for (const index_t terms : {1, 2}) {
    const auto r = exact(golden::golden_columns{}, theta, xs, terms);
    CHECK(golden::relative_error(r.mean, golden::by_columns(golden::gradient)) < 1e-11);
    traces.push_back(r.covariance_trace);
  }
  CHECK(std::abs(traces[0] - golden::trace_ok_1) < 1e-10);
  CHECK(traces[1] < traces[0]);
  CAPTURE(traces[1]);
  CHECK(std::abs(traces[1] - golden::trace_ok_2) < 1e-10);
}

TEST_CASE("ok_rtrl is unbiased on cells of one matrix and of several, in lanes with signs of their own") {
  const auto unbiased = [](const auto& cell, index_t steps, index_t terms) {
    const support::random_task t(cell, steps, key{3});
    const auto r = exact(t.cell, t.theta, t.xs, terms);
    CHECK(golden::relative_error(r.mean, testing::backward_gradient(t.cell, t.theta, t.xs)) < 1e-11);
    CHECK(r.covariance_trace > 1e-12);
    return r.covariance_trace;
  };
  using cells::elman;
  unbiased(elman<double>({.in = 2, .hidden = 3, .out = 2}), 5, 1);
  unbiased(elman<double>({.in = 2, .hidden = 3, .out = 2}), 4, 2);
  unbiased(cells::lstm<double>({.in = 1, .hidden = 2, .out = 1}), 4, 1);
  const elman<double> both({.in = 1, .hidden = 2, .out = 0, .lanes = 2});
  const support::random_task t(both, 3, key{3});
  double sum = 0;
  for (index_t l = 0; l < 2; ++l) {
    std::vector<cells::example<double>> own;
    for (const auto& x : t.xs) own.push_back(both.lanes_from(x, l));
    sum += exact(both.with_lanes(1), t.theta, own, 1).covariance_trace;
  }
  CHECK(unbiased(both, 3, 1) == Approx(sum).epsilon(1e-10));
}

TEST_CASE("ok_rtrl of as many terms as there are is exact, whatever is drawn") {
  const support::random_task t(cells::elman<double>({.in = 1, .hidden = 2, .out = 1}), 12, key{3});
  ok_rtrl est(t.cell, {.terms = 4});  // s, x and 1: four columns
  gradient<double> g(t.cell.size().params);
  est.advance(t.theta, t.xs, g);
  CHECK(golden::relative_error(g, testing::backward_gradient(t.cell, t.theta, t.xs)) < 1e-11);
}

TEST_CASE("ok_rtrl costs a step, a vjp and a jacobian a step, and keeps the promises of every estimator") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 15,
                               key{3});
  call_counts calls;
  ok_rtrl est(counted(t.cell, calls));
  gradient<double> g(t.cell.size().params);
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK(calls == call_counts{.steps = 15, .vjps = 15, .jacobians = 15});
  CHECK((r.steps == 15 && r.vjps == 15 && r.jvps == 0));
  CHECK(testing::estimator_conformance(ok_rtrl(t.cell, {.terms = 2}), t.theta, t.xs, &t.bad) ==
        std::vector<std::string>{});
  CHECK_THROWS_WITH(ok_rtrl(t.cell, {.terms = 0}), ContainsSubstring("ok_rtrl: terms"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(ok_rtrl(unknown), ContainsSubstring("factors"));
}
