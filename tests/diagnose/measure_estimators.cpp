#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/diagnose/measure.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/lane_parallel.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/optim/clip.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;

namespace {

const golden::rnn<double> rnn;
const auto theta = golden::theta<double>();
const auto xs = golden::inputs<double>();

// A system without derivatives.
struct forward_only {
  using scalar = double;
  using input = golden::rnn<double>::input;
  dims size() const { return rnn.size(); }
  void start(state<double> s) const { rnn.start(s); }
  void step(const input& x, const edge<double>& e) const { rnn.step(x, e); }
};

}  // namespace

TEST_CASE("full backpropagation has no bias, and truncated backpropagation that of its missing lags") {
  const auto exact = measure(bptt(rnn), theta, xs);
  CHECK(exact.relative_bias_high < 1e-14);
  CHECK(exact.variance == 0);
  CHECK(exact.steps == 1);
  CHECK(exact.vjps == 1);
  const auto cut = measure(tbptt(rnn, {.k1 = 1, .k2 = 1}), theta, xs);
  CHECK(cut.relative_bias == Approx(.39960).epsilon(1e-4));
  CHECK(cut.cosine == Approx(.97305).epsilon(1e-5));
  CHECK(cut.relative_bias_low == cut.relative_bias_high);
  const auto less = measure(tbptt(rnn, {.k1 = 1, .k2 = 2}), theta, xs);
  CHECK(less.relative_bias == Approx(.10975).epsilon(1e-4));
  CHECK(less.cosine == Approx(.99536).epsilon(1e-5));
}

TEST_CASE("the measured variance of uoro is that of the enumeration, and no bias is seen") {
  const index_t n = 20000;
  const golden::delayed_rnn delayed;  // the timing for which the covariance is known
  const auto ys = golden::delayed_inputs();
  const auto m = measure(uoro(delayed), theta, ys, {.replicas = n});
  CHECK(m.relative_bias_low == 0);
  CHECK(m.worst_z < m.worst_z_limit);
  CHECK(m.variance == Approx(golden::trace_uoro).epsilon(0.03));
  const auto mean = measure(mean_of(uoro(delayed), 4), theta, ys, {.replicas = n / 4});
  CHECK(mean.replicas == n / 4);  // random although it has no chooser of its own
  CHECK(mean.variance == Approx(golden::trace_uoro / 4).epsilon(0.06));
}

TEST_CASE("measure finds no bias where clipping behind the estimate makes one") {
  const golden::delayed_rnn delayed;
  const auto ys = golden::delayed_inputs();
  CHECK(measure(uoro(delayed), theta, ys, {.replicas = 2000}).relative_bias_low == 0);
  testing::enumerator all;
  uoro estimator(delayed, {}, testing::enumerating_chooser(all));
  gradient<double> g(8);
  const auto clipped = testing::enumerate_outcomes(all, 8, [&](view<double> out) {
    g.zero();
    estimator.reset(key{});
    estimator.advance(theta, ys, g);
    estimator.finish(theta, g);
    clip_norm(g, std::sqrt(golden::gradient_squared_norm));  // the gradient itself passes
    std::copy(g.begin(), g.end(), out.begin());
  });
  CHECK(golden::relative_error(clipped.mean, golden::gradient) > 0.1);
}

TEST_CASE("measure finds no error where theta that moves makes one, of first order in its steps") {
  const auto zs = golden::long_inputs(20);
  CHECK(measure(rtrl(rnn), theta, zs).relative_bias_high < 1e-13);
  const auto exact = testing::backward_gradient(rnn, theta, zs);
  const auto online = [&](double rate) {  // the sum of the gradients that rtrl gives while it learns
    auto moving = golden::theta();
    rtrl estimator(rnn);
    gradient<double> sum(8), g(8);
    estimator.reset(key{});
    for (const auto& z : zs) {
      g.zero();
      estimator.advance(moving, {&z, 1}, g);
      for (index_t i = 0; i < 8; ++i) {
        moving[i] -= rate * g[i];
        sum[i] += g[i];
      }
    }
    return golden::relative_error(sum, exact);
  };
  CHECK(online(0) < 1e-13);
  CHECK(online(1e-2) > 1e-3);
  CHECK(online(1e-2) / online(5e-3) == Approx(2).epsilon(0.1));
}

TEST_CASE("where the loss jumps the pathwise reference is wrong, and a reference of one's own is not") {
  struct jump {  // 1{theta > 0} + 0.1 theta, with the derivative that it has almost everywhere
    using scalar = double;
    using input = char;
    dims size() const { return {1, 1, 0, 0, 1}; }
    void step(char, const edge<double>& e) const {
      *e.loss = (e.theta[0] > 0) + .1 * e.theta[0];
      e.next[0] = 0;
    }
    void vjp(char, const const_edge<double>&, dstate<const double>, double dloss, dstate<double>,
             dparams<double> g) const {
      if (!g.empty()) g[0] += .1 * dloss;
    }
  };
  const std::vector<double> zero{0};
  const std::vector<char> step{0};
  const es estimator(jump{}, {.sigma = .5});
  const auto misled = measure(estimator, zero, step, {.replicas = 4000});
  CHECK(misled.relative_bias_low > 7);  // (.8979 - .1) / .1: the bias of the reference
  CHECK(misled.relative_bias_high < 9);
  const std::vector<double> smoothed{.1 + 1 / (.5 * std::sqrt(2 * 3.141592653589793))};
  const auto right = measure(estimator, zero, step, {.replicas = 4000, .reference = smoothed});
  CHECK(right.relative_bias_low == 0);
  CHECK(right.relative_bias_high < .1);
}

TEST_CASE("smoothing estimators are measured against their own estimands") {
  const auto check = [](auto estimator, estimand own) {
    const auto m = measure(estimator, theta, xs, {.replicas = 4000});
    CHECK(m.estimated_gradient == own);
    CHECK(m.relative_bias_low == 0);
    CHECK(m.reference_error > 0);
    CHECK(m.reference_error < 0.1 * m.exact_norm);
    CHECK(m.descent_low < 1);
    CHECK(m.descent_high > 1);
    CHECK(m.code == status::ok);
  };
  check(es(rnn, {.sigma = 0.3}), estimand::jointly_smoothed);
  check(nres(rnn, {.sigma = 0.3, .window = 2}), estimand::jointly_smoothed);
  check(pes(rnn, {.sigma = 0.3, .window = 1}), estimand::independently_smoothed);
  check(mean_of(pes(rnn, {.sigma = 0.3, .window = 2}), 2), estimand::independently_smoothed);
}

TEST_CASE("evolution strategies whose lanes are dealt out are measured against their own estimand") {
  const cells::linear<double> cell({.in = 1, .hidden = 1, .out = 0, .lanes = 2});
  parameters<double> weights(cell.size().params);
  cell.init(weights, key{1});
  const double x[] = {1, -.5, .3, .7, -1, .2}, y[] = {.5, 0, -.4, .1, .6, -.2};
  std::vector<cells::example<double>> few;
  for (int t = 0; t < 3; ++t) few.push_back({.x = x + 2 * t, .target = y + 2 * t});
  const auto check = [&](const auto& estimator, estimand own, double sigma, index_t window) {
    CHECK(smoothing_of(estimator).sigma == sigma);
    CHECK(smoothing_of(estimator).window == window);
    const auto m = measure(estimator, weights, few, {.replicas = 4000});
    CHECK(m.estimated_gradient == own);
    CHECK(m.relative_bias_low == 0);
    CHECK(m.reference_error > 0);
    CHECK(m.reference_error < 0.1 * m.exact_norm);
  };
  const auto dealt = [&](const auto& make) { return lane_parallel(cell, {.groups = 2, .threads = 1}, make); };
  check(dealt([](const auto& f) { return es(f, {.sigma = 0.3}); }), estimand::jointly_smoothed, .3, 0);
  check(dealt([](const auto& f) { return mean_of(pes(f, {.sigma = 0.2, .window = 2}), 2); }),
        estimand::independently_smoothed, .2, 2);
}

TEST_CASE("the noise of a short reference is not taken for a bias") {
  for (const index_t draws : {1, 2, 16}) {
    const auto m = measure(pes(rnn, {.sigma = 0.3, .window = 1}), theta, xs,
                           {.replicas = 20000, .reference_replicas = draws});
    CHECK(m.reference_error > 0);
    CHECK(m.relative_bias_low == 0);
    if (draws == 16) CHECK(m.worst_z < m.worst_z_limit);
  }
}

TEST_CASE("against the gradient at frozen theta a smoothing estimator is biased") {
  const auto frozen = exact_gradient(rnn, theta, xs);
  const auto m =
      measure(es(rnn, {.sigma = 1, .pairs = 50}), theta, xs, {.replicas = 1000, .reference = frozen});
  CHECK(m.relative_bias_low > 0.05);
}

TEST_CASE("a system without vjp needs a reference") {
  const forward_only f;
  CHECK_THROWS_WITH(measure(es(f), theta, xs), Catch::Matchers::ContainsSubstring("no vjp"));
  CHECK(measure(es(f), theta, xs, {.replicas = 100, .reference = golden::gradient}).replicas == 100);
}
