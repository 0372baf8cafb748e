#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/influence_balancing.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace {

using strings = std::vector<std::string>;
using support::feed;
using unroll::key;
using unroll::loss_kind;

template <class Cell>
strings examine(const Cell& cell, std::uint64_t seed, feed kind = feed::dense) {
  const support::random_task<Cell> task(cell, 6, key{seed}, kind);
  return unroll::testing::system_conformance(cell, task.theta, task.xs, {.steps = 6});
}

// Squared error and cross entropy, with and without readout, one lane and several, vectors and tokens.
template <class Cell, class Options>
void examine_all() {
  std::uint64_t seed = 0;
  for (const unroll::index_t lanes : {1, 3, 5})
    for (const unroll::index_t out : {0, 2})
      for (const loss_kind loss : {loss_kind::squared_error, loss_kind::cross_entropy})
        for (const feed kind : {feed::dense, feed::tokens}) {
          Options o;
          o.in = 2;
          o.hidden = 3;
          o.out = out;
          o.loss = loss;
          o.lanes = lanes;
          INFO("lanes " << lanes << ", out " << out << ", cross entropy "
                        << (loss == loss_kind::cross_entropy) << ", tokens " << (kind == feed::tokens));
          CHECK(examine(Cell(o), ++seed, kind) == strings{});
        }
}

}  // namespace

TEMPLATE_TEST_CASE("the elman cell keeps the rules of a system", "", float, double) {
  examine_all<unroll::cells::elman<TestType>, unroll::cells::elman_options>();
}

TEMPLATE_TEST_CASE("the linear cell keeps the rules of a system", "", float, double) {
  examine_all<unroll::cells::linear<TestType>, unroll::cells::linear_options>();
}

TEMPLATE_TEST_CASE("influence balancing keeps the rules of a system", "", float, double) {
  const unroll::cells::influence_balancing<TestType> cell;
  const std::vector<TestType> theta{TestType(0.3)};
  const std::vector<unroll::cells::nothing> xs(6);
  CHECK(unroll::testing::system_conformance(cell, theta, xs, {.steps = 6}) == strings{});
}
