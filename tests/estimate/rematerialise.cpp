#include "unroll/estimate/rematerialise.hpp"

#include <cmath>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/estimate/incremental_tbptt.hpp"
#include "unroll/io/checkpoint.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using namespace memory_task;
using strings = std::vector<std::string>;

static_assert(gradient_estimator<rematerialise<cells::linear_memory<float>>>);
static_assert(gradient_estimator<rematerialise<attention>>);

// keep_all = keep(G) = rematerialise in every bit, = window(>= T - 1) up to rounding, = finite differences.
template <class M>
void check_exact(M model, index_t segments) {
  const task<M> k(model, segments);
  const auto differences = k.differences();
  const auto exact = run(rematerialise(model, {.segments = segments}), k.theta, k.xs);
  CHECK(relative_error(exact, differences) < 1e-9);
  for (index_t keep = 1; keep <= segments + 1; ++keep)
    CHECK(run(rematerialise(model, {.segments = segments + 3, .keep = keep}), k.theta, k.xs) == exact);
  for (const index_t window : {segments - 1, segments, 2 * segments}) {
    if (window == 0) continue;
    const auto g = run(incremental_tbptt(model, {.segments = segments, .window = window}), k.theta, k.xs);
    CHECK(relative_error(g, exact) < 1e-14);
  }
}

}  // namespace

TEST_CASE("rematerialise is exact, whatever it keeps, also where writes read earlier memories") {
  for (const index_t segments : {1, 2, 3, 7}) {
    check_exact(make_linear(), segments);
    check_exact(make_linear(true), segments);
  }
  for (const index_t segments : {2, 3, 7}) {  // one segment alone has no gradient: nothing reads theta
    check_exact(make_attention(), segments);
    check_exact(make_attention(true), segments);
  }
}

TEST_CASE("rematerialise has the same bits in batches of any size, and as many calls fewer") {
  const auto check = [](auto model) {
    for (const index_t T : {1, 2, 6, 9}) {
      const task k(model, T);
      report once;
      const auto exact = run(rematerialise(k.model, {.segments = T}), k.theta, k.xs, &once);
      for (const index_t batch : {1, 2, 3, 4, 40})
        for (const index_t keep : {0, 1, 4, 40})
          for (const index_t chunk : {40, 1, 5}) {
            CAPTURE(T, batch, keep, chunk);
            tally calls;
            rematerialise e(counted_memory(k.model, calls), {.segments = T, .keep = keep, .batch = batch});
            std::vector<double> g(std::size_t(k.theta.size()));
            report r;
            e.reset({});
            for (index_t t = 0; t < T; t += chunk)
              r += e.advance(k.theta,
                             std::span(k.xs).subspan(std::size_t(t), std::size_t(std::min(chunk, T - t))), g);
            r += e.finish(k.theta, g);
            CHECK(g == exact);
            CHECK(r.loss == Approx(once.loss).epsilon(1e-14));
            CHECK(e.counts().writes == T - 1);
            CHECK(e.counts().write_vjps == T - 1);
            CHECK(calls.graphs + calls.bare_writes == e.counts().writes + e.counts().rewrites);
            CHECK(calls.live.empty());
            const index_t together = std::min(batch, std::max<index_t>(1, T - 1));
            const index_t kept = whole_batches(std::min(keep, T - 1), together);
            CHECK(calls.peak <= std::max(together, kept));
            if (chunk < 40) continue;
            const index_t groups = (T - 1 + together - 1) / together;
            CHECK(calls.largest == together);
            const index_t replayed = std::max<index_t>(0, groups - kept / together);
            CHECK(calls.calls == groups + replayed + groups + groups + 1);  // write, replay, vjp, read
          }
    }
  };
  check(make_linear());
  check(make_attention());
}

TEST_CASE("a batch of recurrent writes is refused") {
  CHECK_THROWS_WITH(rematerialise(make_linear(true), {.batch = 4}),
                    Catch::Matchers::ContainsSubstring("batch: is 4") &&
                        Catch::Matchers::ContainsSubstring("their batch is 1"));
  CHECK_THROWS_AS(rematerialise(make_linear(), {.batch = 0}), error);
}

TEST_CASE("rematerialise in single precision agrees with double") {
  const task<attention> k(make_attention(true), 12);
  const std::vector<float> numbers(k.numbers.begin(), k.numbers.end());
  const std::vector<float> theta(k.theta.begin(), k.theta.end());
  std::vector<cells::example<float>> xs;
  for (std::size_t t = 0; t < 12; ++t) xs.push_back({.x = &numbers[4 * t], .target = &numbers[4 * t + 2]});
  rematerialise e(cells::attention_memory<float>({.size = 2, .recurrent = true}));
  std::vector<float> g(theta.size());
  e.advance(theta, xs, g);
  e.finish(theta, g);
  CHECK(relative_error(g, run(rematerialise(k.model), k.theta, k.xs)) < 1e-5);
}

TEST_CASE("rematerialise is the sum over all pairs of segments") {
  const task<attention> k(make_attention(), 6);
  const parts all = every_part(k);
  auto sum = all.direct;
  for (const auto& row : all.z)
    for (const auto& z : row)
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += z[i];
  CHECK(relative_error(run(rematerialise(k.model), k.theta, k.xs), sum) < 1e-14);
}

TEST_CASE("rematerialise writes, replays and reads as often as it says, with the graphs that it says") {
  for (const index_t T : {1, 2, 5, 9})
    for (const index_t keep : {0, 1, 2, 4, 20}) {
      INFO("T " << T << " keep " << keep);
      const auto check = [&](const auto& model, index_t first_read_vjp) {
        const task k(model, T);
        tally calls;
        report r;
        replay_counts c;
        run(rematerialise(counted_memory(k.model, calls), {.segments = 10, .keep = keep}), k.theta, k.xs, &r,
            &c);
        const index_t writes = T - 1, kept = std::min(keep, writes), rewrites = writes - kept;
        CHECK(c.writes == writes);
        CHECK(c.rewrites == rewrites);
        CHECK(c.write_vjps == writes);
        CHECK(c.reads == T);
        CHECK(c.read_vjps == T - 1 + first_read_vjp);
        CHECK(c.live_graphs == std::min(writes, std::max<index_t>(1, keep)));
        CHECK(calls.graphs + calls.bare_writes == c.writes + c.rewrites);
        CHECK(calls.bare_writes == (keep == 0 ? writes : 0));
        CHECK(calls.write_vjps == c.write_vjps);
        CHECK(calls.reads == c.reads);
        CHECK(calls.read_vjps == c.read_vjps);
        CHECK(calls.peak == c.live_graphs);
        CHECK(calls.live.empty());
        CHECK(calls.writes_of.count(T - 1) == 0);  // the last segment is never written
        CHECK(r.steps == c.writes + c.rewrites + c.reads);
        CHECK(r.vjps == c.write_vjps + c.read_vjps);
        CHECK(r.losses == T);
      };
      check(make_linear(), 1);
      check(make_attention(true), 0);
    }
}

TEST_CASE("rematerialise keeps every promise of an estimator") {
  const task<linear> l(make_linear(true), 45);
  const task<attention> a(make_attention(true), 45);
  const double nan = std::nan("");
  const double wrong[2] = {nan, nan};
  for (const index_t keep : {0, 3, 60}) {
    example bad = l.xs[0];
    bad.target = wrong;
    const rematerialise_options o{.segments = 50, .keep = keep};
    CHECK(testing::estimator_conformance(rematerialise(l.model, o), l.theta, l.xs, &bad) == strings{});
    CHECK(testing::estimator_conformance(rematerialise(a.model, o), a.theta, a.xs, &bad) == strings{});
    // found out only when the loss is not finite: what was added to the adjoints is taken away again
    CHECK(testing::estimator_conformance(rematerialise(unchecked(l.model), o), l.theta, l.xs, &bad) ==
          strings{});
    CHECK(testing::estimator_conformance(rematerialise(unchecked(a.model), o), a.theta, a.xs, &bad) ==
          strings{});
    const task<linear> once(make_linear(), 45);
    const task<attention> seen(make_attention(), 45);
    const rematerialise_options batches{.segments = 50, .keep = keep, .batch = 4};
    CHECK(testing::estimator_conformance(rematerialise(once.model, batches), once.theta, once.xs, &bad) ==
          strings{});
    CHECK(testing::estimator_conformance(rematerialise(unchecked(once.model), batches), once.theta, once.xs,
                                         &bad) == strings{});
    CHECK(testing::estimator_conformance(rematerialise(unchecked(seen.model), batches), seen.theta, seen.xs,
                                         &bad) == strings{});
  }
}

TEST_CASE("a memory that is not finite stops rematerialise at the segment that would read it") {
  const task<linear> k(make_linear(), 6);
  auto xs = k.xs;
  const double wrong[2] = {std::nan(""), 0};
  xs[3].x = wrong;  // the linear model reads no x: J_3 is fine, m_3 is not
  for (const index_t batch : {1, 3}) {
    rematerialise e(unchecked(k.model), {.segments = 6, .batch = batch});
    std::vector<double> g(std::size_t(k.theta.size()));
    const report r = e.advance(k.theta, xs, g);
    CHECK(r.code == status::non_finite);
    CHECK(r.consumed == 4);
    CHECK(r.at == 4);
    CHECK(e.finish(k.theta, g).code == status::ok);
    CHECK(g == run(rematerialise(k.model), k.theta, std::span(k.xs).first(4)));
  }
}

TEST_CASE("rematerialise shows no model a memory that is not finite where that is all it reads") {
  const task<linear> k(make_linear(), 9);
  auto xs = k.xs;
  const double wrong[2] = {std::nan(""), 0};
  xs[5].x = wrong;
  for (const index_t batch : {1, 3})
    for (const index_t keep : {0, 4}) {
      rematerialise e(only_finite_memories(k.model), {.segments = 9, .keep = keep, .batch = batch});
      std::vector<double> g(std::size_t(k.theta.size()));
      const report r = e.advance(k.theta, xs, g);
      CHECK(r.code == status::non_finite);
      CHECK(r.at == 6);
      CHECK(e.finish(k.theta, g).code == status::ok);
      CHECK(g == run(rematerialise(k.model), k.theta, std::span(k.xs).first(6)));
    }
}

TEST_CASE("nothing leaks from one document to the next") {
  const task<attention> first(make_attention(true), 5), other(make_attention(true), 8, 11);
  rematerialise e(first.model, {.segments = 8, .keep = 2});
  const auto document = [&](const task<attention>& k) {
    std::vector<double> g(std::size_t(k.theta.size()));
    e.reset({});
    e.advance(k.theta, k.xs, g);
    e.finish(k.theta, g);
    return g;
  };
  const auto g = document(first);
  CHECK(document(first) == g);
  document(other);
  CHECK(document(first) == g);
  std::vector<double> broken_off(std::size_t(first.theta.size()));
  e.reset({});
  e.advance(other.theta, std::span(other.xs).first(3), broken_off);
  CHECK(document(first) == g);
}

TEST_CASE("rematerialise refuses too many segments, a start and impossible options") {
  const task<linear> k(make_linear(), 4);
  std::vector<double> g(std::size_t(k.theta.size()));
  rematerialise e(k.model, {.segments = 3});
  CHECK_THROWS_AS(e.advance(k.theta, k.xs, g), error);
  CHECK(g == std::vector<double>(g.size()));
  e.advance(k.theta, std::span(k.xs).first(3), g);
  CHECK_THROWS_AS(e.advance(k.theta, std::span(k.xs).last(1), g), error);
  e.finish(k.theta, g);
  CHECK_THROWS_AS(e.advance(k.theta, std::span(k.xs).first(1), g), error);
  const double start[1] = {};
  CHECK_THROWS_AS(e.reset({}, state<const double>(start, 1)), error);
  CHECK_THROWS_AS(rematerialise(k.model, {.segments = 0}), error);
  CHECK_THROWS_AS(rematerialise(k.model, {.keep = -1}), error);
}

TEST_CASE(
    "rematerialise can be saved after a finish() that failed anywhere, and goes on where it is loaded") {
  struct throwing : linear {
    index_t* broken;  // the segment whose graph does not go back
    throwing(linear f, index_t& b) : linear(std::move(f)), broken(&b) {}
    index_t write_workspace(index_t, index_t batch) const {  // graphs in the workspace
      return workspace(0, batch);
    }
    void write_vjp(std::span<const example> xs, index_t s, params<const double> theta,
                   std::span<const double* const> past, write_graphs<numbers<double>> graphs,
                   memory_gradients<numbers<double>> to, view<double> workspace) const {
      if (s <= *broken && *broken < s + index_t(xs.size())) fail("throwing", "s", "is " + std::to_string(s));
      linear::write_vjp(xs, s, theta, past, graphs, to, workspace);
    }
  };
  const auto check = [](bool recurrent, const rematerialise_options& o) {
    index_t broken = -1;
    const task<throwing> k(throwing(make_linear(recurrent), broken), 5);
    const auto exact = run(rematerialise(k.model, o), k.theta, k.xs);
    for (const index_t at : {3, 1, 0}) {
      CAPTURE(recurrent, o.keep, o.batch, at);
      rematerialise e(k.model, o), resumed(k.model, o);
      std::vector<double> g(std::size_t(k.theta.size()));
      broken = at;
      e.advance(k.theta, k.xs, g);
      CHECK_THROWS_AS(e.finish(k.theta, g), error);
      checkpoint c;
      c.save("run", e);
      c.load("run", resumed);
      hold_inputs(resumed, k.xs);
      broken = -1;
      resumed.finish(k.theta, g);
      CHECK(g == exact);
    }
  };
  for (const index_t keep : {0, 2}) {
    check(false, {.segments = 5, .keep = keep});
    check(false, {.segments = 5, .keep = keep, .batch = 2});
    check(true, {.segments = 5, .keep = keep});
  }
}
