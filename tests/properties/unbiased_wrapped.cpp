#include "tests/properties/unbiased.hpp"
#include "tests/support/memory_task.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/lane_parallel.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/proportional_replay.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/estimate/reservoir_tbptt.hpp"
#include "unroll/estimate/roulette_replay.hpp"
#include "unroll/estimate/uoro.hpp"

// Estimators inside others: every outcome of lanes dealt out and of means of copies.

namespace {

using namespace unroll;
using support::examine_bias;
using support::tiny_tasks;

/// s'_l = theta s_l + 1 with the loss sum_l y_l s'_l; the lanes differ in y only.
struct weighted_lanes {
  using scalar = double;
  using input = const double*;  // y
  index_t lanes = 2;

  dims size() const { return {1, lanes, 0, 0, lanes}; }
  void step(input y, const edge<double>& e) const {
    *e.loss = 0;
    for (index_t l = 0; l < lanes; ++l) {
      e.next[l] = e.theta[0] * e.s[l] + 1;
      *e.loss += y[l] * e.next[l];
    }
  }
  void vjp(input y, const const_edge<double>& e, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> g) const {
    for (index_t l = 0; l < lanes; ++l) {
      const double d = dloss * y[l] + (dnext.empty() ? 0 : dnext[l]);
      if (!ds.empty()) ds[l] += d * e.theta[0];
      if (!g.empty()) g[0] += d * e.s[l];
    }
  }
  weighted_lanes with_lanes(index_t n) const { return {n}; }
  input lanes_from(input y, index_t first) const { return y + first; }
};

constexpr double opposite[] = {1, -1}, equal[] = {1, 1};
const std::vector<double> rate{.8};

testing::enumeration of_artbp(const double* y, index_t lanes, std::size_t steps) {
  testing::enumerator all;
  const std::vector<const double*> xs(steps, y);
  return testing::enumerate(
      all, artbp(weighted_lanes{lanes}, fixed_truncation(4), {.block = 2}, testing::enumerating_chooser(all)),
      rate, xs);
}

/// `lanes` lanes of elman, each in a group of its own.
struct dealt_task {
  index_t lanes, hidden;
  std::size_t steps;
  cells::elman<double> cell{{.in = 1, .hidden = hidden, .out = 0, .lanes = lanes}};
  parameters<double> theta{cell.size().params};
  std::vector<double> x = std::vector<double>(steps * std::size_t(lanes)),
                      y = std::vector<double>(steps * std::size_t(lanes * hidden));
  std::vector<cells::example<double>> xs;

  dealt_task(index_t l, index_t h, std::size_t t) : lanes(l), hidden(h), steps(t) {
    cell.init(theta, key{4});
    draw_normals(key{5}, 0, view<double>(x));
    draw_normals(key{6}, 0, view<double>(y));
    for (std::size_t i = 0; i < steps; ++i)
      xs.push_back({.x = &x[i * std::size_t(lanes)], .target = &y[i * std::size_t(lanes * hidden)]});
  }
  /// Dealt out: the mean is the gradient, and the variances of the groups, which each draw alone, add up.
  template <class Make>
  double examine(Make&& make) const {
    testing::enumerator all;
    const testing::enumerating_chooser choose(all);
    const lane_parallel dealt(cell, {.groups = lanes, .threads = 1},
                              [&](const auto& part) { return make(part, choose); });
    const auto r = testing::enumerate(all, dealt, theta, xs);
    const auto exact = testing::backward_gradient(cell, theta, xs);
    CHECK(testing::relative_error(r.mean, exact) < 1e-11);
    CHECK(std::abs(r.probability - 1) < 1e-12);
    double sum = 0;
    const auto one = cell.with_lanes(1);
    for (index_t l = 0; l < lanes; ++l) {
      std::vector<cells::example<double>> part;
      for (const auto& x_t : xs) part.push_back(cell.lanes_from(x_t, l));
      testing::enumerator alone;
      sum += testing::enumerate(alone, make(one, testing::enumerating_chooser(alone)), theta, part)
                 .covariance_trace;
    }
    CHECK(sum > 1e-6);
    CHECK(std::abs(r.covariance_trace - sum) < 1e-11 * sum);
    return r.covariance_trace;
  }
};

constexpr auto make_uoro = [](const auto& f, const auto& c) { return uoro(f, {}, c); };
constexpr auto make_nobacktrack = [](const auto& f, const auto& c) { return nobacktrack(f, {}, c); };
constexpr auto make_artbp = [](const auto& f, const auto& c) {
  return artbp(f, fixed_truncation(3), {.slots = 2, .block = 2}, c);
};

}  // namespace

TEST_CASE("lanes that are dealt out are unbiased together, and their variances add up") {
  const dealt_task two(2, 2, 3), three(3, 1, 4), cut(2, 2, 5);
  for (const dealt_task* t : {&two, &three}) {
    const double dealt = t->examine(make_uoro);
    t->examine(make_nobacktrack);
    testing::enumerator all;  // uoro draws for each lane apart in any case
    const auto together =
        testing::enumerate(all, make_uoro(t->cell, testing::enumerating_chooser(all)), t->theta, t->xs);
    CHECK(std::abs(together.covariance_trace - dealt) < 1e-10 * dealt);
  }
  cut.examine(make_artbp);
}

TEST_CASE("antithetic pairs of estimators whose lanes are dealt out are unbiased and cancel noise") {
  const dealt_task task(2, 2, 3);
  const auto exact = testing::backward_gradient(task.cell, task.theta, task.xs);
  const auto spread = [&](index_t copies, bool antithetic) {
    testing::enumerator all;
    const testing::enumerating_chooser choose(all);
    const lane_parallel dealt(task.cell, {.groups = 2, .threads = 1},
                              [&](const auto& part) { return uoro(part, {}, choose); });
    const auto r = testing::enumerate(all, mean_of(dealt, copies, antithetic), task.theta, task.xs);
    CHECK(testing::relative_error(r.mean, exact) < 1e-11);
    return r.covariance_trace;
  };
  const double one = spread(1, false), pair = spread(2, true);
  REQUIRE(one > 1e-3);
  CHECK(pair < 0.99 * one);  // equal where the second copy is not mirrored
}

TEST_CASE("sharing cuts takes all noise from lanes that cancel and doubles that of lanes that agree") {
  for (const std::size_t steps : {6u, 12u}) {
    const double one = of_artbp(equal, 1, steps).covariance_trace;
    CHECK(of_artbp(opposite, 2, steps).covariance_trace < 1e-12 * one);
    CHECK(std::abs(of_artbp(equal, 2, steps).covariance_trace - 4 * one) < 1e-11 * one);
    if (steps == 12) {
      CHECK(one == Approx(1923.613313).epsilon(1e-9));
      continue;  // 2^24 outcomes dealt out
    }
    for (const double* y : {opposite, equal}) {
      const std::vector<const double*> xs(steps, y);
      testing::enumerator all;
      const testing::enumerating_chooser choose(all);
      const lane_parallel dealt(weighted_lanes{}, {.groups = 2, .threads = 1}, [&](const auto& part) {
        return artbp(part, fixed_truncation(4), {.block = 2}, choose);
      });
      const auto r = testing::enumerate(all, dealt, rate, xs);
      CHECK(std::abs(r.covariance_trace - 2 * one) < 1e-11 * one);
      CHECK(std::abs(r.mean[0] - of_artbp(y, 2, steps).mean[0]) < 1e-11 * std::sqrt(one));
    }
  }
}

TEST_CASE("the variance of artbp exists for every length and explodes where the state forgets too slowly") {
  struct leak {  // s' = rho s + theta, loss s'
    using scalar = double;
    using input = char;
    double rho = 0;
    dims size() const { return {1, 1, 0, 0, 1}; }
    void step(char, const edge<double>& e) const { *e.loss = e.next[0] = rho * e.s[0] + e.theta[0]; }
    void vjp(char, const const_edge<double>&, dstate<const double> dnext, double dloss, dstate<double> ds,
             dparams<double> g) const {
      const double d = dloss + (dnext.empty() ? 0 : dnext[0]);
      if (!ds.empty()) ds[0] += rho * d;
      if (!g.empty()) g[0] += d;
    }
  };
  const auto variance = [](double rho, std::size_t steps) {
    testing::enumerator all;
    const std::vector<char> xs(steps);
    return testing::enumerate(
               all, artbp(leak{rho}, fixed_truncation(4), {.block = 2}, testing::enumerating_chooser(all)),
               rate, xs)
        .covariance_trace;
  };
  CHECK(variance(.95, 4) == Approx(10.0425).epsilon(1e-4));  // rho^2 = .9025 > 1 - c = .75
  CHECK(variance(.95, 8) == Approx(324.061).epsilon(1e-4));
  CHECK(variance(.95, 12) == Approx(2553.55).epsilon(1e-4));
  // what one more loss adds: it settles for rho = .5, .25 < .75, and grows without end for .95
  const auto growth = [&](double rho) {
    const double at_10 = variance(rho, 10), at_11 = variance(rho, 11);
    return (variance(rho, 12) - at_11) / (at_11 - at_10);
  };
  CHECK(growth(.5) < 1.02);
  CHECK(growth(.95) > 1.4);
}

TEST_CASE("a mean of two nobacktrack is unbiased and halves the variance, antithetic pairs are unbiased") {
  for (const auto& task : tiny_tasks(3, 4)) {
    const double one = examine_bias(task, make_nobacktrack);
    const double two =
        examine_bias(task, [](const auto& f, const auto& c) { return mean_of(make_nobacktrack(f, c), 2); });
    CHECK(std::abs(two - one / 2) <= 1e-10 * (1 + one));
    examine_bias(task, [](const auto& f, const auto& c) { return mean_of(make_nobacktrack(f, c), 2, true); });
  }
}

TEST_CASE("antithetic pairs of artbp are unbiased") {
  for (const auto& task : tiny_tasks(4, 12))
    for (const double mean : {1.5, 3.})
      examine_bias(task, [&](const auto& f, const auto& c) {
        return mean_of(artbp(f, fixed_truncation(mean), {.slots = 2, .block = 2}, c), 2, true);
      });
  for (const auto& task : support::any_tasks<double>(6, 1, 1, 1, 78))
    examine_bias(task, [&](const auto& f, const auto& c) {
      return mean_of(artbp(f, polynomial_truncation(3), {.slots = 3, .block = 4}, c), 2, true);
    });
}

TEST_CASE("means of sampled replays are unbiased, and independent copies halve the variance") {
  const auto examine = [](const auto& k, const auto& exact, const auto& make) {
    const auto moments = [&](index_t copies, bool antithetic) {
      testing::enumerator all;
      const auto r = testing::enumerate(
          all, mean_of(make(k.model, testing::enumerating_chooser(all)), copies, antithetic), k.theta, k.xs);
      CHECK(memory_task::relative_error(r.mean, exact) < 1e-11);
      CHECK(std::abs(r.probability - 1) < 1e-12);
      return r;
    };
    const auto one = moments(1, false), two = moments(2, false), pair = moments(2, true);
    CHECK(one.covariance_trace > 1e-6);
    CHECK(std::abs(two.covariance_trace - one.covariance_trace / 2) < 1e-11 * one.covariance_trace);
    CHECK(pair.covariance_trace <= (1 + 1e-12) * one.covariance_trace);
  };
  const auto both = [&](const auto& model) {
    const memory_task::task k(model, 5);
    const auto exact = memory_task::run(rematerialise(k.model, {.segments = 5}), k.theta, k.xs);
    for (const index_t n : {1, 2}) {
      examine(k, exact, [&](const auto& m, const auto& c) {
        return reservoir_tbptt(m, {.segments = 5, .size = n}, c);
      });
      examine(k, exact, [&](const auto& m, const auto& c) {
        return proportional_replay(m, {.segments = 5, .budget = n}, c);
      });
      examine(k, exact, [&](const auto& m, const auto& c) {
        return roulette_replay(m, {.segments = 5, .budget = n}, c);
      });
    }
  };
  both(memory_task::make_linear());
  both(memory_task::make_attention());
}
