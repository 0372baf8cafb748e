#include "unroll/estimate/telescope.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using enum telescope_kind;

static_assert(gradient_estimator<telescope<golden::rnn<double>>>);
static_assert(gradient_estimator<telescope<golden::rnn<float>>>);

testing::enumeration exact(telescope_options o, std::span<const golden::rnn<>::input> xs) {
  testing::enumerator all;
  return testing::enumerate(all, telescope(golden::rnn<>{}, std::move(o), testing::enumerating_chooser(all)),
                            golden::theta(), xs);
}

template <class E>
gradient<double> whole(E est, std::span<const golden::rnn<>::input> xs) {
  gradient<double> g(8);
  est.advance(golden::theta(), xs, g);
  est.finish(golden::theta(), g);
  return g;
}

}  // namespace

TEST_CASE("telescope is unbiased and has the golden covariances of lags 1, 2 and 3") {
  const auto xs = golden::inputs();
  telescope_options o{.ladder = {{1, 1}, {1, 2}}, .probabilities = {.5, .25, .25}};
  for (const auto& [kind, trace] :
       {std::pair{single_sample, 1.093304928677}, std::pair{roulette, .589056191018}}) {
    o.kind = kind;
    const auto r = exact(o, xs);
    CHECK(r.outcomes == 3);
    CHECK(golden::relative_error(r.mean, golden::gradient) < 1e-12);
    CHECK(std::abs(r.covariance_trace - trace) < 1e-11);
  }
}

TEST_CASE("the differences of the golden ladder of lags 1, 2 and 3 have the golden norms") {
  const auto xs = golden::inputs();
  gradient<double> below(8);
  double norms[3] = {};
  for (index_t lag = 1; lag <= 3; ++lag) {
    const auto level = whole(tbptt(golden::rnn<>{}, {.k1 = 1, .k2 = lag}), xs);
    for (index_t p = 0; p < 8; ++p) norms[lag - 1] += (level[p] - below[p]) * (level[p] - below[p]);
    below = level;
  }
  CHECK(std::abs(norms[0] - 1.340641859499) < 1e-11);
  CHECK(std::abs(norms[1] - .365783390413) < 1e-11);
  CHECK(std::abs(norms[2] - .038609023322) < 1e-11);
}

TEST_CASE("telescope is unbiased for every ladder, whose windows the sequence's end cuts") {
  const auto xs = golden::long_inputs(11);
  const auto expected = testing::backward_gradient(golden::rnn<>{}, golden::theta(), xs);
  const std::vector<tbptt_options> ladders[] = {
      {}, {{4, 4}}, {{2, 3}, {3, 7}, {20, 20}}, {{5, 5}, {1, 1}, {5, 5}}};  // also one that goes down
  for (const auto& ladder : ladders)
    for (const auto kind : {roulette, single_sample}) {
      const auto r = exact({.ladder = ladder, .kind = kind}, xs);
      CHECK(r.outcomes == index_t(ladder.size()) + 1);
      CHECK(golden::relative_error(r.mean, expected) < 1e-12);
    }
}

TEST_CASE("the levels of a telescope are the truncations that their estimators compute") {
  const auto xs = golden::long_inputs(11);
  const telescope_options o{.ladder = {{2, 3}, {4, 4}}, .probabilities = {.2, .3, .5}, .kind = single_sample};
  telescope est(golden::rnn<>{}, o);
  const gradient<double> levels[] = {whole(tbptt(golden::rnn<>{}, o.ladder[0]), xs),
                                     whole(tbptt(golden::rnn<>{}, o.ladder[1]), xs),
                                     whole(bptt(golden::rnn<>{}), xs)};
  std::array<bool, 3> seen{};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    est.reset(key{seed});
    gradient<double> g(8), expected(8);
    est.advance(golden::theta(), xs, g);
    est.finish(golden::theta(), g);
    for (index_t n = 0; n < 3; ++n)
      for (index_t p = 0; p < 8; ++p) expected[p] += est.weights()[n] * levels[n][p];
    for (std::size_t n = 0; n < 3; ++n) seen[n] = seen[n] || est.weights()[index_t(n)] > 0;
    CHECK(golden::relative_error(g, expected) < 1e-13);
  }
  CHECK((seen[0] && seen[1] && seen[2]));
}

TEST_CASE(
    "telescope walks long sequences in blocks, counts its vjps and keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(150);
  telescope est(golden::rnn<>{}, {.ladder = {{5, 5}}, .probabilities = {1e-9, 1 - 1e-9}, .max_steps = 150});
  gradient<double> g(8);
  est.advance(golden::theta(), xs, g);
  const report r = est.finish(golden::theta(), g);
  CHECK(r.vjps == 300);
  CHECK(golden::relative_error(g, testing::backward_gradient(golden::rnn<>{}, golden::theta(), xs)) < 1e-8);
  est.reset(key{});
  est.advance(golden::theta(), xs, g);
  CHECK_THROWS_WITH(est.advance(golden::theta(), std::span(xs).first(1), g),
                    ContainsSubstring("makes a sequence of 151 steps, max_steps is 150"));

  auto bad = xs[0];
  bad.x = std::nan("");
  const auto short_xs = golden::long_inputs(50);
  CHECK(testing::estimator_conformance(
            telescope(golden::rnn<>{}, {.ladder = {{2, 3}, {7, 7}}, .max_steps = 60}), golden::theta(),
            short_xs, &bad) == std::vector<std::string>{});
}

TEST_CASE("telescope refuses levels without probability and ladders that are none") {
  const auto make = [](std::vector<tbptt_options> ladder, std::vector<double> q) {
    telescope(golden::rnn<>{}, {.ladder = std::move(ladder), .probabilities = std::move(q)});
  };
  CHECK_THROWS_WITH(make({{1, 1}, {1, 2}}, {.5, 0, .5}),
                    ContainsSubstring("that of level 2 is 0, must lie in (0, 1]"));
  CHECK_THROWS_WITH(make({{1, 1}}, {1, 0}), ContainsSubstring("that of level 2 is 0"));
  CHECK_THROWS_WITH(make({{1, 1}}, {.5, -.5}), ContainsSubstring("is -0.5"));
  CHECK_THROWS_WITH(make({{1, 1}}, {.5, std::nan("")}), ContainsSubstring("is nan"));
  CHECK_THROWS_WITH(make({{1, 1}}, {.5, .25}), ContainsSubstring("sum to 0.75, must sum to 1"));
  CHECK_THROWS_WITH(make({{1, 1}}, {1}), ContainsSubstring("has size 1, expected 2"));
  CHECK_THROWS_WITH(make({{2, 1}}, {}), ContainsSubstring("k2: is 1, must be at least 2"));
  CHECK_THROWS_WITH(make({{0, 1}}, {}), ContainsSubstring("k1: is 0"));
}
