#include "unroll/estimate/reservoir_tbptt.hpp"

#include <cmath>

#include "tests/mutants/replay_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using namespace memory_task;
using strings = std::vector<std::string>;

static_assert(gradient_estimator<reservoir_tbptt<linear>>);
static_assert(gradient_estimator<reservoir_tbptt<attention, testing::enumerating_chooser>>);
static_assert(gradient_estimator<uncompensated_reservoir<attention, testing::enumerating_chooser>>);
static_assert(reservoir_tbptt<linear>::unbiased && !uncompensated_reservoir<linear>::unbiased);

template <class M>
testing::enumeration enumerate_reservoir(const M& model, index_t size, params<const double> theta,
                                         std::span<const typename M::input> xs, bool compensated = true,
                                         bool covariance = false) {
  testing::enumerator all;
  const reservoir_tbptt_options how{.segments = index_t(xs.size()), .size = size};
  if (!compensated)
    return testing::enumerate(all,
                              uncompensated_reservoir<M, testing::enumerating_chooser>(
                                  model, how, testing::enumerating_chooser(all)),
                              theta, xs, {}, covariance);
  return testing::enumerate(all, reservoir_tbptt(model, how, testing::enumerating_chooser(all)), theta, xs,
                            {}, covariance);
}

template <class M>
void check_unbiased(const M& model, index_t T) {
  const task<M> k(model, T);
  const auto exact = run(rematerialise(model, {.segments = T}), k.theta, k.xs);
  const parts all = every_part(k);
  for (index_t size = 1; size <= T; ++size) {
    const auto r = enumerate_reservoir(model, size, k.theta, k.xs);
    INFO("T " << T << " size " << size);
    CHECK(std::abs(r.probability - 1) < 1e-13);
    CHECK(relative_error(r.mean, exact) < 1e-11);
    const double variance = variance_by_formula(all, reservoir(size));
    CHECK(std::abs(r.covariance_trace - variance) < 1e-11 * (1 + variance));
    if (size >= T - 1) CHECK(r.outcomes == 1);  // the window holds everything: exact
  }
}

}  // namespace

TEST_CASE("reservoir_tbptt has the exact mean and the variance of the formula over every history") {
  for (const index_t T : {2, 3, 6}) {
    check_unbiased(make_linear(), T);
    check_unbiased(make_attention(), T);
  }
}

TEST_CASE("reservoir_tbptt weighs every pair with mean one and covariances of the closed form") {
  const index_t T = 6;
  const weights f(T);
  const std::vector<char> xs(std::size_t(T), 0);
  const parameters<double> theta(f.size().params);
  for (index_t size = 1; size <= 3; ++size) {
    const auto r = enumerate_reservoir(f, size, theta, xs, true, true);
    const reservoir law(size);
    const auto P = std::size_t(f.size().params);
    for (index_t t = 0; t < T; ++t)
      for (index_t s = 0; s < T; ++s) {
        const auto i = std::size_t(f.entry(t, s));
        CHECK(std::abs(r.mean[i] - (s < t ? 1 : 0)) < 1e-13);
        for (index_t v = 0; v < T; ++v)
          for (index_t u = 0; u < T; ++u) {
            const index_t n = std::min(t, v);
            double expected = 0;  // of the pairs (t, s) and (v, u)
            if (s < t && u < v && s < n && u < n) expected = law.covariance(n, s == u);
            INFO("size " << size << " (" << t << ", " << s << ") (" << v << ", " << u << ")");
            CHECK(std::abs(r.covariance[i + std::size_t(f.entry(v, u)) * P] - expected) < 1e-12);
          }
      }
  }
}

TEST_CASE("reservoir_tbptt without compensation gives a pair its inclusion probability") {
  const index_t T = 6;
  const weights f(T);
  const std::vector<char> xs(std::size_t(T), 0);
  const parameters<double> theta(f.size().params);
  for (index_t size = 1; size <= 3; ++size) {
    const auto r = enumerate_reservoir(f, size, theta, xs, false);
    for (index_t t = 0; t < T; ++t)
      for (index_t s = 0; s < t; ++s)
        CHECK(std::abs(r.mean[std::size_t(f.entry(t, s))] - std::min(1., double(size) / double(t))) < 1e-13);
  }
}

TEST_CASE("rejected segments are written without a graph and never sent back, whatever the draws") {
  for (const index_t T : {1, 2, 6})
    for (const index_t size : {1, 2, 4, 8}) {
      const task<attention> k(make_attention(), T);
      testing::enumerator all;
      double mean_vjps = 0, expected = 0;
      for (index_t s = 0; s < T - 1; ++s) expected += s < size ? 1 : double(size) / double(s + 1);
      do {
        // the draws as the documentation names them
        const testing::enumerating_chooser draw(all);
        index_t accepted = 0;
        for (index_t s = 0; s < T - 1; ++s) accepted += s < size || draw.uniform(s, s + 1) < size;
        tally calls;
        report r;
        replay_counts c;
        run(reservoir_tbptt(counted_memory(k.model, calls), {.segments = 8, .size = size}, draw), k.theta,
            k.xs, &r, &c);
        CHECK(calls.graphs == accepted);
        CHECK(calls.bare_writes == T - 1 - accepted);
        CHECK(calls.write_vjps == accepted);
        CHECK(calls.live.empty());
        CHECK(calls.peak == std::min(size, T - 1));
        CHECK(calls.writes_of.count(T - 1) == 0);
        CHECK(c.writes == T - 1);
        CHECK(c.rewrites == 0);
        CHECK(c.write_vjps == accepted);
        CHECK(c.reads == T);
        CHECK(c.read_vjps == T - 1);
        CHECK(c.live_graphs == calls.peak);
        CHECK(r.steps == c.writes + c.reads);
        CHECK(r.vjps == c.write_vjps + c.read_vjps);
        mean_vjps += all.probability() * double(accepted);
      } while (all.next());
      CHECK(std::abs(mean_vjps - expected) < 1e-13 * (1 + expected));
    }
}

TEST_CASE("reservoir_tbptt keeps every promise of an estimator") {
  const task<linear> l(make_linear(), 45);
  const task<attention> a(make_attention(), 45);
  const double wrong[2] = {std::nan(""), 0};
  example bad = l.xs[0];
  bad.target = wrong;
  for (const index_t size : {1, 3, 60})
    for (const std::uint64_t seed : {1u, 2u}) {
      testing::estimator_conformance_options o;
      o.randomness = {seed};
      const reservoir_tbptt_options how{.segments = 50, .size = size};
      CHECK(testing::estimator_conformance(uncompensated_reservoir<linear>(l.model, how), l.theta, l.xs, &bad,
                                           o) == strings{});
      CHECK(testing::estimator_conformance(reservoir_tbptt(l.model, how), l.theta, l.xs, &bad, o) ==
            strings{});
      CHECK(testing::estimator_conformance(reservoir_tbptt(unchecked(l.model), how), l.theta, l.xs, &bad,
                                           o) == strings{});
      CHECK(testing::estimator_conformance(reservoir_tbptt(unchecked(a.model), how), a.theta, a.xs, &bad,
                                           o) == strings{});
    }
}

TEST_CASE("reservoir_tbptt draws by its key and forgets the document before") {
  const task<linear> k(make_linear(), 20), other(make_linear(), 13, 9);
  reservoir_tbptt e(k.model, {.segments = 20, .size = 2});
  const auto document = [&](const task<linear>& d, key seed) {
    std::vector<double> g(std::size_t(d.theta.size()));
    e.reset(seed);
    e.advance(d.theta, d.xs, g);
    e.finish(d.theta, g);
    return g;
  };
  const auto g = document(k, {5});
  CHECK(document(k, {6}) != g);
  document(other, {5});
  CHECK(document(k, {5}) == g);
}

TEST_CASE("reservoir_tbptt refuses models whose writes read, and impossible options") {
  CHECK_THROWS_AS(reservoir_tbptt(make_linear(true)), error);
  CHECK_THROWS_AS(reservoir_tbptt(make_linear(), {.segments = 0}), error);
  CHECK_THROWS_AS(reservoir_tbptt(make_linear(), {.size = 0}), error);
}

TEST_CASE("every mistake in a replay shows in the exact expectation") {
  using mutants::replay_mistake;
  const task<attention> k(make_attention(), 6);
  const task<linear> l(make_linear(), 6);
  const auto check = [](const auto& d, replay_mistake mistake) {
    const auto exact = run(rematerialise(d.model, {.segments = 6}), d.theta, d.xs);
    testing::enumerator all;
    const mutants::reservoir_replay mutant(d.model, 2, mistake, testing::enumerating_chooser(all));
    const auto r = testing::enumerate(all, mutant, d.theta, d.xs);
    const auto real = enumerate_reservoir(d.model, 2, d.theta, d.xs);
    const double bias = relative_error(r.mean, exact);
    if (mistake == replay_mistake::none) {
      CHECK(bias < 1e-11);
      CHECK(std::abs(r.covariance_trace - real.covariance_trace) < 1e-11 * (1 + real.covariance_trace));
    } else {
      INFO("mistake " << int(mistake));
      CHECK(bias > 1e-3);  // the proofs ask for 1e-11
    }
  };
  for (const auto mistake :
       {replay_mistake::none, replay_mistake::no_compensation, replay_mistake::compensates_accumulated,
        replay_mistake::drops_last_window, replay_mistake::stale_memory}) {
    check(k, mistake);
    check(l, mistake);
  }
}
