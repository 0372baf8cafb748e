#include "unroll/cells/named_cell.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;

namespace {

template <class Cell>
void check_same(const char* name, const Cell& cell) {
  INFO(name);
  const auto named =
      cells::make_named_cell<double>(name, {.in = 2, .hidden = 3, .out = 1, .lanes = 2}, key{5});
  parameters<double> theta(cell.size().params);
  cell.init(theta, key{5});
  CHECK(named.system.size().state == cell.size().state);
  CHECK(named.system.size().tape == cell.size().tape);
  CHECK(named.system.size().lanes == 2);
  CHECK(named.names.size() == cell.size().params);
  CHECK(named.theta.size() == theta.size());
  CHECK(std::equal(theta.begin(), theta.end(), named.theta.begin()));
}

}  // namespace

TEST_CASE("a cell is made by its name") {
  check_same("elman", cells::elman<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("linear", cells::linear<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("gru", cells::gru<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("lstm", cells::lstm<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("lru", cells::lru<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("rtu", cells::rtu<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("min_gru", cells::min_gru<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("leaky", cells::leaky<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("relu", cells::relu<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("layer_norm_gru", cells::layer_norm_gru<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("layer_norm_lstm", cells::layer_norm_lstm<double>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}));
  check_same("gru_3", cells::stack<cells::gru<double>>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}, 3));
  check_same("lru_2", cells::stack<cells::lru<double>>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}, 2));
  check_same("rtu_2", cells::stack<cells::rtu<double>>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}, 2));
  check_same("min_gru_2",
             cells::stack<cells::min_gru<double>>({.in = 2, .hidden = 3, .out = 1, .lanes = 2}, 2));
  CHECK_THROWS_AS(cells::make_named_cell<double>("linear_2", {}, key{1}), error);
  CHECK_THROWS_AS(cells::make_named_cell<double>("gru_0", {}, key{1}), error);
  CHECK_THROWS_WITH(cells::make_named_cell<double>("GRU", {}, key{1}),
                    Catch::Matchers::ContainsSubstring("\"GRU\" is none of elman, gru, lstm, linear"));
}
