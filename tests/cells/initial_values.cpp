#include "unroll/cells/initial_values.hpp"

#include <cmath>

#include "tests/support/catch.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/cells/relu.hpp"
#include "unroll/cells/stack.hpp"
#include "unroll/core/block.hpp"

using namespace unroll;

namespace {

struct moments {
  double largest = 0, variance = 0;
};
template <class Cell>
moments of(const Cell& cell, params<double> theta, const char* name, index_t first, index_t n) {
  const auto part = cell.layout().part(theta, name).part(first, n);
  moments m;
  for (const double v : part) m.largest = std::max(m.largest, std::abs(v)), m.variance += v * v / double(n);
  return m;
}

}  // namespace

// A uniform number in +-a has variance a^2 / 3, the sum of two twice that and values up to 2 a.
TEST_CASE("init_torch draws as PyTorch does, both biases added") {
  constexpr index_t h = 400;
  const double a = 1 / std::sqrt(double(h)), once = a * a / 3;
  const cells::gru<double> cell({.in = 1, .hidden = h, .out = 2});
  parameters<double> theta(cell.size().params);
  init_torch(cell, theta, key{1});
  const auto check = [&](const char* name, index_t first, index_t n, bool twice) {
    INFO(name << " from " << first);
    const moments m = of(cell, theta, name, first, n);
    CHECK(m.variance == Approx(twice ? 2 * once : once).epsilon(0.12));
    CHECK(m.largest <= (twice ? 2 * a : a));
    CHECK((m.largest > a) == twice);
  };
  check("w_h", 0, 3 * h * h, false);
  check("w_x", 0, 3 * h, false);
  check("b", 0, 2 * h, true);
  check("b", 2 * h, h, false);
  check("b_hn", 0, h, false);
  check("w_y", 0, 2 * h, false);
}

TEST_CASE("init_torch of a stack draws by the hidden units of each layer") {
  const cells::stack<cells::lstm<double>> f({{.in = 2, .hidden = 100}, {.in = 100, .hidden = 25, .out = 3}});
  parameters<double> theta(f.size().params);
  init_torch(f, theta, key{2});
  CHECK(of(f, theta, "l0.w_h", 0, 40000).largest == Approx(0.1).epsilon(0.01));
  CHECK(of(f, theta, "l1.w_x", 0, 10000).largest == Approx(0.2).epsilon(0.01));
  CHECK(of(f, theta, "l1.b", 0, 100).largest > 0.2);
  CHECK(of(f, theta, "w_y", 0, 75).largest <= 0.2);
}

TEST_CASE("init_irnn begins with the identity") {
  const cells::relu<double> cell({.in = 30, .hidden = 20, .out = 3});
  parameters<double> theta(cell.size().params);
  init_irnn(cell, theta, key{3}, 0.5);
  for (index_t j = 0; j < 20; ++j)
    for (index_t i = 0; i < 20; ++i) CHECK(theta[j * 20 + i] == (i == j ? 0.5 : 0));
  CHECK(std::sqrt(of(cell, theta, "w_x", 0, 600).variance) == Approx(0.001).epsilon(0.1));
  CHECK(of(cell, theta, "b", 0, 20).largest == 0);
  CHECK(of(cell, theta, "w_y", 0, 60).largest > 0);
  CHECK(of(cell, theta, "b_y", 0, 3).largest == 0);
}

TEST_CASE("cells of another kind are refused by both") {
  const cells::lru<double> lru({.in = 1, .hidden = 2});
  parameters<double> theta(lru.size().params);
  CHECK_THROWS_AS(init_torch(lru, theta, key{1}), error);
  const cells::gru<double> gru({.in = 1, .hidden = 2});
  parameters<double> of_gru(gru.size().params);
  CHECK_THROWS_WITH(init_irnn(gru, of_gru, key{1}),
                    Catch::Matchers::ContainsSubstring("6 x 2, must be square"));
}
