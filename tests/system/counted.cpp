#include "unroll/system/counted.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/testing/oracle.hpp"

using unroll::call_counts;
using unroll::counted;
using unroll::index_t;
namespace testing = unroll::testing;

static_assert(unroll::has_window<counted<support::complete<double>>>);
static_assert(unroll::has_jacobian<counted<support::complete<double>>>);
static_assert(unroll::has_row_norms<counted<support::complete<double>>>);
static_assert(unroll::has_lane_vjp<counted<support::complete<double>>>);
static_assert(unroll::has_jvp<counted<golden::rnn<double>>>);
static_assert(!unroll::has_window<counted<golden::rnn<double>>>);
static_assert(!unroll::has_jacobian<counted<golden::rnn<double>>>);

TEST_CASE("copies of a counted system report to the same counts") {
  call_counts calls;
  const counted f(golden::rnn<>{}, calls);
  const auto copy = f;
  testing::backward_gradient(f, golden::theta(), golden::inputs());
  CHECK(calls == call_counts{.steps = 3, .vjps = 3});
  testing::forward_gradient(copy, golden::theta(), golden::inputs());
  CHECK(calls == call_counts{.steps = 6, .vjps = 3, .jvps = 24});
}

TEST_CASE("a counted system computes what the system computes") {
  call_counts calls;
  const counted f(golden::rnn<>{}, calls);
  CHECK(testing::backward_gradient(f, golden::theta(), golden::inputs()) ==
        testing::backward_gradient(golden::rnn<>{}, golden::theta(), golden::inputs()));
  CHECK(f.system().size().params == f.size().params);
}

TEST_CASE("a window counts its steps, and every optional member is counted") {
  call_counts calls;
  const counted f(support::complete<double>{2, 2}, calls);
  const auto theta = support::complete_theta<double>();
  const auto xs = support::complete_inputs<double>(5);
  std::vector<double> states(6 * 4, 0.25), tape(5 * 4), loss(5), workspace(16), ds(4), dtheta(6), big(100);
  const unroll::window<double> w{theta, 5, states.data(), tape.data(), loss.data(), workspace, 0};
  unroll::window_forward(f, xs, w);
  unroll::window_backward(f, xs, w, {}, ds, dtheta);
  CHECK(calls == call_counts{.steps = 5, .vjps = 5});
  const unroll::const_edge<double> e(unroll::edge_of(f, w, 0));
  f.jacobian(xs[0], e, unroll::view<double>(big.data(), 8));
  f.immediate(xs[0], e, unroll::view<double>(big.data(), 24), 0, 3);
  f.immediate(xs[0], e, unroll::view<double>(big.data(), 24), 3, 6);
  f.row_norms(xs[0], e, unroll::view<double>(big.data(), 4));
  f.lane_vjp(xs[0], e, ds, unroll::view<double>(big.data(), 12));
  CHECK(calls == call_counts{5, 6, 0, 1, 2, 1});
}

TEST_CASE("start, finite and scored are forwarded by a counted system") {
  call_counts calls;
  const counted f(golden::rnn<>{}, calls);
  std::vector<double> s(2);
  unroll::start_state(f, s);
  CHECK(s == std::vector<double>{0.3, 0.3});
  CHECK(unroll::finite_input(f, {1.0, {}}));
  CHECK_FALSE(unroll::finite_input(f, {std::nan(""), {}}));
  CHECK(unroll::scored_losses(f, {1.0, {}}) == 1);
  CHECK(unroll::scored_losses(counted(support::masked{}, calls), -1) == 0);
  CHECK(unroll::scored_losses(counted(support::masked{}, calls), 1) == 3);
  const unroll::cells::elman<double> cell({.in = 1, .hidden = 2, .out = 1});
  std::vector<double> theta(std::size_t(cell.size().params), 0.5), y(1), same(1);
  cell.output(theta, s, y);
  counted(cell, calls).output(theta, s, same);
  CHECK(y == same);
}
