#include "unroll/estimate/forward_gradient.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

static_assert(gradient_estimator<forward_gradient<golden::rnn<double>>>);
static_assert(gradient_estimator<forward_gradient<golden::rnn<float>>>);

testing::enumeration exact(forward_gradient_options o) {
  testing::enumerator all;
  return testing::enumerate(all, forward_gradient(golden::rnn<>{}, o, testing::enumerating_chooser(all)),
                            golden::theta(), golden::inputs());
}

}  // namespace

TEST_CASE("forward_gradient is unbiased and has the golden covariances, whatever the number of directions") {
  // (8 / k - 1) |g|^2
  for (const auto& [k, trace] : {std::pair{1, golden::trace_dodge_signs}, std::pair{2, 9.616645335776},
                                 std::pair{3, 5. / 3 * golden::gradient_squared_norm},
                                 std::pair{4, 3.205548445259}, std::pair{8, 0.}}) {
    const auto r = exact({.directions = k, .window = 2});  // whose last window is not full
    INFO(k << " directions");
    CHECK(r.outcomes == 8 * 256);
    CHECK(golden::relative_error(r.mean, golden::gradient) < 1e-12);
    CHECK(std::abs(r.covariance_trace - trace) < 1e-11);
  }
}

TEST_CASE("forward_gradient draws directions that are orthonormal") {
  for (const index_t k : {2, 5, 8}) {
    forward_gradient<golden::rnn<>> est(golden::rnn<>{}, {.directions = k});
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      est.reset(key{seed});
      const auto v = est.directions();
      for (index_t i = 0; i < k; ++i)
        for (index_t j = 0; j <= i; ++j)
          CHECK(std::abs(linalg::dot(v.data() + 8 * i, v.data() + 8 * j, 8) - (i == j ? 1 : 0)) < 1e-14);
    }
  }
  const cells::elman<double> cell({.in = 2, .hidden = 5, .out = 1});  // more numbers than one vector has
  const index_t P = cell.size().params;
  forward_gradient est(cell, {.directions = P});
  est.reset(key{1});
  const auto v = est.directions();
  for (index_t i = 0; i < P; ++i)
    for (index_t j = 0; j <= i; ++j)
      CHECK(std::abs(linalg::dot(v.data() + P * i, v.data() + P * j, P) - (i == j ? 1 : 0)) < 1e-13);
}

TEST_CASE("forward_gradient costs a step and a jvp a direction, and gives its gradient window by window") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(5);
  forward_gradient est(golden::rnn<>{}, {.directions = 3, .window = 2});
  gradient<double> g(8), every(8);
  std::vector<double> seen;
  for (const auto& x : xs) {
    const report r = est.advance(theta, {&x, 1}, g);
    CHECK((r.steps == 1 && r.vjps == 0 && r.jvps == 3));
    seen.push_back(g[3]);
  }
  est.finish(theta, g);
  CHECK((seen[0] == 0 && seen[1] != 0 && seen[2] == seen[1] && seen[3] != seen[2] && g[3] != seen[4]));
  forward_gradient other(golden::rnn<>{}, {.directions = 3});
  other.advance(theta, xs, every);
  other.finish(theta, every);
  CHECK(golden::relative_error(g, every) < 1e-14);
}

TEST_CASE("forward_gradient keeps the promises of every estimator and refuses what cannot be") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(forward_gradient(golden::rnn<>{}, {.directions = 2, .window = 3}),
                                       golden::theta(), xs, &bad) == std::vector<std::string>{});
  const auto small = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(forward_gradient(golden::rnn<float>{}), golden::theta<float>(),
                                       small) == std::vector<std::string>{});
  CHECK_THROWS_WITH(forward_gradient(golden::rnn<>{}, {.directions = 9}),
                    ContainsSubstring("directions: is 9, but only 8 directions"));
  CHECK_THROWS_WITH(forward_gradient(golden::rnn<>{}, {.directions = 0}),
                    ContainsSubstring("directions: is 0"));
  CHECK_THROWS_WITH(forward_gradient(golden::rnn<>{}, {.window = 0}), ContainsSubstring("window: is 0"));
}
