#include "unroll/cells/relu.hpp"

#include "tests/cells/cell_checks.hpp"

using namespace unroll;

TEST_CASE("the relu cell agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::relu, cells::relu_options>();
}

TEST_CASE("the relu cell does not hide what is not a number") {
  const cells::relu<double> cell({.in = 0, .hidden = 5, .out = 0});
  std::vector<double> theta(std::size_t(cell.size().params)), s(5, 10), next(5), tape(5), workspace(99);
  std::fill_n(theta.begin(), 5, 1e308), std::fill_n(theta.begin() + 5, 5, -1e308);  // inf - inf
  double loss = 0;
  cell.step({}, {theta, s, next, tape, &loss, workspace});
  for (const double v : next) CHECK_FALSE(std::isfinite(v));
}

// s' = max(W_h s + W_x x + b, 0) by hand: one unit is open, the other is shut and has no derivative.
TEST_CASE("the relu cell cuts at zero") {
  const cells::relu<double> cell({.in = 1, .hidden = 2, .out = 0});
  const std::vector<double> theta{2, 0, 1, -1, 3, 1, -4, -5};  // w_h by columns, w_x, b
  const std::vector<double> s{1, 3}, x{2}, target{0, 0};
  const cells::example<double> e{.x = x.data(), .target = target.data()};
  std::vector<double> next(2), tape(2), workspace(std::size_t(cell.size().workspace)), ds(2), dtheta(8);
  double loss = 0;
  const edge<double> at{theta, s, next, tape, &loss, workspace};
  cell.step(e, at);
  CHECK(next == std::vector<double>{7, 0});  // 2 + 3 + 6 - 4 and -3 + 2 - 5
  CHECK(loss == 24.5);
  cell.vjp(e, at, {}, 1, ds, dtheta);
  CHECK(ds == std::vector<double>{14, 7});
  CHECK(dtheta == std::vector<double>{7, 0, 21, 0, 14, 0, 7, 0});
}
