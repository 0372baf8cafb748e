#include "unroll/estimate/incremental_tbptt.hpp"

#include <cmath>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using namespace memory_task;
using strings = std::vector<std::string>;

static_assert(gradient_estimator<incremental_tbptt<linear>>);

// TBPTT(S) as it is written: for every loss, back through each of the S segments in front of it.
template <class M>
std::vector<double> written_out(const task<M>& k, index_t window) {
  const parts all = every_part(k);
  auto g = all.direct;
  for (index_t t = 0; t < index_t(all.z.size()); ++t)
    for (index_t s = std::max<index_t>(0, t - window); s < t; ++s)
      for (std::size_t i = 0; i < g.size(); ++i) g[i] += all.z[std::size_t(t)][std::size_t(s)][i];
  return g;
}

}  // namespace

TEST_CASE("incremental_tbptt is TBPTT written out with two loops") {
  const task<linear> l(make_linear(), 9);
  const task<attention> a(make_attention(), 9);
  for (index_t window = 1; window < 12; ++window) {
    const incremental_tbptt_options o{.segments = 12, .window = window};
    CHECK(relative_error(run(incremental_tbptt(l.model, o), l.theta, l.xs), written_out(l, window)) < 1e-14);
    CHECK(relative_error(run(incremental_tbptt(a.model, o), a.theta, a.xs), written_out(a, window)) < 1e-14);
  }
}

TEST_CASE("incremental_tbptt is exact over a window of the whole sequence, also where writes read") {
  const index_t T = 7;
  const auto check = [&](const auto& model) {
    const task k(model, T);
    const auto exact = run(rematerialise(model, {.segments = T}), k.theta, k.xs);
    for (const index_t window : {T - 1, T + 2}) {
      const auto g = run(incremental_tbptt(model, {.segments = T, .window = window}), k.theta, k.xs);
      CHECK(relative_error(g, exact) < 1e-13);
    }
  };
  for (const bool recurrent : {false, true}) {
    check(make_linear(recurrent));
    check(make_attention(recurrent));
  }
}

TEST_CASE("incremental_tbptt gives a pair of segments the weight one inside the window, else zero") {
  const index_t T = 7;
  const weights f(T);
  const std::vector<char> xs(std::size_t(T), 0);
  const parameters<double> theta(f.size().params);
  for (index_t window = 1; window < 9; ++window) {
    incremental_tbptt e(f, {.segments = T, .window = window});
    std::vector<double> g(std::size_t(theta.size()));
    e.advance(theta, xs, g);
    e.finish(theta, g);
    for (index_t t = 0; t < T; ++t)
      for (index_t s = 0; s < T; ++s)
        CHECK(g[std::size_t(f.entry(t, s))] == (s < t && s >= t - window ? 1 : 0));
  }
}

TEST_CASE("incremental_tbptt sends every graph back once and has a window of them alive") {
  for (const index_t T : {1, 2, 6})
    for (const index_t window : {1, 2, 5, 9}) {
      const task<attention> k(make_attention(), T);
      tally calls;
      report r;
      replay_counts c;
      run(incremental_tbptt(counted_memory(k.model, calls), {.segments = 8, .window = window}), k.theta, k.xs,
          &r, &c);
      CHECK(c.writes == T - 1);
      CHECK(c.rewrites == 0);
      CHECK(c.write_vjps == T - 1);
      CHECK(c.reads == T);
      CHECK(c.read_vjps == T - 1);
      CHECK(c.live_graphs == std::min(window, T - 1));
      CHECK(calls.graphs == T - 1);
      CHECK(calls.bare_writes == 0);
      CHECK(calls.write_vjps == T - 1);
      CHECK(calls.reads == T);
      CHECK(calls.read_vjps == T - 1);
      CHECK(calls.peak == c.live_graphs);
      CHECK(calls.live.empty());
      CHECK(calls.writes_of.count(T - 1) == 0);
      CHECK(r.steps == c.writes + c.reads);
      CHECK(r.vjps == c.write_vjps + c.read_vjps);
    }
}

TEST_CASE("incremental_tbptt keeps every promise of an estimator") {
  const double wrong[2] = {std::nan(""), 0};
  for (const bool recurrent : {false, true}) {
    const task<linear> l(make_linear(recurrent), 45);
    const task<attention> a(make_attention(recurrent), 45);
    example bad = l.xs[0];
    bad.target = wrong;
    for (const index_t window : {1, 4, 60}) {
      const incremental_tbptt_options o{.segments = 50, .window = window};
      CHECK(testing::estimator_conformance(incremental_tbptt(l.model, o), l.theta, l.xs, &bad) == strings{});
      CHECK(testing::estimator_conformance(incremental_tbptt(unchecked(l.model), o), l.theta, l.xs, &bad) ==
            strings{});
      CHECK(testing::estimator_conformance(incremental_tbptt(unchecked(a.model), o), a.theta, a.xs, &bad) ==
            strings{});
    }
  }
}

TEST_CASE("a memory that is not finite is sent nothing back by incremental_tbptt") {
  const task<linear> k(make_linear(), 6);
  auto xs = k.xs;
  const double wrong[2] = {std::nan(""), 0};
  xs[3].x = wrong;
  incremental_tbptt e(unchecked(k.model), {.segments = 6, .window = 2});
  std::vector<double> g(std::size_t(k.theta.size()));
  const report r = e.advance(k.theta, xs, g);
  CHECK(r.code == status::non_finite);
  CHECK(r.consumed == 4);
  CHECK(e.finish(k.theta, g).code == status::ok);
  const auto expected =
      run(incremental_tbptt(k.model, {.segments = 6, .window = 2}), k.theta, std::span(k.xs).first(4));
  CHECK(relative_error(g, expected) < 1e-14);
}

TEST_CASE("incremental_tbptt refuses impossible options") {
  CHECK_THROWS_AS(incremental_tbptt(make_linear(), {.segments = 0}), error);
  CHECK_THROWS_AS(incremental_tbptt(make_linear(), {.window = 0}), error);
}
