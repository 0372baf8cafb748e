#include "unroll/estimate/gpes.hpp"

#include <limits>

#include "tests/mutants/es_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using mutants::polynomial;

static_assert(gradient_estimator<gpes<polynomial>>);
static_assert(gradient_estimator<gpes<golden::rnn<float>>>);

template <class E>
gradient<double> whole(E est) {
  gradient<double> g(8);
  est.reset(key{3});
  est.advance(golden::theta(), golden::long_inputs(11), g);
  est.finish(golden::theta(), g);
  return g;
}

}  // namespace

TEST_CASE("gpes has the golden means of every noise period, from pes to es") {
  for (const auto& [window, reuse, golden] :
       {std::tuple{1, 1, 15.306395572}, std::tuple{1, 2, 28.006775930}, std::tuple{2, 1, 28.006775930},
        std::tuple{1, 3, 72.389548658}, std::tuple{2, 2, 72.389548658}}) {
    INFO("windows of " << window << ", of which " << reuse << " share a perturbation");
    testing::enumerator all;
    const std::vector<double> theta{polynomial::theta};
    const std::vector<int> xs(3);
    const gpes est(polynomial{}, {.sigma = polynomial::sigma, .window = window, .reuse = reuse},
                   testing::enumerating_chooser(all));
    CHECK(est.smoothing().window == window * reuse);
    CHECK(std::abs(testing::enumerate(all, est, params<const double>(theta), xs).mean[0] - golden) < 1e-8);
  }
}

TEST_CASE("the sum of gpes over a sequence does not depend on how its windows are cut") {
  const auto expected = whole(gpes(golden::rnn<>{}, {.pairs = 2, .window = 1, .reuse = 6}));
  CHECK(golden::relative_error(whole(gpes(golden::rnn<>{}, {.pairs = 2, .window = 3, .reuse = 2})),
                               expected) < 1e-12);
  CHECK(golden::relative_error(whole(pes(golden::rnn<>{}, {.pairs = 2, .window = 6})), expected) < 1e-12);
  CHECK(golden::relative_error(whole(gpes(golden::rnn<>{}, {.pairs = 2, .window = 2, .reuse = 9})),
                               whole(es(golden::rnn<>{}, {.pairs = 2}))) < 1e-12);
}

TEST_CASE("gpes keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(gpes(golden::rnn<>{}, {.pairs = 2, .window = 3, .reuse = 3}),
                                       golden::theta(), xs, &bad) == std::vector<std::string>{});
  CHECK_THROWS_WITH(gpes(golden::rnn<>{}, {.window = 0}), ContainsSubstring("gpes: window: is 0"));
  constexpr index_t most = std::numeric_limits<index_t>::max();
  CHECK(gpes(golden::rnn<>{}, {.window = 1, .reuse = most}).smoothing().window == most);
  CHECK_THROWS_WITH(gpes(golden::rnn<>{}, {.window = 2, .reuse = most}),
                    ContainsSubstring("gpes: reuse: is 9223372036854775807, must be at most"));
  CHECK_THROWS_WITH(gpes(golden::rnn<>{}, {.reuse = 0}), ContainsSubstring("gpes: reuse: is 0"));
}
