#include "unroll/estimate/preuoro.hpp"

#include <cmath>
#include <limits>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_columns.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

template <class F>
testing::enumeration exact(const F& f, params<const double> theta, std::span<const typename F::input> xs,
                           preuoro_options o) {
  testing::enumerator all;
  return testing::enumerate(all, preuoro(f, o, testing::enumerating_chooser(all)), theta, xs);
}

/// A cell without its masks, of which nobody can know that its rows move their own unit alone.
template <class F>
struct unmasked {
  using scalar = typename F::scalar;
  using input = typename F::input;
  F f;
  dims size() const { return f.size(); }
  void step(const input& x, const edge<scalar>& e) const { f.step(x, e); }
  void vjp(const input& x, const const_edge<scalar>& e, dstate<const scalar> dnext, scalar dloss,
           dstate<scalar> ds, dparams<scalar> dtheta) const {
    f.vjp(x, e, dnext, dloss, ds, dtheta);
  }
  void jvp(const input& x, const const_edge<scalar>& e, params_tangent<const scalar> dtheta,
           state_tangent<const scalar> ds, state_tangent<scalar> dnext, scalar* dloss) const {
    f.jvp(x, e, dtheta, ds, dnext, dloss);
  }
  std::vector<weight_matrix> weight_matrices() const { return f.weight_matrices(); }
  void factors(const input& x, const const_edge<scalar>& e, view<scalar> a, view<scalar> d) const {
    f.factors(x, e, a, d);
  }
};

/// A hook that lies: row 1 moves unit 0 as well.
struct crossed : cells::elman<double> {
  using cells::elman<double>::elman;
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    cells::elman<double>::immediate_mask(mask, p0, p1);
    for (index_t p = p0; p < p1; ++p) mask[(p - p0) * size().state] = 1;
  }
};

}  // namespace

TEST_CASE("preuoro draws the same whether D is kept by units or whole, in less memory by units") {
  const auto same = [](const auto& cell) {
    const support::random_task t(cell, 7, key{3});
    for (const double memory : {0., .8}) {
      std::array<gradient<double>, 2> g{gradient<double>(index_t(t.theta.size())),
                                        gradient<double>(index_t(t.theta.size()))};
      std::array<std::size_t, 2> bytes{};
      const auto run = [&](auto est, std::size_t k) {
        est.reset(key{5});
        bytes[k] = est.advance(t.theta, t.xs, g[k]).bytes;
      };
      run(preuoro(t.cell, {.memory = memory}), 0);
      run(preuoro(unmasked<std::decay_t<decltype(cell)>>{t.cell}, {.memory = memory}), 1);
      CHECK(golden::relative_error(g[0], g[1]) < 1e-12);
      index_t rows = 0;
      for (const weight_matrix& w : cell.weight_matrices()) rows += w.rows;
      const index_t n = cell.size().state / cell.size().lanes;  // all but the numbers of each unit are saved
      CHECK(bytes[1] - bytes[0] ==
            sizeof(double) * std::size_t(cell.size().lanes * rows * (n - n / cell.units())));
    }
  };
  same(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}));
  same(cells::lstm<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}));
  same(cells::gru<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}));
  same(cells::lru<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}));

  const crossed whole({.in = 2, .hidden = 3, .out = 2});
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2}), 2, key{3});
  gradient<double> g(index_t(t.theta.size()));
  preuoro by_units(t.cell);
  preuoro all(whole);
  const std::size_t kept = by_units.advance(t.theta, t.xs, g).bytes;
  CHECK(all.advance(t.theta, t.xs, g).bytes - kept == sizeof(double) * 3 * 2);
}

TEST_CASE("preuoro in the paper's timing has the golden mean, covariances and draw") {
  const auto theta = golden::columns_theta();
  const auto xs = golden::delayed_inputs();
  const golden::golden_columns f;
  for (const bool balance : {true, false}) {
    const auto r = exact(f, theta, xs, {.epsilon = 0, .balance = balance});
    CHECK(golden::relative_error(r.mean, golden::by_columns(golden::gradient)) < 1e-11);
    CHECK(std::abs(r.covariance_trace - (balance ? 5.709790555357 : 8.823160464786)) < 1e-9);
  }
  const auto r = exact(f, theta, xs, {.epsilon = .5});
  CHECK(golden::relative_error(r.mean, golden::by_columns(golden::gradient)) < 1e-11);

  const std::array<double, 8> rows{.196396483696,  -.011505952935, .157673542235, .568606198001,
                                   -.119143777201, .088758659430,  .099835479414, -.311097176352};
  for (const double flip : {1., -1.}) {  // an outer product is even in its signs
    preuoro est(f, {.epsilon = 0}, golden::scripted_signs{flip});
    gradient<double> g(8);
    est.advance(theta, xs, g);
    CHECK(golden::relative_error(g, golden::by_columns(rows)) < 1e-11);
  }
}

TEST_CASE("preuoro is unbiased on cells of one matrix and of several, in lanes with signs of their own") {
  const auto unbiased = [](const auto& cell, index_t steps) {
    const support::random_task t(cell, steps, key{3});
    const auto r = exact(t.cell, t.theta, t.xs, {});
    CHECK(golden::relative_error(r.mean, testing::backward_gradient(t.cell, t.theta, t.xs)) < 1e-11);
    CHECK(r.covariance_trace > 1e-9);
    return r.covariance_trace;
  };
  // 2^(rows x steps) outcomes
  unbiased(cells::elman<double>({.in = 2, .hidden = 3, .out = 2}), 4);
  unbiased(cells::lstm<double>({.in = 1, .hidden = 1, .out = 1}), 3);
  unbiased(cells::gru<double>({.in = 1, .hidden = 1, .out = 1}), 2);
  unbiased(cells::lru<double>({.in = 1, .hidden = 1, .out = 1}), 3);

  const cells::elman<double> both({.in = 1, .hidden = 2, .out = 0, .lanes = 2});
  const support::random_task t(both, 3, key{3});
  double sum = 0;
  for (index_t l = 0; l < 2; ++l) {
    std::vector<cells::example<double>> own;
    for (const auto& x : t.xs) own.push_back(both.lanes_from(x, l));
    sum += exact(both.with_lanes(1), t.theta, own, {}).covariance_trace;
  }
  CHECK(unbiased(both, 3) == Approx(sum).epsilon(1e-10));
}

TEST_CASE("preuoro with a Q that learns is unbiased, and quieter where losses owe much to few rows") {
  support::random_task t(cells::elman<double>({.in = 1, .hidden = 2, .out = 1}), 5, key{3});
  const std::array<double, 4> apart{.8, 0, 0, .8};
  std::copy(apart.begin(), apart.end(), t.theta.begin());
  t.theta[t.theta.size() - 3] = 3;  // the readout: of one unit above all
  t.theta[t.theta.size() - 2] = .03;
  const auto expected = testing::backward_gradient(t.cell, t.theta, t.xs);
  std::array<double, 2> traces{};
  for (const bool learns : {false, true}) {
    const auto r = exact(t.cell, t.theta, t.xs, {.memory = learns ? .5 : 0, .floor = 1e-3});
    CHECK(golden::relative_error(r.mean, expected) < 1e-11);
    traces[learns] = r.covariance_trace;
  }
  CAPTURE(traces[0], traces[1]);
  CHECK(traces[1] < .9 * traces[0]);
  const auto golden_task =
      exact(golden::golden_columns{}, golden::columns_theta(), golden::delayed_inputs(), {.memory = .5});
  CHECK(golden::relative_error(golden_task.mean, golden::by_columns(golden::gradient)) < 1e-11);
  const support::random_task two(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 15,
                                 key{3});
  CHECK(testing::estimator_conformance(preuoro(two.cell, {.memory = .9}), two.theta, two.xs, &two.bad) ==
        std::vector<std::string>{});
  for (const double wrong : {-.1, 1., std::nan("")})
    CHECK_THROWS_WITH(preuoro(two.cell, {.memory = wrong}), ContainsSubstring("preuoro: memory"));
  for (const double wrong : {0., -1., std::nan("")})
    CHECK_THROWS_WITH(preuoro(two.cell, {.floor = wrong}), ContainsSubstring("preuoro: floor"));
}

TEST_CASE("preuoro with a whole Q is unbiased, and quieter where losses owe much to one direction") {
  support::random_task t(cells::elman<double>({.in = 1, .hidden = 2, .out = 1}), 5, key{3});
  const std::array<double, 4> apart{.8, 0, 0, .8};
  std::copy(apart.begin(), apart.end(), t.theta.begin());
  t.theta[t.theta.size() - 3] = 2;  // the readout: of the sum of both units, which no diagonal Q can tell
  t.theta[t.theta.size() - 2] = 2;
  const auto expected = testing::backward_gradient(t.cell, t.theta, t.xs);
  const auto trace = [&](preuoro_options o) {
    const auto r = exact(t.cell, t.theta, t.xs, o);
    CHECK(golden::relative_error(r.mean, expected) < 1e-11);
    return r.covariance_trace;
  };
  const double none = trace({}), diagonal = trace({.memory = .5});
  const double whole = trace({.memory = .5, .renew = 1}), stale = trace({.memory = .5, .renew = 2});
  CAPTURE(none, diagonal, whole, stale);
  CHECK((stale > whole && stale < none));

  for (const auto& [floor, golden_trace] : {std::pair(1., 5.923), std::pair(1e-3, 18.734)}) {
    const auto r = exact(golden::golden_columns{}, golden::columns_theta(), golden::delayed_inputs(),
                         {.epsilon = 0, .memory = .5, .floor = floor, .renew = 1});
    CHECK(golden::relative_error(r.mean, golden::by_columns(golden::gradient)) < 1e-11);
    CHECK(std::abs(r.covariance_trace - golden_trace) < 1e-3);  // 5.710 without a Q: it does not help here
  }
  const support::random_task several(cells::gru<double>({.in = 1, .hidden = 1, .out = 1}), 2, key{3});
  const auto r = exact(several.cell, several.theta, several.xs, {.memory = .5, .renew = 1});
  CHECK(golden::relative_error(r.mean, testing::backward_gradient(several.cell, several.theta, several.xs)) <
        1e-11);

  const support::random_task two(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 15,
                                 key{3});
  CHECK(testing::estimator_conformance(preuoro(two.cell, {.memory = .9, .renew = 4}), two.theta, two.xs,
                                       &two.bad) == std::vector<std::string>{});
  CHECK_THROWS_WITH(preuoro(two.cell, {.memory = .9, .renew = -1}), ContainsSubstring("preuoro: renew"));
  CHECK_THROWS_WITH(preuoro(two.cell, {.renew = 4}),
                    ContainsSubstring("preuoro: renew: is 4, but memory is 0"));
}

TEST_CASE("a whole Q of losses that owe to the rows apart is the diagonal one") {
  influence::row_mixing<double> diagonal(2, 3, .9, 1e-3, 0), whole(2, 3, .9, 1e-3, 2);
  const std::array<double, 3> owed{.5, -2, .01};
  for (int k = 0; k < 3; ++k)
    for (index_t l = 0; l < 2; ++l) {
      std::array<double, 3> row{};
      row[std::size_t(k)] = owed[std::size_t(k)] * double(l + 1);
      diagonal.remember(l, row.data());
      whole.remember(l, row.data());
    }
  for (index_t l = 0; l < 2; ++l) {
    std::array<double, 3> nu{1, -1, 1}, other = nu;
    const double* shaped = diagonal.shape(l, 0, nu.data());
    const double* also = whole.shape(l, 0, other.data());
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(also[i] == Approx(shaped[i]).epsilon(1e-12));
      CHECK(other[i] == Approx(nu[i]).epsilon(1e-12));
      CHECK(other[i] * also[i] == Approx(1).epsilon(1e-12));
    }
  }
}

TEST_CASE("a Q heeds large losses, and goes on from before those whose squares are not finite") {
  for (const index_t renew : {0, 1}) {
    const auto shaped = [&](std::vector<std::array<double, 2>> owed) {
      influence::row_mixing<double> q(1, 2, .5, 1e-3, renew);
      for (const auto& r : owed) q.remember(0, r.data());
      std::array<double, 2> nu{1, -1};
      const double* over = q.shape(0, 0, nu.data());
      CHECK(over[0] * nu[0] == Approx(1).epsilon(1e-12));
      CHECK(over[1] * nu[1] == Approx(1).epsilon(1e-12));
      return std::array{over[0], over[1]};
    };
    const auto expected = shaped({{3, 0}, {0, -4}});
    for (const double wrong : {std::numeric_limits<double>::infinity(), std::nan(""), 1e200})
      CHECK(shaped({{3, 0}, {1, wrong}, {0, -4}}) == expected);
    const auto scaled = shaped({{3e100, 0}, {0, -4e100}});
    CHECK(scaled[0] == Approx(expected[0]).epsilon(1e-12));
    CHECK(scaled[1] == Approx(expected[1]).epsilon(1e-12));
  }
}

TEST_CASE("preuoro costs a step, a vjp and a jvp a step, and keeps the promises of every estimator") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 15,
                               key{3});
  call_counts calls;
  preuoro est(counted(t.cell, calls));
  gradient<double> g(index_t(t.theta.size()));
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK(calls == call_counts{.steps = 15, .vjps = 15, .jvps = 15});
  CHECK((r.steps == 15 && r.vjps == 15 && r.jvps == 15));
  CHECK(testing::estimator_conformance(preuoro(t.cell), t.theta, t.xs, &t.bad) == std::vector<std::string>{});
  CHECK(testing::system_conformance(golden::golden_columns{}, golden::columns_theta(),
                                    golden::delayed_inputs()) == std::vector<std::string>{});
  CHECK_THROWS_WITH(preuoro(t.cell, {.epsilon = -1}), ContainsSubstring("epsilon"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(preuoro(unknown), ContainsSubstring("factors"));
}
