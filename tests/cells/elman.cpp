#include "unroll/cells/elman.hpp"

#include "tests/cells/cell_checks.hpp"

using namespace unroll;

TEST_CASE("the Elman cell agrees with its derivatives, windows and dense hooks") {
  cell_checks::everything<cells::elman, cells::elman_options>();
}
