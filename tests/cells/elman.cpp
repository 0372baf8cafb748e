#include "unroll/cells/elman.hpp"

#include "tests/cells/cell_checks.hpp"
#include "tests/support/golden_rnn.hpp"

using namespace unroll;

TEST_CASE("the Elman cell agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::elman, cells::elman_options>();
}

TEST_CASE("the Elman cell without readout is the golden network") {
  const cells::elman<double> cell({.in = 1, .hidden = 2, .out = 0});
  REQUIRE(cell.size().params == 8);
  // the golden theta is W = [W_h | W_x | b] row by row, ours is column by column
  const auto rows = golden::theta<double>();
  std::vector<double> theta(8), dtheta(8), x, target;
  for (index_t i = 0; i < 2; ++i)
    for (index_t j = 0; j < 4; ++j) theta[std::size_t(2 * j + i)] = rows[4 * i + j];
  for (const auto& in : golden::inputs<double>()) {
    x.push_back(in.x);
    target.insert(target.end(), in.y.begin(), in.y.end());
  }
  std::vector<cells::example<double>> xs(3);
  for (std::size_t i = 0; i < 3; ++i) xs[i] = {x.data() + i, target.data() + 2 * i, nullptr, nullptr};

  std::vector<double> states(8), tape(6), loss(3), ds(2);
  std::vector<double> workspace(std::size_t(window_workspace(cell, 3)));
  states[0] = states[1] = 0.3;
  const window<double> w{theta, 3, states.data(), tape.data(), loss.data(), workspace, 0};
  window_forward(cell, {xs.data(), xs.size()}, w);
  window_backward(cell, {xs.data(), xs.size()}, w, {}, ds, dtheta);

  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t i = 0; i < 2; ++i)
      CHECK(std::abs(states[2 * (t + 1) + i] - golden::states[t][i]) < 1e-14);
  CHECK(std::abs(loss[0] + loss[1] + loss[2] - golden::loss) < 1e-14);
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j < 4; ++j)
      CHECK(std::abs(dtheta[2 * j + i] - golden::gradient[4 * i + j]) < 1e-14);
}

TEST_CASE("the parameters of the Elman cell have names") {
  const cells::elman<float> cell({.in = 3, .hidden = 4, .out = 2});
  const auto l = cell.layout();
  CHECK(l.at("w_h").offset == 0);
  CHECK(l.at("w_x").offset == 16);
  CHECK(l.at("w_x").cols == 3);
  CHECK(l.at("b").offset == 28);
  CHECK(l.at("w_y").offset == 32);
  CHECK(l.at("b_y").offset == 40);
  CHECK(l.size() == 42);
}

TEST_CASE("the output of the Elman cell is what its loss reads") {
  const cells::elman<double> cell({.in = 0, .hidden = 3, .out = 2, .lanes = 2});
  cell_checks::edge_data<cells::elman<double>> e(cell, key{5});
  const std::vector<double> target{.1, .2, .3, .4};
  e.step({nullptr, target.data(), nullptr, nullptr});
  std::vector<double> y(4);
  cell.output(e.theta, e.next, y);
  double loss = 0;
  for (std::size_t i = 0; i < 4; ++i) loss += (y[i] - target[i]) * (y[i] - target[i]) / 2;
  CHECK(loss == Approx(e.loss).epsilon(1e-14));
  std::vector<double> wrong(3);
  CHECK_THROWS_AS(cell.output(e.theta, e.next, wrong), error);
}
