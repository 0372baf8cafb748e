#include "unroll/estimate/nres.hpp"

#include "tests/mutants/es_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using mutants::polynomial;

static_assert(gradient_estimator<nres<polynomial>>);
static_assert(gradient_estimator<nres<golden::rnn<float>>>);

template <class E>
gradient<double> whole(E est) {
  const auto theta = golden::theta();
  gradient<double> g(8);
  est.reset(key{3});
  est.advance(theta, golden::long_inputs(11), g);
  est.finish(theta, g);
  return g;
}

}  // namespace

TEST_CASE("nres is unbiased for the jointly smoothed loss whatever its window") {
  for (const index_t window : {1, 2, 3}) {
    testing::enumerator all;
    const std::vector<double> theta{polynomial::theta};
    const std::vector<int> xs(3);
    const nres est(polynomial{}, {.sigma = polynomial::sigma, .window = window},
                   testing::enumerating_chooser(all));
    const auto r = testing::enumerate(all, est, params<const double>(theta), xs);
    CHECK(std::abs(r.mean[0] - polynomial::jointly_smoothed) < 1e-6);
  }
}

TEST_CASE("the sum of nres over a sequence is that of es") {
  const auto expected = whole(es(golden::rnn<>{}, {.pairs = 2}));
  for (const index_t window : {1, 4, 11, 20})
    CHECK(golden::relative_error(whole(nres(golden::rnn<>{}, {.pairs = 2, .window = window})), expected) <
          1e-12);
}

TEST_CASE("nres gives its gradient at the end of every window") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(5);
  nres est(golden::rnn<>{}, {.window = 2});
  gradient<double> g(8);
  std::vector<double> seen;
  for (const auto& x : xs) {
    const report r = est.advance(theta, {&x, 1}, g);
    CHECK(r.steps == 2);
    seen.push_back(g[3]);
  }
  est.finish(theta, g);
  CHECK(seen[0] == 0);
  CHECK(seen[1] != 0);
  CHECK(seen[2] == seen[1]);
  CHECK(seen[3] != seen[2]);
  CHECK(seen[4] == seen[3]);
  CHECK(g[3] != seen[4]);
}

TEST_CASE("nres keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(nres(golden::rnn<>{}, {.pairs = 2, .window = 3}), golden::theta(), xs,
                                       &bad) == std::vector<std::string>{});
  const auto small = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(nres(golden::rnn<float>{}), golden::theta<float>(), small) ==
        std::vector<std::string>{});
  CHECK_THROWS_AS(nres(golden::rnn<>{}, {.window = 0}), error);
}
