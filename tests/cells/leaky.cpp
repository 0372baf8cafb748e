#include "unroll/cells/leaky.hpp"

#include "tests/cells/cell_checks.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;

TEST_CASE("the leaky cell agrees with its derivatives, windows and dense hooks") {
  cell_checks::conforms<cells::leaky, cells::leaky_options>();
  std::uint64_t seed = 1;
  for (const index_t lanes : {1, 5})
    for (const index_t out : {0, 2}) {
      const cells::leaky_options o{.in = 2, .hidden = 5, .out = out, .lanes = lanes, .dt = .5, .tau = 1.6};
      const key k{seed++};
      const cell_checks::sequence<double> many(o, 11, cell_checks::inputs::dense, k);
      const cells::leaky<double> f(o);
      cell_checks::derivatives(f, many.xs[0], k);
      cell_checks::dense_hooks(f, many.xs[0], k);
      cell_checks::lanes<cells::leaky<double>>(o, many.xs[0], k);
      cell_checks::windows(f, many.xs, k);
    }
  cell_checks::options_and_parameters<cells::leaky<double>>(cells::leaky_options{});
  CHECK_THROWS_AS(cells::leaky<double>({.dt = 0}), error);
  CHECK_THROWS_AS(cells::leaky<double>({.dt = 1, .tau = .5}), error);
}

TEST_CASE("the leaky cell of half a time constant has the golden loss, states and gradient") {
  const cells::leaky<double> cell({.in = 1, .hidden = 2, .out = 0, .dt = 1, .tau = 2});
  const auto rows = golden::theta<double>();  // row by row, ours are column by column
  std::vector<double> theta(8), s0{.3, .3}, x, target;
  for (index_t k = 0; k < 8; ++k) theta[std::size_t(k)] = rows[k % 2 * 4 + k / 2];
  for (const auto& in : golden::inputs<double>()) {
    x.push_back(in.x);
    target.insert(target.end(), in.y.begin(), in.y.end());
  }
  std::vector<cells::example<double>> xs;
  for (std::size_t t = 0; t < 3; ++t) xs.push_back({.x = x.data() + t, .target = target.data() + 2 * t});
  const double states[] = {.522138433681, -.125564014269, .260438427736,
                           .013713680341, .331249794699,  -.135326632576};
  cell_checks::edge_data<cells::leaky<double>> e(cell, key{1});
  e.theta = theta;
  e.s = s0;
  double loss = 0;
  for (std::size_t t = 0; t < 3; ++t) {
    loss += e.value(xs[t], {0, 0}, 1);
    e.s = e.next;
    for (std::size_t i = 0; i < 2; ++i) CHECK(std::abs(e.next[i] - states[2 * t + i]) < 1e-12);
  }
  CHECK(std::abs(loss - .348539056248421) < 1e-14);
  const double golden[] = {.281352708672,  -.006331107958, .004983105984, .718486022391,
                           -.139559614103, .022041363506,  .068344720695, -.325220471359};
  const auto g = testing::backward_gradient(cell, theta, xs, s0);
  for (std::size_t k = 0; k < 8; ++k) CHECK(std::abs(g[k] - golden[k % 2 * 4 + k / 2]) < 1e-12);
}

TEST_CASE("the leaky cell of a whole time constant is the Elman network") {
  const cells::leaky_options o{.in = 2, .hidden = 3, .out = 1, .tau = 1};
  const cell_checks::sequence<double> data(o, 1, cell_checks::inputs::dense, key{5});
  const cells::leaky<double> f(o);
  cell_checks::edge_data<cells::leaky<double>> e(f, key{6});
  e.step(data.xs[0]);
  for (std::size_t i = 0; i < 3; ++i) {  // w_h 3 x 3, w_x 3 x 2, b
    double z = e.theta[15 + i];
    for (std::size_t j = 0; j < 3; ++j) z += e.theta[3 * j + i] * e.s[j];
    for (std::size_t j = 0; j < 2; ++j) z += e.theta[9 + 3 * j + i] * data.xs[0].x[j];
    CHECK(e.next[i] == Approx(std::tanh(z)).epsilon(1e-14));
  }
}
