#include "unroll/estimate/roulette_replay.hpp"

#include <cmath>
#include <limits>

#include "tests/mutants/roulette_mutants.hpp"
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

static_assert(gradient_estimator<roulette_replay<linear>>);

constexpr replay_inclusion rules[] = {replay_inclusion::by_norm, replay_inclusion::by_distance,
                                      replay_inclusion::constant};

template <class M>
using enumerated = roulette_replay<M, testing::enumerating_chooser>;

template <class M>
testing::enumeration enumerate_roulette(const M& model, const roulette_replay_options& o,
                                        params<const double> theta, std::span<const typename M::input> xs) {
  testing::enumerator all;
  return testing::enumerate(all, enumerated<M>(model, o, testing::enumerating_chooser(all)), theta, xs);
}

template <class M>
void check_unbiased(const M& model, index_t T) {
  const task<M> k(model, T);
  const auto exact = run(rematerialise(model, {.segments = T}), k.theta, k.xs);
  for (const replay_inclusion rule : rules)
    for (index_t budget = 1; budget < T; ++budget) {
      CAPTURE(T, budget, int(rule));
      const roulette_replay_options o{.segments = T, .budget = budget, .inclusion = rule};
      const auto r = enumerate_roulette(model, o, k.theta, k.xs);
      CHECK(std::abs(r.probability - 1) < 1e-13);
      CHECK(relative_error(r.mean, exact) < 1e-11);
      CHECK(r.outcomes <= std::int64_t(1) << (T - 1));
      CHECK((r.covariance_trace > 0) == (budget < T - 1));
      if (budget == T - 1)  // everything is replayed: the same bits
        CHECK(run(roulette_replay(model, o), k.theta, k.xs) == exact);
    }
}

/// Memory s is theta_s plus memory s - 1, and only the last segment has a loss, the last memory. With p for
/// every segment, entry s of the gradient is the product of the weights of T - 1 - s segments.
class chain {
 public:
  using scalar = double;
  using input = char;
  explicit chain(index_t segments) : n_(segments - 1) {}
  memory_dims size() const { return {n_, 1, 0}; }
  bool independent() const { return false; }
  bool reads_params() const { return false; }
  index_t workspace(index_t, index_t) const { return 0; }
  void write(std::span<const char>, index_t s, params<const double> theta,
             std::span<const double* const> past, view<double> m, view<double>, view<double>) const {
    m[0] = theta[s] + (past.empty() ? 0 : *past.back());
  }
  void write_vjp(std::span<const char>, index_t s, params<const double>, std::span<const double* const>,
                 write_graphs<numbers<double>> graphs, memory_gradients<numbers<double>> to,
                 view<double>) const {
    to.dtheta[s] += graphs.dm[0];
    if (!to.dpast.empty()) *to.dpast.back() += graphs.dm[0];
  }
  void read(std::span<const char>, index_t t, params<const double>, std::span<const double* const> past,
            double* loss, view<double>) const {
    *loss = t == n_ ? *past.back() : 0;
  }
  void read_vjp(std::span<const char> xs, index_t t, params<const double> theta,
                std::span<const double* const> past, double* loss, memory_gradients<numbers<double>> to,
                view<double> workspace) const {
    read(xs, t, theta, past, loss, workspace);
    if (t == n_) *to.dpast.back() += 1;
  }

 private:
  index_t n_;
};

// Mean over every outcome of the plain estimator with a mistake.
template <class M>
std::vector<double> mean_of_mutant(const M& model, double p, mutants::roulette_mistake mistake,
                                   params<const double> theta, std::span<const typename M::input> xs) {
  testing::enumerator all;
  testing::enumerating_chooser choose(all);
  std::vector<double> mean(std::size_t(theta.size()));
  do {
    const auto g = mutants::roulette(model, p, mistake, choose, theta, xs);
    for (std::size_t i = 0; i < g.size(); ++i) mean[i] += all.probability() * g[i];
  } while (all.next());
  return mean;
}

}  // namespace

TEST_CASE("roulette_replay has the exact gradient as its mean over every outcome, where writes read too") {
  for (const bool recurrent : {false, true})
    for (const index_t T : {2, 3, 6}) {
      check_unbiased(make_linear(recurrent), T);
      check_unbiased(make_attention(recurrent), T);
    }
}

TEST_CASE("roulette_replay of memories that do not read varies as independent draws do") {
  const task<attention> k(make_attention(), 7);
  const auto parts = every_part(k);
  for (const replay_inclusion rule : rules) {
    const roulette_replay_options o{.segments = 7, .budget = 2, .inclusion = rule};
    roulette_replay once(k.model, o);
    std::vector<double> g(std::size_t(k.theta.size()));
    once.reset(key{});
    once.advance(k.theta, k.xs, g);
    once.finish(k.theta, g);
    const std::vector<double> p(once.inclusion().begin(), once.inclusion().end());
    double sum = 0, least = 1;
    for (const double x : p) {
      sum += x;
      least = std::min(least, x);
    }
    CAPTURE(int(rule));
    CHECK(sum == Approx(2).epsilon(1e-12));
    CHECK(least > 0.1 * 2 / 6.);
    CHECK((p.front() == p.back()) == (rule == replay_inclusion::constant));
    CHECK(enumerate_roulette(k.model, o, k.theta, k.xs).covariance_trace ==
          Approx(variance_by_formula(parts, p, sampling_design::independent)).epsilon(1e-11));
  }
}

TEST_CASE("roulette_replay multiplies the weights along a path of memories") {
  const index_t T = 7;
  const chain model(T);
  const std::vector<char> xs(std::size_t(T), 0);
  const parameters<double> theta(T - 1);
  testing::enumerator all;
  const roulette_replay_options o{.segments = T, .budget = 3, .inclusion = replay_inclusion::constant};
  enumerated<chain> e(model, o, testing::enumerating_chooser(all));
  std::vector<double> mean(6), square(6);
  std::int64_t outcomes = 0;
  do {
    std::vector<double> g(6);
    e.reset({});
    e.advance(theta, xs, g);
    e.finish(theta, g);
    for (std::size_t s = 0; s < 6; ++s) {
      mean[s] += all.probability() * g[s];
      square[s] += all.probability() * g[s] * g[s];
    }
    ++outcomes;
  } while (all.next());
  CHECK(outcomes == 64);
  for (std::size_t s = 0; s < 6; ++s) {
    CHECK(mean[s] == Approx(1).epsilon(1e-13));
    CHECK(square[s] == Approx(std::pow(2, 6 - double(s))).epsilon(1e-13));  // 1 / p a segment
  }
  // by norm, where every adjoint but the last is 0 until a later segment has been sent back
  for (const double x : enumerate_roulette(model, {.segments = T, .budget = 2}, theta, xs).mean)
    CHECK(x == Approx(1).epsilon(1e-9));
}

TEST_CASE("roulette_replay has the errors that its page states") {
  struct line {
    index_t budget;
    double by_norm, by_distance, constant, window_bias;
  };
  const auto check = [](const auto& model, const line& row) {
    const index_t T = 9;
    const task k(model, T);
    const auto exact = run(rematerialise(model, {.segments = T}), k.theta, k.xs);
    const auto window = run(incremental_tbptt(model, {.segments = T, .window = row.budget}), k.theta, k.xs);
    CHECK(std::abs(relative_error(window, exact) - row.window_bias) < 6e-4);
    const double stated[] = {row.by_norm, row.by_distance, row.constant};
    for (const replay_inclusion rule : rules) {
      CAPTURE(row.budget, int(rule));
      const auto r =
          enumerate_roulette(model, {.segments = T, .budget = row.budget, .inclusion = rule}, k.theta, k.xs);
      CHECK(std::abs(std::sqrt(r.covariance_trace / dot(exact, exact)) - stated[int(rule)]) < 6e-4);
    }
  };
  for (const line& row :
       {line{2, .297, .346, .537, .080}, line{4, .135, .132, .302, .066}, line{6, .080, .045, .173, .050}})
    check(make_linear(true), row);
  for (const line& row : {line{2, 1.408, 1.575, 1.758, 1.244}, line{4, .665, .875, .981, .542},
                          line{6, .159, .536, .559, .134}})
    check(make_attention(true), row);
}

TEST_CASE("every mistake in roulette replay shows in its mean") {
  using enum mutants::roulette_mistake;
  const task<attention> k(make_attention(true), 6);
  const auto exact = run(rematerialise(k.model, {.segments = 6}), k.theta, k.xs);
  CHECK(relative_error(mean_of_mutant(k.model, 0.4, none, k.theta, k.xs), exact) < 1e-11);
  for (const auto mistake :
       {no_weight, weighs_losses_only, weighs_theta_only, without_replacement, capped, one_coin_for_all}) {
    CAPTURE(int(mistake));
    CHECK(relative_error(mean_of_mutant(k.model, 0.4, mistake, k.theta, k.xs), exact) > 1e-4);
  }
}

TEST_CASE("a fixed number of replays loses the longer paths") {
  const chain model(7);
  const std::vector<char> xs(7, 0);
  const parameters<double> theta(6);
  const auto mean = mean_of_mutant(model, 4 / 6., mutants::roulette_mistake::without_replacement, theta, xs);
  const std::vector<double> w{0, 0, .3375, .6750, .9, 1};  // through 6, 5, .. 1 of 6 segments, 4 are drawn
  for (std::size_t s = 0; s < 6; ++s) CHECK(std::abs(mean[s] - w[s]) < 1e-12);
}

TEST_CASE("roulette_replay writes without graphs and replays what it keeps, with one graph") {
  for (const bool recurrent : {false, true})
    for (const replay_inclusion rule : rules) {
      const task<attention> k(make_attention(recurrent), 9);
      double kept = 0;
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        tally calls;
        report r;
        replay_counts c;
        run(roulette_replay(counted_memory(k.model, calls), {.segments = 9, .budget = 3, .inclusion = rule}),
            k.theta, k.xs, &r, &c, {seed});
        kept += double(c.rewrites) / 20;
        CHECK(calls.bare_writes == 8);
        CHECK(calls.graphs == c.rewrites);
        CHECK(calls.write_vjps == c.rewrites);
        CHECK(calls.peak == std::min<index_t>(1, c.rewrites));
        CHECK(calls.live.empty());
        CHECK(calls.reads == 9);
        CHECK(calls.read_vjps == 8);
        CHECK(c.writes == 8);
        CHECK(r.steps == c.writes + c.rewrites + c.reads);
        CHECK(r.vjps == c.write_vjps + c.read_vjps);
      }
      CHECK(std::abs(kept - 3) < 1.5);
    }
}

TEST_CASE("roulette_replay keeps every promise of an estimator") {
  const double wrong[2] = {std::nan(""), 0};
  for (const bool recurrent : {false, true}) {
    const task<linear> l(make_linear(recurrent), 20);
    const task<attention> a(make_attention(recurrent), 20);
    example bad = l.xs[0];
    bad.target = wrong;
    for (const replay_inclusion rule : rules) {
      testing::estimator_conformance_options o;
      o.randomness = {std::uint64_t(rule)};
      roulette_replay_options how{.segments = 22, .budget = 6, .inclusion = rule};
      if (rule == replay_inclusion::constant) how.attention_pairs = 2;
      CHECK(testing::estimator_conformance(roulette_replay(l.model, how), l.theta, l.xs, &bad, o) ==
            strings{});
      CHECK(testing::estimator_conformance(roulette_replay(unchecked(a.model), how), a.theta, a.xs, &bad,
                                           o) == strings{});
    }
  }
}

TEST_CASE("roulette_replay has the same bits in batches") {
  const task<attention> k(make_attention(), 12);
  for (const replay_inclusion rule : rules)
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      const auto by = [&](index_t batch) {
        return run(roulette_replay(k.model, {.segments = 12, .budget = 6, .inclusion = rule, .batch = batch}),
                   k.theta, k.xs, nullptr, nullptr, {seed});
      };
      const auto one_by_one = by(1);
      for (const index_t batch : {2, 5, 20}) CHECK(by(batch) == one_by_one);
    }
  CHECK_THROWS_AS(roulette_replay(make_linear(true), {.batch = 2}), error);
}

TEST_CASE("roulette_replay has the exact gradient as its mean where pairs of attention are cut, too") {
  const index_t T = 8;
  const task<attention> k(make_attention(), T);
  const auto exact = run(rematerialise(k.model, {.segments = T}), k.theta, k.xs);
  const auto by = [&](double pairs, std::uint64_t seed, index_t batch = 1) {
    return run(
        roulette_replay(k.model, {.segments = T, .budget = T, .batch = batch, .attention_pairs = pairs}),
        k.theta, k.xs, nullptr, nullptr, {seed});
  };
  CHECK(by(1e9, 1) == exact);
  CHECK(by(1.5, 1) == by(1.5, 1, 3));
  CHECK(by(1.5, 1) != by(1.5, 2));
  const int draws = 4000;
  std::vector<double> mean(exact.size()), squares(exact.size());
  for (int i = 0; i < draws; ++i) {
    const auto g = by(1.5, std::uint64_t(i));
    for (std::size_t j = 0; j < g.size(); ++j) {
      mean[j] += (g[j] - exact[j]) / draws;
      squares[j] += (g[j] - exact[j]) * (g[j] - exact[j]) / draws;
    }
  }
  CHECK(dot(squares, std::vector<double>(squares.size(), 1)) > 0.01 * dot(exact, exact));
  for (std::size_t j = 0; j < exact.size(); ++j)
    CHECK(std::abs(mean[j]) < 4.5 * std::sqrt(squares[j] / draws) + 1e-15);
}

TEST_CASE("roulette_replay replays what is not finite") {
  struct overflowing : linear {
    explicit overflowing(linear f) : linear(std::move(f)) {}
    void read_vjp(std::span<const example> x, index_t t, params<const double> theta,
                  std::span<const double* const> past, double* losses, memory_gradients<numbers<double>> to,
                  view<double> workspace) const {
      linear::read_vjp(x, t, theta, past, losses, to, workspace);
      if (t == 4) to.dpast[1][0] = std::numeric_limits<double>::infinity();
    }
  };
  const task<overflowing> k(overflowing(make_linear()), 6);
  roulette_replay e(k.model, {.segments = 6, .budget = 2});
  std::vector<double> g(std::size_t(k.theta.size()));
  e.reset({});
  e.advance(k.theta, k.xs, g);
  e.finish(k.theta, g);
  for (index_t s = 1; s < 5; ++s) CHECK(e.inclusion()[s] == 1);
  CHECK(std::isnan(g[0] - g[0]));
}

TEST_CASE("roulette_replay spends nothing on a segment whose adjoint is 0") {
  struct deaf : linear {  // to memory 2
    explicit deaf(linear f) : linear(std::move(f)) {}
    void read_vjp(std::span<const example> x, index_t t, params<const double> theta,
                  std::span<const double* const> past, double* losses, memory_gradients<numbers<double>> to,
                  view<double> workspace) const {
      linear::read_vjp(x, t, theta, past, losses, to, workspace);
      if (t > 2) std::fill_n(to.dpast[2], 3, 0.);
    }
  };
  const task<deaf> k(deaf(make_linear()), 6);
  roulette_replay e(k.model, {.segments = 6, .budget = 1});
  std::vector<double> g(std::size_t(k.theta.size()));
  e.reset({});
  e.advance(k.theta, k.xs, g);
  e.finish(k.theta, g);
  double sum = 0;
  for (const double p : e.inclusion()) sum += p;
  CHECK(e.inclusion()[2] == 0);
  CHECK(sum == Approx(1).epsilon(1e-12));
}

TEST_CASE("a stream of roulette_replay names its options to the last digit") {
  const auto text = [](const roulette_replay_options& o) {
    std::string all;
    roulette_replay(make_linear(true), o).visit([&](std::string_view, auto shown) {
      if constexpr (std::is_same_v<decltype(shown), std::string_view>) all += shown;
    });
    return all;
  };
  CHECK(text({.even = 1e-8}) != text({.even = 2e-8}));
  CHECK(text({.attention_pairs = 1e-8}) != text({.attention_pairs = 2e-8}));
  CHECK(text({.even = .5}) == text({.even = .5}));
}

TEST_CASE("roulette_replay refuses options with which a segment could have no chance") {
  using Catch::Matchers::ContainsSubstring;
  const auto refused = [](const roulette_replay_options& o, const char* name) {
    CHECK_THROWS_WITH(roulette_replay(make_linear(true), o), ContainsSubstring(name));
  };
  refused({.segments = 0}, "segments");
  refused({.budget = 0}, "budget");
  refused({.even = 0}, "is 0.0");
  refused({.even = -0.5}, "even");
  refused({.even = 1.5}, "even");
  refused({.even = std::nan("")}, "even");
  refused({.attention_pairs = -1}, "attention_pairs");
}
