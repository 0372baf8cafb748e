#include "unroll/estimate/artbp.hpp"

#include <limits>

#include "tests/mutants/artbp_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/lag_weights.hpp"

namespace {

using unroll::artbp;
using unroll::fixed_truncation;
using unroll::index_t;
using unroll::polynomial_truncation;
using unroll::testing::enumerating_chooser;
using unroll::testing::enumerator;
using cell = golden::rnn<double>;

static_assert(unroll::gradient_estimator<artbp<cell, fixed_truncation>>);
static_assert(unroll::gradient_estimator<artbp<golden::rnn<float>, polynomial_truncation>>);

// A chooser whose cuts are given.
struct scripted {
  std::vector<bool> cut;
  void reset(unroll::key) {}
  void mirror(bool) {}
  template <class T, class S>
  void signs(std::int64_t, unroll::view<T, S>) const {}
  bool coin(std::int64_t t, double) const { return cut[std::size_t(t)]; }
  index_t uniform(std::int64_t, index_t) const { return 0; }
  template <class T, class S>
  void normals(std::int64_t, unroll::view<T, S>) const {}
};
static_assert(unroll::chooser<scripted>);

template <class E, class X>
unroll::gradient<double> run(E e, unroll::params<const double> theta, const X& xs,
                             unroll::report* total = nullptr) {
  unroll::gradient<double> g(theta.size());
  unroll::report r = e.advance(theta, xs, g);
  r += e.finish(theta, g);
  REQUIRE(r.code == unroll::status::ok);
  if (total) *total = r;
  return g;
}

}  // namespace

TEST_CASE("artbp gives the golden draw of every pattern of cuts") {
  const auto xs = golden::inputs();
  const auto theta = golden::theta();
  for (const index_t block : {1, 2, 64}) {
    const auto draw = [&](bool first, bool second) {
      return run(
          artbp(cell{}, fixed_truncation(2), {.slots = 1, .block = block}, scripted{{first, second, false}}),
          theta, xs);
    };
    CHECK(golden::relative_error(draw(false, false), golden::artbp_uncut) < 1e-14);
    CHECK(golden::relative_error(draw(true, false), golden::artbp_cut_1) < 1e-14);
    CHECK(golden::relative_error(draw(false, true), golden::artbp_cut_2) < 1e-14);
    CHECK(golden::relative_error(draw(true, true), golden::lag_below_1) < 1e-9);  // a constant of ten digits
  }
}

TEST_CASE("artbp is unbiased and has the golden variance") {
  const auto xs = golden::inputs();
  const auto theta = golden::theta();
  for (const auto& [c, trace] :
       {std::pair{.3, golden::trace_artbp_03}, std::pair{.5, golden::trace_artbp_05}}) {
    enumerator all;
    const artbp e(cell{}, fixed_truncation(1 / c), {.slots = 2, .block = 2}, enumerating_chooser(all));
    const auto r = unroll::testing::enumerate(all, e, theta, xs);
    CHECK(std::abs(r.probability - 1) < 1e-15);
    CHECK(golden::relative_error(r.mean, golden::gradient) < 1e-14);
    CHECK(std::abs(r.covariance_trace - trace) < 1e-11);
  }
}

TEST_CASE("artbp is unbiased where the cut probability depends on the time since the last cut") {
  const auto xs = golden::long_inputs(9);
  const auto theta = golden::theta();
  const auto exact = run(unroll::bptt(cell{}), theta, xs);
  for (const double alpha : {4., 6.})
    for (const index_t block : {1, 2, 5}) {
      enumerator all;
      const artbp e(cell{}, polynomial_truncation(2, alpha), {.slots = 2, .block = block},
                    enumerating_chooser(all));
      const auto r = unroll::testing::enumerate(all, e, theta, xs);
      CHECK(r.outcomes == 512);
      CHECK(golden::relative_error(r.mean, exact) < 1e-12);
    }
}

TEST_CASE("artbp gives every lag the expected weight one, and 1 / survival when uncut") {
  const index_t steps = 7;
  const polynomial_truncation law(3);
  enumerator all;
  const auto mean = unroll::testing::expected_lag_weights(
      all, [&](auto f, auto chooser) { return artbp(f, law, {.slots = 2, .block = 3}, chooser); }, steps);
  const auto uncut = unroll::testing::lag_weights(
      [&](auto f) { return artbp(f, law, {.slots = 2, .block = 3}, scripted{std::vector<bool>(7)}); }, steps);
  const auto cut = unroll::testing::lag_weights(
      [&](auto f) {
        return artbp(f, law, {.slots = 2, .block = 3},
                     scripted{{false, false, true, false, false, false, false}});
      },
      steps);
  for (index_t t = 0; t < steps; ++t)
    for (index_t s = 0; s < steps; ++s) {
      // step i (from 0) of an uncut sequence is the (i + 1)-th of its run
      const double expected = s > t ? 0 : unroll::survival(law, s) / unroll::survival(law, t);
      CHECK(std::abs(mean(t, s) - (s <= t ? 1 : 0)) < 1e-12);
      CHECK(std::abs(uncut(t, s) - expected) < 1e-12 * (1 + expected));
      double within = 0;
      if (s <= t && t < 3) within = expected;
      if (s <= t && s >= 3) within = unroll::survival(law, s - 3) / unroll::survival(law, t - 3);
      CHECK(std::abs(cut(t, s) - within) < 1e-12 * (1 + within));
    }
}

TEST_CASE("artbp that never cuts has the bits of bptt") {
  const auto xs = golden::long_inputs(50);
  const auto theta = golden::theta();
  const double never = std::numeric_limits<double>::infinity();
  for (const index_t block : {1, 8, 64}) {
    const auto exact = run(unroll::bptt(cell{}, {.block = block}), theta, xs);
    const auto g = run(artbp(cell{}, fixed_truncation(never), {.slots = 3, .block = block}), theta, xs);
    for (index_t i = 0; i < 8; ++i) CHECK(g[i] == exact[i]);
  }
}

TEST_CASE("artbp's bits do not depend on how many states it keeps") {
  const auto xs = golden::long_inputs(200);
  const auto theta = golden::theta();
  const auto draw = [&](index_t slots) {
    artbp e(cell{}, polynomial_truncation(30), {.slots = slots, .block = 4});
    e.reset({9});
    return run(e, theta, xs);
  };
  const auto one = draw(1);
  for (const index_t slots : {2, 5, 64}) {
    const auto g = draw(slots);
    for (index_t i = 0; i < 8; ++i) CHECK(g[i] == one[i]);
  }
}

TEST_CASE("artbp keeps every promise of an estimator") {
  const auto xs = golden::long_inputs(60);
  cell::input bad = xs[0];
  bad.x = std::nan("");
  using strings = std::vector<std::string>;
  for (const index_t block : {1, 4, 64})
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      INFO("block " << block << " seed " << seed);
      unroll::testing::estimator_conformance_options o;
      o.randomness = {seed};
      const artbp fixed(cell{}, fixed_truncation(8), {.slots = 2, .block = block, .reserve = 60});
      CHECK(unroll::testing::estimator_conformance(fixed, golden::theta(), xs, &bad, o) == strings{});
      const artbp poly(cell{}, polynomial_truncation(8, 6), {.slots = 2, .block = block, .reserve = 60});
      CHECK(unroll::testing::estimator_conformance(poly, golden::theta(), xs, &bad, o) == strings{});
    }
}

TEST_CASE("artbp costs a vjp a step, and a step and its replays") {
  const auto xs = golden::long_inputs(12);
  const auto theta = golden::theta();
  std::vector<bool> cuts(12);
  cuts[4] = true;  // runs of 5 and 7 steps
  unroll::report r;
  run(artbp(cell{}, fixed_truncation(8), {.slots = 2, .block = 1}, scripted{cuts}), theta, xs, &r);
  CHECK(r.vjps == 12);
  CHECK(r.losses == 12);
  // 5 steps within the optimal regime of two slots; 7 steps: one sweep of 7, snapshots in front of 0 and 3
  CHECK(r.steps == 5 + unroll::least_advances(5, 2) + 7 + unroll::least_advances(7, 2));
  run(artbp(cell{}, fixed_truncation(8), {.slots = 2, .block = 16}, scripted{cuts}), theta, xs, &r);
  CHECK(r.steps == 12);  // a run inside a block is not replayed
}

TEST_CASE("artbp refuses a law that cuts for certain") {
  struct always {
    double cut(index_t k) const { return k < 3 ? .5 : 1.; }
  };
  artbp e(cell{}, always{}, {}, scripted{std::vector<bool>(3)});
  const auto theta = golden::theta();
  unroll::gradient<double> g(8);
  CHECK_THROWS_AS(e.advance(theta, golden::inputs(), g), unroll::error);
  CHECK_THROWS_AS(artbp(cell{}, fixed_truncation(2), {.slots = 0}), unroll::error);
  CHECK_THROWS_AS(artbp(cell{}, fixed_truncation(2), {.block = 0}), unroll::error);
}

TEST_CASE("every mistake in the compensation shows in the exact expectation") {
  using mutants::artbp_mistake;
  const auto xs = golden::inputs();
  const auto theta = golden::theta();
  struct expectation {
    artbp_mistake mistake;
    double c, bias, cosine;
  };
  // relative bias and cosine to the true gradient, known to four digits
  for (const auto& m : {expectation{artbp_mistake::none, .3, 0, 1},
                        {artbp_mistake::none, .5, 0, 1},
                        {artbp_mistake::no_compensation, .5, .2188, .9941},
                        {artbp_mistake::compensates_local, .5, .1543, .9999},
                        {artbp_mistake::divides_by_c, .3, .7996, .9717},
                        {artbp_mistake::drops_loss_at_cut, .5, .1543, .9997}}) {
    enumerator all;
    const mutants::artbp e(cell{}, m.c, m.mistake, enumerating_chooser(all));
    const auto r = unroll::testing::enumerate(all, e, theta, xs);
    const double bias = golden::relative_error(r.mean, golden::gradient);
    double dot = 0, norm = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      dot += r.mean[i] * golden::gradient[i];
      norm += r.mean[i] * r.mean[i];
    }
    const double cosine = dot / std::sqrt(norm * golden::gradient_squared_norm);
    INFO("mistake " << int(m.mistake) << " c " << m.c);
    CHECK(std::abs(cosine - m.cosine) < 6e-5);
    if (m.mistake == artbp_mistake::none) {
      CHECK(bias < 1e-14);
      CHECK(std::abs(r.covariance_trace - (m.c == .3 ? golden::trace_artbp_03 : golden::trace_artbp_05)) <
            1e-11);
    } else {
      CHECK(std::abs(bias - m.bias) < 6e-5);
    }
  }
}
