#include "unroll/estimate/adaptive_tbptt.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "tests/support/gradient_of.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using support::gradient_of;

/// s' = rho s + theta, loss s': a loss owes rho^k to theta at lag k. The input is rho.
struct adding_up {
  using scalar = double;
  using input = double;
  dims size() const { return {1, 1, 0, 0, 1}; }
  void step(double rho, const edge<double>& e) const {
    e.next[0] = rho * e.s[0] + e.theta[0];
    *e.loss = e.next[0];
  }
  void vjp(double rho, const const_edge<double>&, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + dloss;
    if (!ds.empty()) ds[0] += rho * d;
    if (!dtheta.empty()) dtheta[0] += d;
  }
};
/// s' = rho R s + (theta, 0) with R a rotation by the input, loss s'[0]: theta is owed rho^k cos(k x) at lag
/// k.
struct turning {
  using scalar = double;
  using input = double;
  double rho = .9;
  dims size() const { return {1, 2, 0, 0, 1}; }
  void step(double x, const edge<double>& e) const {
    const double c = rho * std::cos(x), s = rho * std::sin(x);
    e.next[0] = c * e.s[0] - s * e.s[1] + e.theta[0];
    e.next[1] = s * e.s[0] + c * e.s[1];
    *e.loss = e.next[0];
  }
  void vjp(double x, const const_edge<double>&, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    const double c = rho * std::cos(x), s = rho * std::sin(x);
    const double d0 = (dnext.empty() ? 0 : dnext[0]) + dloss, d1 = dnext.empty() ? 0 : dnext[1];
    if (!ds.empty()) ds[0] += c * d0 + s * d1;
    if (!ds.empty()) ds[1] += c * d1 - s * d0;
    if (!dtheta.empty()) dtheta[0] += d0;
  }
};
const std::vector<double> one{1};

adaptive_tbptt<adding_up> after(double rho, adaptive_tbptt_options o, std::size_t steps = 200) {
  adaptive_tbptt est(adding_up{}, o);
  gradient<double> g(1);
  est.advance(one, std::vector<double>(steps, rho), g);
  return est;
}

}  // namespace

TEST_CASE("adaptive_tbptt chooses the lags of the closed form where what is owed decays by one factor") {
  // delta(K) = rho^(K+1) / (1 - 2 rho^(K+1))
  for (const double fitted : {1., .9, .5})
    for (const auto& [tolerance, lag] : {std::pair(.1, 23), std::pair(.5, 13), std::pair(.9, 10)}) {
      const auto est = after(.9, {.tolerance = tolerance, .longest = 100, .fitted = fitted});
      CHECK(est.steps() == lag + 1);
      CHECK(est.certified());
      const double left = std::pow(.9, lag + 1);
      CHECK(est.relative_bias() == Approx(left / (1 - 2 * left)).epsilon(1e-9));
    }
  CHECK(after(.9, {.tolerance = .1, .shortest = 40, .longest = 100}).steps() == 40);
}

TEST_CASE("adaptive_tbptt certifies nothing where nothing decays, or too little within its reach") {
  for (const double rho : {1., 1.01, -1.}) {
    const auto est = after(rho, {.longest = 20});
    CHECK_FALSE(est.certified());
    CHECK(est.steps() == 20);
    CHECK(est.relative_bias() < 0);
  }
  CHECK_FALSE(after(.9, {.tolerance = .1, .longest = 20}).certified());    // needs 24
  CHECK_FALSE(after(.99, {.tolerance = 1e9, .longest = 20}).certified());  // low(K) <= E(K)
  CHECK_FALSE(after(.5, {.longest = 20, .every = 100}, 99).certified());   // not measured yet
  const auto forgets = after(0, {.longest = 20});
  CHECK((forgets.certified() && forgets.steps() == 1 && forgets.relative_bias() == 0));
  CHECK(after(.5, {.longest = 20}, 100).steps() == 4);
}

TEST_CASE("adaptive_tbptt keeps to what it certifies where what is owed oscillates") {
  const auto examine = [](double turn, index_t longest, double tolerance) {
    adaptive_tbptt est(turning{}, {.tolerance = tolerance, .longest = longest});
    gradient<double> g(1);
    est.advance(one, std::vector<double>(100, turn), g);
    double exact = 0, kept = 0;
    for (index_t k = 0; k < 500; ++k) {
      const double owed = std::pow(.9, k) * std::cos(turn * double(k));
      exact += owed;
      if (k < est.steps()) kept += owed;
    }
    return std::pair(est.relative_bias(), std::abs(exact - kept) / std::abs(exact));
  };
  index_t certified = 0;
  constexpr double quarter =
      1.5707963267948966;  // every second lag owes nothing, tau among them where W = 62
  for (const double turn : {quarter, .7, 1., 2., 0.})
    for (const index_t longest : {21, 31, 40, 62, 63})
      for (const double tolerance : {.1, .5}) {
        const auto [bound, bias] = examine(turn, longest, tolerance);
        INFO("turns by " << turn << ", W " << longest << ", tolerance " << tolerance << ": " << bound
                         << ", true " << bias);
        if (bound < 0) continue;
        CHECK(bias <= bound * (1 + 1e-9));
        ++certified;
      }
  CHECK(certified > 20);
  // less than a third of a turn is seen
  const auto [bound, bias] = examine(.1, 20, .1);
  CHECK(bound == Approx(.0989).epsilon(1e-3));
  CHECK(bias == Approx(.1620).epsilon(1e-3));
}

TEST_CASE("adaptive_tbptt is tbptt of the steps that it has chosen, and keeps to what it certifies") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 4, .out = 2, .lanes = 2}), 500,
                               key{3});
  const std::span all(t.xs);
  adaptive_tbptt est(t.cell, {.tolerance = .05, .longest = 40, .every = 50});
  gradient<double> warm(t.cell.size().params), g(warm.size()), h(warm.size());
  est.advance(t.theta, all.first(400), warm);
  REQUIRE(est.certified());
  const index_t steps = est.steps();
  CHECK((steps > 1 && steps < 40));
  tbptt fixed(t.cell, {.k1 = 1, .k2 = steps});
  fixed.advance(t.theta, all.first(400), warm);
  est.advance(t.theta, all.subspan(400, 49), g);  // until it measures again
  fixed.advance(t.theta, all.subspan(400, 49), h);
  CHECK(golden::relative_error(g, h) < 1e-13);
  CHECK(est.steps() == steps);

  adaptive_tbptt again(t.cell, {.tolerance = .05, .longest = 40, .every = 50});
  bptt exact(t.cell, {.max_steps = 500});
  CHECK(golden::relative_error(gradient_of(again, t.theta, t.xs), gradient_of(exact, t.theta, t.xs)) < .05);
}

TEST_CASE("adaptive_tbptt costs its steps' vjps and those of its estimates, and keeps every promise") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 30,
                               key{3});
  call_counts calls;
  const adaptive_tbptt_options o{.tolerance = .5, .longest = 6, .every = 10};
  adaptive_tbptt est(counted(t.cell, calls), o);
  gradient<double> g(t.cell.size().params);
  std::int64_t vjps = 0;
  calls = {};
  for (std::size_t i = 0; i < 30; ++i) {
    vjps += std::min(est.steps(), index_t(i) + 1) + (i % 10 == 9 ? 6 : 0);
    est.advance(t.theta, std::span(t.xs).subspan(i, 1), g);
  }
  CHECK(est.certified());
  CHECK((calls.steps == 30 && calls.vjps == vjps));
  CHECK(testing::estimator_conformance(adaptive_tbptt(t.cell, o), t.theta, t.xs, &t.bad) ==
        std::vector<std::string>{});
  const auto refused = [&](adaptive_tbptt_options wrong, const char* what) {
    CHECK_THROWS_WITH(adaptive_tbptt(t.cell, wrong),
                      ContainsSubstring(std::string("adaptive_tbptt: ") + what));
  };
  refused({.tolerance = 0}, "tolerance");
  refused({.tolerance = std::nan("")}, "tolerance");
  refused({.shortest = 0}, "shortest");
  refused({.shortest = 9, .longest = 8}, "longest");
  refused({.longest = 2}, "longest");
  refused({.fitted = 0}, "fitted");
  refused({.fitted = 1.5}, "fitted");
  refused({.every = 0}, "every");
  refused({.mean_of = 0}, "mean_of");
}
