#include "unroll/estimate/diagonal_rtrl.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "tests/support/gradient_of.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/snap.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/system/with_resets.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using support::gradient_of;
using lru = cells::lru<double>;

support::random_task<lru> task_of(index_t lanes, index_t out = 2) {
  return {lru({.in = 2, .hidden = 3, .out = out, .lanes = lanes}), 30, key{3}};
}

}  // namespace

TEST_CASE("diagonal rtrl is the exact gradient of a layer of units apart, and that of rtrl and snap") {
  for (const index_t lanes : {1, 3})
    for (const index_t out : {0, 2}) {
      const auto t = task_of(lanes, out);
      const auto g = gradient_of(diagonal_rtrl(t.cell), t.theta, t.xs);
      CHECK(golden::relative_error(g, testing::backward_gradient(t.cell, t.theta, t.xs)) < 1e-13);
      CHECK(golden::relative_error(g, gradient_of(rtrl(t.cell), t.theta, t.xs)) < 1e-13);
      snap near(t.cell);
      CHECK(near.exact());
      CHECK(golden::relative_error(g, gradient_of(near, t.theta, t.xs)) < 1e-13);
    }
}

TEST_CASE("diagonal rtrl has the golden gradient of a rotation of half a length") {
  const lru cell({.in = 1, .hidden = 1, .out = 1});
  const std::vector<double> theta{.7, -.4, 0, 0, std::log(std::log(2.)), std::log(.3), 1, 1, 0};
  const std::vector<double> x{1, 2, 3}, target{1};
  std::vector<cells::example<double>> xs;
  for (const double& v : x) xs.push_back({.x = &v, .target = target.data()});
  const auto g = gradient_of(diagonal_rtrl(cell), theta, xs);
  CHECK(std::abs(g[0] - .849049486284) < 1e-11);
  CHECK(std::abs(g[1] - .528127623548) < 1e-11);
  CHECK(std::abs(g[4] - -.184137001909) < 1e-11);
  CHECK(std::abs(g[5] - .3 * .483541839454) < 1e-11);
}

TEST_CASE("diagonal rtrl forgets a lane that begins anew") {
  const auto t = task_of(2);
  const with_resets episodes(t.cell);
  const std::uint8_t first[] = {1, 0}, both[] = {1, 1};
  std::vector<resettable<cells::example<double>>> xs;
  for (std::size_t k = 0; k < t.xs.size(); ++k)
    xs.push_back({t.xs[k], k == 7 ? first : k == 11 ? both : nullptr});
  CHECK(golden::relative_error(gradient_of(diagonal_rtrl(episodes), t.theta, xs),
                               testing::backward_gradient(episodes, t.theta, xs)) < 1e-13);
}

TEST_CASE("diagonal rtrl costs a step and a vjp a step, and memory for one complex number a complex weight") {
  const auto t = task_of(2);
  call_counts calls;
  diagonal_rtrl est(counted(t.cell, calls));
  gradient<double> g(t.cell.size().params);
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK(calls == call_counts{.steps = 30, .vjps = 30});
  CHECK((r.steps == 30 && r.vjps == 30 && r.jvps == 0));
  const auto bytes = [](index_t hidden) {
    diagonal_rtrl big(lru({.in = hidden, .hidden = hidden, .out = 0}));
    gradient<double> none(big.system().size().params);
    return double(big.finish(parameters<double>(none.size()), none).bytes) /
           double(sizeof(double) * std::size_t(none.size()));
  };
  CHECK(bytes(1000) == Approx(1).epsilon(.05));
}

TEST_CASE("diagonal rtrl keeps the promises of every estimator and refuses what it cannot do") {
  const auto t = task_of(2);
  CHECK(testing::estimator_conformance(diagonal_rtrl(t.cell), t.theta, t.xs, &t.bad) ==
        std::vector<std::string>{});
  const support::random_task<cells::lru<float>> less(cells::lru<float>({.in = 2, .hidden = 5}), 30, key{4});
  CHECK(testing::estimator_conformance(diagonal_rtrl(less.cell), less.theta, less.xs) ==
        std::vector<std::string>{});
  // a ring of units, as a stack of layers is one in which a unit listens to those below it
  CHECK_THROWS_WITH(diagonal_rtrl(support::complete<double>{3, 1}),
                    ContainsSubstring("listen to each other"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(diagonal_rtrl(unknown), ContainsSubstring("diag_jacobian"));
}
