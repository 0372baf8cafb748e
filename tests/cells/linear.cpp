#include "unroll/cells/linear.hpp"

#include "tests/cells/cell_checks.hpp"

using namespace unroll;

TEST_CASE("the linear cell agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::linear, cells::linear_options>();
}

// One unit, s_t = a s_{t-1} + b x_t + c with constant x = 1: s_t = a^t s_0 + (b + c) (1 - a^t) / (1 - a), and
// the loss is 1/2 (s_T - 0)^2 at the last step alone.
TEST_CASE("the linear cell has the closed form of a geometric series") {
  constexpr index_t steps = 12;
  const double a = 0.8, b = 0.3, c = -0.1, s0 = 2;
  const cells::linear<double> cell({.in = 1, .hidden = 1, .out = 0});
  const std::vector<double> theta{a, b, c};
  const std::vector<double> one{1}, zero{0};
  std::vector<cells::example<double>> xs(steps, {one.data(), nullptr, nullptr, nullptr});
  xs.back().target = zero.data();

  std::vector<double> states(steps + 1), tape(steps), loss(steps), ds(1), dtheta(3);
  std::vector<double> workspace(std::size_t(window_workspace(cell, steps)));
  states[0] = s0;
  const window<double> w{theta, steps, states.data(), tape.data(), loss.data(), workspace, 0};
  window_forward(cell, {xs.data(), xs.size()}, w);
  window_backward(cell, {xs.data(), xs.size()}, w, {}, ds, dtheta);

  const double n = steps, power = std::pow(a, n), series = (1 - power) / (1 - a);
  const double last = power * s0 + (b + c) * series;
  CHECK(states[steps] == Approx(last).epsilon(1e-14));
  CHECK(loss[steps - 1] == Approx(last * last / 2).epsilon(1e-14));
  CHECK(loss[0] == 0);
  CHECK(ds[0] == Approx(last * power).epsilon(1e-14));
  CHECK(dtheta[1] == Approx(last * series).epsilon(1e-14));
  CHECK(dtheta[2] == Approx(last * series).epsilon(1e-14));
  const double series_a = (-n * power / a * (1 - a) + 1 - power) / ((1 - a) * (1 - a));  // d series / da
  CHECK(dtheta[0] == Approx(last * (n * power / a * s0 + (b + c) * series_a)).epsilon(1e-13));
}
