#include "unroll/cells/gru.hpp"

#include "tests/cells/cell_checks.hpp"

using namespace unroll;

namespace {
struct before_options : cells::gru_options {
  before_options() { reset = cells::reset_kind::before; }
};
}  // namespace

TEST_CASE("the GRU that resets after the product agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::gru, cells::gru_options>();
}

TEST_CASE("the GRU that resets before the product agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::gru, before_options>();
}
