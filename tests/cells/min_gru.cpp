#include "unroll/cells/min_gru.hpp"

#include "tests/cells/cell_checks.hpp"

using namespace unroll;

TEST_CASE("the min_gru cell keeps the rules of a system") {
  cell_checks::conforms<cells::min_gru, cells::min_gru_options>();
  cell_checks::long_window<cells::min_gru, cells::min_gru_options>();
  for (const index_t lanes : {1, 3}) {
    const cells::min_gru_options o{.in = 2, .hidden = 5, .out = 2, .lanes = lanes};
    const cell_checks::sequence<double> one(o, 1, cell_checks::inputs::dense, key{1});
    cell_checks::derivatives(cells::min_gru<double>(o), one.xs[0], key{2});
    cell_checks::dense_hooks(cells::min_gru<double>(o), one.xs[0], key{3});
  }
  cell_checks::options_and_parameters<cells::min_gru<double>>(cells::min_gru_options{});
  cell_checks::bad_inputs<cells::min_gru<double>>(cells::min_gru_options{});
}

TEST_CASE("a step of the min_gru cell is that of its paper") {
  const cells::min_gru_options o{.in = 2, .hidden = 5, .out = 0};
  const cell_checks::sequence<double> data(o, 1, cell_checks::inputs::dense, key{5});
  const cells::min_gru<double> cell(o);
  cell_checks::edge_data<cells::min_gru<double>> e(cell, key{6});
  e.step(data.xs[0]);
  const auto linear = [&](std::size_t row) {  // of W_x, 10 x 2, and b
    return e.theta[row] * data.xs[0].x[0] + e.theta[10 + row] * data.xs[0].x[1] + e.theta[20 + row];
  };
  for (std::size_t i = 0; i < 5; ++i) {
    const double z = 1 / (1 + std::exp(-linear(i)));
    CHECK(e.next[i] == Approx((1 - z) * e.s[i] + z * linear(5 + i)).epsilon(1e-14));
  }
}
