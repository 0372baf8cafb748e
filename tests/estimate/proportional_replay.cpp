#include "unroll/estimate/proportional_replay.hpp"

#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/estimate/incremental_tbptt.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using namespace memory_task;
using strings = std::vector<std::string>;

static_assert(gradient_estimator<proportional_replay<linear>>);
static_assert(gradient_estimator<proportional_replay<attention, testing::enumerating_chooser>>);

template <class M>
testing::enumeration enumerate_replay(const M& model, index_t budget, params<const double> theta,
                                      std::span<const typename M::input> xs, bool covariance = false,
                                      sampling_design design = sampling_design::systematic) {
  testing::enumerator all;
  const proportional_replay e(model, {.segments = index_t(xs.size()), .budget = budget, .design = design},
                              testing::enumerating_chooser(all));
  return testing::enumerate(all, e, theta, xs, {}, covariance);
}

constexpr sampling_design designs[] = {sampling_design::systematic, sampling_design::random_order,
                                       sampling_design::independent};

template <class M>
void check_unbiased(const M& model, index_t T, sampling_design design) {
  const task<M> k(model, T);
  const auto exact = run(rematerialise(model, {.segments = T}), k.theta, k.xs);
  for (index_t budget = 1; budget <= T; ++budget) {
    INFO("T " << T << " budget " << budget << " design " << int(design));
    const auto r = enumerate_replay(model, budget, k.theta, k.xs, false, design);
    CHECK(std::abs(r.probability - 1) < 1e-13);
    CHECK(relative_error(r.mean, exact) < 1e-11);
    if (budget >= T - 1) {  // everything is replayed: the same bits
      CHECK(run(proportional_replay(model, {.segments = T, .budget = budget, .design = design}), k.theta,
                k.xs) == exact);
      CHECK(r.covariance_trace == 0);
    }
  }
}

// The budget whose replays are at least the graphs that a reservoir sends back on average.
index_t same_cost(index_t size, index_t T) {
  double vjps = 0;
  for (index_t s = 0; s < T - 1; ++s) vjps += s < size ? 1 : double(size) / double(s + 1);
  return index_t(std::ceil(vjps));
}

}  // namespace

TEST_CASE("proportional_replay has the exact gradient as its mean over every sample") {
  for (const sampling_design design : designs)
    for (const index_t T : {2, 3, 6, 12}) {
      if (T == 12 && design != sampling_design::systematic) continue;  // 11! orders
      check_unbiased(make_linear(), T, design);
      check_unbiased(make_attention(), T, design);
    }
}

TEST_CASE("proportional_replay includes a segment by the norm of its adjoint and divides by that") {
  const index_t T = 6;
  const weights f(T);
  const std::vector<char> xs(std::size_t(T), 0);
  const parameters<double> theta(f.size().params);
  for (const sampling_design design : designs)
    for (index_t budget = 1; budget <= 3; ++budget) {
      INFO("design " << int(design));
      // the adjoint of m_s is 1 for each of the T - 1 - s later losses
      std::vector<double> norm(5), p(5);
      for (std::size_t s = 0; s < 5; ++s) norm[s] = std::sqrt(5. - double(s));
      inclusion_probabilities(norm, budget, p);
      testing::enumerator all;
      proportional_replay e(f, {.segments = T, .budget = budget, .design = design},
                            testing::enumerating_chooser(all));
      std::vector<double> seen(5);
      do {
        std::vector<double> g(std::size_t(theta.size()));
        e.reset({});
        e.advance(theta, xs, g);
        e.finish(theta, g);
        CHECK(e.inclusion().size() == 5);
        for (index_t s = 0; s < T - 1; ++s) {
          CHECK(e.inclusion()[s] == p[std::size_t(s)]);
          const double weight = g[std::size_t(f.entry(T - 1, s))];
          CHECK((weight == 0 || std::abs(weight - 1 / p[std::size_t(s)]) < 1e-14));
          if (weight > 0) seen[std::size_t(s)] += all.probability();
          for (index_t t = s + 1; t < T; ++t) CHECK(g[std::size_t(f.entry(t, s))] == weight);
        }
      } while (all.next());
      for (std::size_t s = 0; s < 5; ++s) CHECK(std::abs(seen[s] - p[s]) < 1e-13);
      std::vector<std::vector<double>> joint(5, std::vector<double>(5));
      for (std::size_t s = 0; s < 5; ++s)
        for (std::size_t u = 0; u < 5; ++u) joint[s][u] = inclusion_of_two(design, p, s, u);

      const auto r = enumerate_replay(f, budget, theta, xs, true, design);
      const auto P = std::size_t(f.size().params);
      for (index_t t = 0; t < T; ++t)
        for (index_t s = 0; s < T; ++s) {
          const auto i = std::size_t(f.entry(t, s));
          CHECK(std::abs(r.mean[i] - (s < t ? 1 : 0)) < 1e-13);
          for (index_t v = 0; v < T; ++v)
            for (index_t u = 0; u < T; ++u) {
              double expected = 0;  // of the pairs (t, s) and (v, u)
              if (s < t && u < v)
                expected =
                    joint[std::size_t(s)][std::size_t(u)] / (p[std::size_t(s)] * p[std::size_t(u)]) - 1;
              INFO("budget " << budget << " (" << t << ", " << s << ") (" << v << ", " << u << ")");
              CHECK(std::abs(r.covariance[i + std::size_t(f.entry(v, u)) * P] - expected) < 1e-12);
            }
        }
    }
}

TEST_CASE("proportional_replay varies less than a reservoir that sends back as many graphs") {
  for (const index_t T : {12, 32})
    for (const index_t size : {1, 2, 4}) {
      const auto check = [&](const auto& model) {
        const task k(model, T);
        const double other = variance_by_formula(every_part(k), reservoir(size));
        const auto r = enumerate_replay(k.model, same_cost(size, T), k.theta, k.xs);
        INFO("T " << T << " size " << size << " reservoir " << other << " replay " << r.covariance_trace);
        CHECK(r.covariance_trace < other);
      };
      check(make_linear());
      check(make_attention());
    }
}

TEST_CASE("the policies have the errors that the page on proportional replay states") {
  const index_t T = 97;
  const task<attention> k(make_attention(), T);
  const parts all = every_part(k);
  const auto exact = run(rematerialise(k.model, {.segments = T}), k.theta, k.xs);
  double square = 0;
  for (const double v : exact) square += v * v;
  struct line {
    index_t size;
    double window_bias, reservoir_std;
    index_t budget;
    double replay_std;
  };
  for (const line& row : {line{1, .997, 1.971, 6, 1.360}, line{2, .965, 1.360, 10, .868},
                          line{4, .851, .913, 17, .763}, line{8, .616, .588, 28, .405}}) {
    const auto window = run(incremental_tbptt(k.model, {.segments = T, .window = row.size}), k.theta, k.xs);
    const auto replay = enumerate_replay(k.model, row.budget, k.theta, k.xs);
    CHECK(std::abs(relative_error(window, exact) - row.window_bias) < 6e-4);
    CHECK(std::abs(std::sqrt(variance_by_formula(all, reservoir(row.size)) / square) - row.reservoir_std) <
          6e-4);
    CHECK(same_cost(row.size, T) == row.budget);
    CHECK(std::abs(std::sqrt(replay.covariance_trace / square) - row.replay_std) < 6e-4);
  }
}

TEST_CASE("proportional_replay writes without graphs and replays its budget, one segment at a time") {
  for (const index_t T : {1, 2, 9})
    for (const index_t budget : {1, 3, 20}) {
      const task<attention> k(make_attention(), T);
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        tally calls;
        report r;
        replay_counts c;
        run(proportional_replay(counted_memory(k.model, calls), {.segments = 9, .budget = budget}), k.theta,
            k.xs, &r, &c, {seed});
        const index_t replayed = std::min(budget, T - 1);
        CHECK(calls.bare_writes == T - 1);
        CHECK(calls.graphs == replayed);
        CHECK(calls.write_vjps == replayed);
        CHECK(calls.peak == std::min<index_t>(1, replayed));
        CHECK(calls.live.empty());
        CHECK(calls.writes_of.count(T - 1) == 0);
        CHECK(calls.reads == T);
        CHECK(calls.read_vjps == T - 1);
        CHECK(c.writes == T - 1);
        CHECK(c.rewrites == replayed);
        CHECK(c.write_vjps == replayed);
        CHECK(c.reads == T);
        CHECK(c.read_vjps == T - 1);
        CHECK(c.live_graphs == calls.peak);
        CHECK(r.steps == c.writes + c.rewrites + c.reads);
        CHECK(r.vjps == c.write_vjps + c.read_vjps);
      }
    }
}

TEST_CASE("proportional_replay keeps every promise of an estimator") {
  const task<linear> l(make_linear(), 45);
  const task<attention> a(make_attention(), 45);
  const double wrong[2] = {std::nan(""), 0};
  example bad = l.xs[0];
  bad.target = wrong;
  for (const index_t budget : {1, 7, 60})
    for (const std::uint64_t seed : {1u, 2u}) {
      testing::estimator_conformance_options o;
      o.randomness = {seed};
      const auto design =
          designs[(std::size_t(budget) + seed) % 3];  // each of them with a small budget and a large one
      const proportional_replay_options how{.segments = 50, .budget = budget, .design = design};
      CHECK(testing::estimator_conformance(proportional_replay(l.model, how), l.theta, l.xs, &bad, o) ==
            strings{});
      CHECK(testing::estimator_conformance(proportional_replay(unchecked(l.model), how), l.theta, l.xs, &bad,
                                           o) == strings{});
      CHECK(testing::estimator_conformance(proportional_replay(unchecked(a.model), how), a.theta, a.xs, &bad,
                                           o) == strings{});
    }
}

TEST_CASE("proportional_replay shows no model a memory that is not finite where that is all it reads") {
  const task<linear> k(make_linear(), 9);
  auto xs = k.xs;
  const double wrong[2] = {std::nan(""), 0};
  xs[5].x = wrong;
  for (const index_t batch : {1, 3}) {
    proportional_replay e(only_finite_memories(k.model), {.segments = 9, .budget = 9, .batch = batch});
    std::vector<double> g(std::size_t(k.theta.size()));
    const report r = e.advance(k.theta, xs, g);
    CHECK(r.code == status::non_finite);
    CHECK(r.at == 6);
  }
}

TEST_CASE("proportional_replay reports the work of a call that ends at a segment that is not finite once") {
  const task<linear> k(make_linear(), 9);
  auto xs = k.xs;
  const double wrong[2] = {std::nan(""), 0};
  xs[5].x = wrong;
  for (const index_t batch : {1, 3}) {
    proportional_replay e(k.model, {.segments = 9, .batch = batch});
    std::vector<double> g(std::size_t(k.theta.size()));
    const report r = e.advance(k.theta, xs, g);
    CHECK(r.code == status::non_finite);
    CHECK(r.steps == e.counts().steps());
    CHECK(r.vjps == e.counts().vjps());
  }
}

TEST_CASE("proportional_replay has the same bits in batches") {
  const task<attention> k(make_attention(), 12);
  for (const sampling_design design : designs)
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      const auto by = [&](index_t batch) {
        return run(
            proportional_replay(k.model, {.segments = 12, .budget = 7, .design = design, .batch = batch}),
            k.theta, k.xs, nullptr, nullptr, {seed});
      };
      const auto one_by_one = by(1);
      for (const index_t batch : {2, 3, 5, 20}) CHECK(by(batch) == one_by_one);
    }
  CHECK_THROWS_AS(proportional_replay(k.model, {.batch = 0}), error);
}

TEST_CASE("proportional_replay replays what has an adjoint, however small or large") {
  const task<attention> k(make_attention(), 6);
  const auto exact = run(rematerialise(k.model), k.theta, k.xs);
  // in single precision the squares of these adjoints vanish
  const cells::attention_memory<float> f({.size = 2});
  std::vector<float> numbers(24), theta(k.theta.begin(), k.theta.end());
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = float(k.numbers[i]);
  std::vector<cells::example<float>> xs;
  struct scaled : cells::attention_memory<float> {
    using base = cells::attention_memory<float>;
    explicit scaled(const base& b) : base(b) {}
    void read_vjp(std::span<const base::input> x, index_t t, params<const float> th,
                  std::span<const float* const> past, float* losses,
                  memory_gradients<unroll::numbers<float>> to, view<float> workspace) const {
      std::vector<std::vector<float>> sent(to.dpast.size(), std::vector<float>(2));
      std::vector<float*> dpast;
      for (auto& v : sent) dpast.push_back(v.data());
      base::read_vjp(x, t, th, past, losses, {.dpast = dpast, .dtheta = to.dtheta}, workspace);
      for (std::size_t s = 0; s < dpast.size(); ++s)
        for (std::size_t i = 0; i < 2; ++i) to.dpast[s][i] += 1e-24f * sent[s][i];
    }
  };
  for (std::size_t t = 0; t < 6; ++t) xs.push_back({.x = &numbers[4 * t], .target = &numbers[4 * t + 2]});
  testing::enumerator all;
  proportional_replay e(scaled(f), {.segments = 6, .budget = 2}, testing::enumerating_chooser(all));
  std::vector<double> mean(theta.size());
  do {
    std::vector<float> g(theta.size());
    e.reset({});
    e.advance(theta, xs, g);
    e.finish(theta, g);
    for (std::size_t i = 0; i < g.size(); ++i) mean[i] += all.probability() * double(g[i]) * 1e24;
  } while (all.next());
  CHECK(relative_error(mean, exact) < 1e-5);
}

TEST_CASE("proportional_replay replays everything where an adjoint is not finite") {
  struct overflowing : linear {  // of m_1, in the loss of segment 4
    explicit overflowing(linear f) : linear(std::move(f)) {}
    void read_vjp(std::span<const example> x, index_t t, params<const double> theta,
                  std::span<const double* const> past, double* losses, memory_gradients<numbers<double>> to,
                  view<double> workspace) const {
      linear::read_vjp(x, t, theta, past, losses, to, workspace);
      if (t == 4) to.dpast[1][0] = std::numeric_limits<double>::infinity();
    }
  };
  const task<overflowing> k(overflowing(make_linear()), 6);
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    proportional_replay e(k.model, {.segments = 6, .budget = 2});
    std::vector<double> g(std::size_t(k.theta.size()));
    e.reset({seed});
    e.advance(k.theta, k.xs, g);
    e.finish(k.theta, g);
    for (const double p : e.inclusion()) CHECK(p == 1);
    CHECK(e.counts().rewrites == 5);
  }
}

TEST_CASE("proportional_replay refuses models whose writes read, and impossible options") {
  CHECK_THROWS_AS(proportional_replay(make_linear(true)), error);
  CHECK_THROWS_AS(proportional_replay(make_linear(), {.segments = 0}), error);
  CHECK_THROWS_AS(proportional_replay(make_linear(), {.budget = 0}), error);
}
