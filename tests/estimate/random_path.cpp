#include "unroll/estimate/random_path.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_columns.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/cells/min_gru.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

template <class F>
testing::enumeration exact(const F& f, params<const double> theta, std::span<const typename F::input> xs,
                           double p) {
  testing::enumerator all;
  return testing::enumerate(all, random_path(f, {.p = p}, testing::enumerating_chooser(all)), theta, xs);
}

template <class E, class Theta, class Xs>
gradient<double> whole(E est, const Theta& theta, const Xs& xs) {
  gradient<double> g(est.system().size().params);
  est.reset(key{3});
  est.advance(theta, xs, g);
  est.finish(theta, g);
  return g;
}

/// s' = J s + x theta, all entries of J the same: as much of a system as random_paths asks for.
struct alike {
  using scalar = double;
  using input = double;
  index_t n;
  double entry;
  dims size() const { return {n, n, 0, 0, 1}; }
  std::vector<weight_matrix> weight_matrices() const { return {{0, n, 1, n}}; }
  void jacobian(double, const const_edge<double>&, view<double> j) const {
    std::fill(j.begin(), j.end(), entry);
  }
  void factors(double x, const const_edge<double>&, view<double> a, view<double> d) const {
    a[0] = x;
    for (index_t k = 0; k < n * n; ++k) d[k] = k % (n + 1) == 0;
  }
};
// Variance of the first number of a column of M behind each step, where theta moves the state in the first
// step only: V <- J V J' + (1 / p - 1) diag(J diag(V + mean mean') J').
std::vector<double> variances(const alike& f, double p, int steps) {
  const auto n = std::size_t(f.n);
  std::vector<double> result, v(n * n), moved(n * n), mean(n);
  mean[0] = 1;  // the column of theta[0]
  for (int t = 0; t < steps; ++t) {
    double sum = 0, all = 0, noise = 0;
    for (const double x : v) all += x;
    for (std::size_t i = 0; i < n; ++i) noise += (1 / p - 1) * (v[i * n + i] + mean[i] * mean[i]);
    for (const double m : mean) sum += m;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t k = 0; k < n; ++k) moved[i * n + k] = f.entry * f.entry * (all + (i == k ? noise : 0));
    std::fill(mean.begin(), mean.end(), f.entry * sum);
    v.swap(moved);
    result.push_back(v[0]);
  }
  return result;
}

}  // namespace

TEST_CASE(
    "the variance of random_path moves as its page says, which the squares of entries over p do not bound") {
  const alike f{2, .45};
  testing::enumerator all;
  testing::enumerating_chooser draws(all);
  const auto r = testing::enumerate_outcomes(all, 2, [&](view<double> g) {
    influence::random_paths<alike> m(f, .4);
    std::array<double, 2> q{};
    report spent;
    std::fill(g.begin(), g.end(), 0.);
    for (int t = 0; t < 4; ++t) {
      q[0] = t == 3;
      m.propagate(f, t == 0, {}, dstate<const double>(q.data(), 2), dparams<double>(g.data(), 2), draws, t,
                  spent);
    }
  });
  CHECK(r.mean[0] == Approx(.45 * .9).epsilon(1e-12));
  CHECK(r.covariance_trace == Approx(2 * variances(f, .4, 2).back()).epsilon(1e-12));

  const alike coherent{4, .24};  // J has the norm .96, and J_ij^2 / p .768
  const auto v = variances(coherent, .3, 200);
  CHECK(v[199] / v[198] == Approx(1.1305).epsilon(1e-4));
}

TEST_CASE("random_path in the paper's timing has the golden mean and covariance") {
  // four steps, the first without a draw and the last one for a loss that is read in front of it
  const auto r = exact(golden::golden_columns{}, golden::columns_theta(), golden::delayed_inputs(), .5);
  CHECK(r.outcomes == 4096);
  CHECK(golden::relative_error(r.mean, golden::by_columns(golden::gradient)) < 1e-12);
  CHECK(std::abs(r.covariance_trace - .446144588353) < 1e-11);
}

TEST_CASE("paths that are not divided by their probability count too little") {
  // M <- (J o B) M + F for every B of the two steps that have a past and a loss behind them
  const golden::golden_columns f;
  const auto theta = golden::columns_theta();
  const auto xs = golden::delayed_inputs();
  std::vector<std::vector<double>> outcomes;
  std::vector<double> mean(8);
  for (unsigned bits = 0; bits < 256; ++bits) {
    std::array<double, 2> s{.3, .3}, next{}, tape{}, q{};
    std::array<double, 4> j{};
    std::array<double, 16> m{}, moved{};
    std::vector<double> g(8);
    for (std::size_t t = 0; t < xs.size(); ++t) {
      const auto& x = xs[t];
      double loss = 0;
      const edge<double> e{params<const double>(theta.data(), 8),
                           state<const double>(s.data(), 2),
                           state<double>(next.data(), 2),
                           unroll::tape<double>(tape.data(), 2),
                           &loss,
                           {},
                           0};
      f.step(x, e);
      q = {};
      f.vjp(x, e, {}, 1, dstate<double>(q.data(), 2), {});
      f.jacobian(x, e, view<double>(j.data(), 4));
      moved = {};
      f.immediate(x, e, view<double>(moved.data(), 16), 0, 8);
      for (std::size_t p = 0; p < 8; ++p)
        for (std::size_t i = 0; i < 2; ++i) {
          g[p] += q[i] * m[2 * p + i];
          for (std::size_t k = 0; k < 2; ++k)
            if (t == 0 || t == 3 || (bits >> (4 * (t - 1) + 2 * k + i) & 1u) != 0)
              moved[2 * p + i] += j[2 * k + i] * m[2 * p + k];
        }
      m = moved;
      s = next;
    }
    for (std::size_t p = 0; p < 8; ++p) mean[p] += g[p] / 256;
    outcomes.push_back(g);
  }
  const auto exact_gradient = golden::by_columns(golden::gradient);
  CHECK(std::abs(golden::relative_error(mean, exact_gradient) - .218796) < 1e-6);
  CHECK(std::abs(golden::cosine(mean, exact_gradient) - .994142) < 1e-6);
  double trace = 0;
  for (const auto& g : outcomes)
    for (std::size_t p = 0; p < 8; ++p) trace += (g[p] - mean[p]) * (g[p] - mean[p]) / 256;
  CHECK(std::abs(trace - .087322) < 1e-6);
}

TEST_CASE("random_path is unbiased whatever its probability, and in lanes with draws of their own") {
  const auto unbiased = [](const auto& cell, index_t steps, double p) {
    const support::random_task t(cell, steps, key{3});
    const auto r = exact(t.cell, t.theta, t.xs, p);
    CHECK(golden::relative_error(r.mean, testing::backward_gradient(t.cell, t.theta, t.xs)) < 1e-11);
    CHECK(r.covariance_trace > 1e-9);
    return r;
  };
  unbiased(cells::lstm<double>({.in = 1, .hidden = 1, .out = 1}), 4, .1);
  unbiased(cells::elman<double>({.in = 1, .hidden = 2, .out = 1}), 3, .8);
  // units apart: what is zero in the Jacobian draws nothing
  CHECK(unbiased(cells::min_gru<double>({.in = 1, .hidden = 2, .out = 1}), 4, .7).outcomes == 64);
  const cells::elman<double> both({.in = 1, .hidden = 1, .out = 0, .lanes = 2});
  const support::random_task t(both, 4, key{3});
  double sum = 0;
  for (index_t l = 0; l < 2; ++l) {
    std::vector<cells::example<double>> own;
    for (const auto& x : t.xs) own.push_back(both.lanes_from(x, l));
    sum += exact(both.with_lanes(1), t.theta, own, .3).covariance_trace;
  }
  CHECK(unbiased(both, 4, .3).covariance_trace == Approx(sum).epsilon(1e-10));
}

TEST_CASE("random_path that keeps every path is rtrl, also where parameters do not fit into one tile") {
  const auto check = [](const auto& cell) {
    const support::random_task t(cell, 9, key{4});
    CHECK(golden::relative_error(whole(random_path(t.cell, {.p = 1}), t.theta, t.xs),
                                 whole(rtrl(t.cell), t.theta, t.xs)) < 1e-12);
  };
  check(cells::elman<double>({.in = 2, .hidden = 23, .out = 3}));
  check(cells::lstm<double>({.in = 2, .hidden = 9, .out = 2, .lanes = 2}));
}

TEST_CASE("random_path costs a step and a vjp a step and keeps the promises of every estimator") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 15,
                               key{3});
  call_counts calls;
  random_path est(counted(t.cell, calls));
  gradient<double> g(index_t(t.theta.size()));
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK((calls.steps == 15 && calls.vjps == 15 && calls.jvps == 0 && calls.jacobians == 15));
  CHECK((r.steps == 15 && r.vjps == 15 && r.jvps == 0));
  CHECK(testing::estimator_conformance(random_path(t.cell), t.theta, t.xs, &t.bad) ==
        std::vector<std::string>{});
  for (const double p : {0., -.5, 1.5, std::nan("")})
    CHECK_THROWS_WITH(random_path(t.cell, {.p = p}), ContainsSubstring("must lie in (0, 1]"));
  CHECK_THROWS_WITH(random_path(t.cell, {.p = 0}), ContainsSubstring("random_path: p: is 0"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(random_path(unknown), ContainsSubstring("factors"));
}
