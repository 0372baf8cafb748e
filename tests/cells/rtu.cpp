#include "unroll/cells/rtu.hpp"

#include "tests/cells/cell_checks.hpp"
#include "unroll/cells/lru.hpp"

using namespace unroll;

TEST_CASE("the rtu cell keeps the rules of a system") {
  cell_checks::conforms<cells::rtu, cells::rtu_options>();
  cell_checks::long_window<cells::rtu, cells::rtu_options>();
  for (const index_t lanes : {1, 3}) {
    const cells::rtu_options o{.in = 2, .hidden = 5, .out = 2, .lanes = lanes};
    const cell_checks::sequence<double> one(o, 1, cell_checks::inputs::dense, key{1});
    cell_checks::derivatives(cells::rtu<double>(o), one.xs[0], key{2});
  }
}

TEST_CASE("a step of the rtu cell is tanh of that of the lru") {
  const cells::rtu_options o{.in = 2, .hidden = 5, .out = 0};
  const cell_checks::sequence<double> data(o, 1, cell_checks::inputs::dense, key{5});
  const cells::rtu<double> f(o);
  const cells::lru<double> g(o);
  cell_checks::edge_data<cells::rtu<double>> a(f, key{6});
  cell_checks::edge_data<cells::lru<double>> b(g, key{6});
  a.step(data.xs[0]);
  b.step(data.xs[0]);
  for (std::size_t i = 0; i < 10; ++i) CHECK(a.next[i] == Approx(std::tanh(b.next[i])).epsilon(1e-14));
}
