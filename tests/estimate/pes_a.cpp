#include "unroll/estimate/pes_a.hpp"

#include "tests/mutants/es_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

/// The witness of the evolution strategies with derivatives, and with s'^power as its loss.
struct witness : mutants::polynomial {
  int power = 2;
  void step(int, const edge<double>& e) const {
    e.next[0] = advance(e.theta[0], e.s[0]);
    *e.loss = std::pow(e.next[0], power);
  }
  void vjp(int, const const_edge<double>& e, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + dloss * double(power) * std::pow(e.next[0], power - 1);
    if (!ds.empty()) ds[0] += d * (.6 + e.theta[0] * e.s[0]);
    if (!dtheta.empty()) dtheta[0] += d * (.5 * e.s[0] * e.s[0] + 1);
  }
};

static_assert(gradient_estimator<pes_a<witness>>);
static_assert(gradient_estimator<pes_a<golden::rnn<float>>>);

template <template <class, class> class Estimator, class Options>
testing::enumeration exact(int power, Options o, std::size_t steps = 3) {
  o.sigma = witness::sigma;
  witness f;
  f.power = power;
  testing::enumerator all;
  const std::vector<double> theta{witness::theta};
  const std::vector<int> xs(steps);
  return testing::enumerate(
      all, Estimator<witness, testing::enumerating_chooser>(f, o, testing::enumerating_chooser(all)), theta,
      xs);
}

}  // namespace

TEST_CASE("pes_a has the golden mean of pes") {
  CHECK(std::abs(exact<pes_a>(2, pes_a_options{}).mean[0] - 15.306395572) < 1e-8);
  const std::vector<double> theta{witness::theta};  // and not that of the loss as it is
  CHECK(std::abs(testing::backward_gradient(witness{}, theta, std::vector<int>(3))[0] - 9.519766524) < 1e-8);
}

TEST_CASE("pes_a is unbiased where the loss of a window is not quadratic in its perturbation") {
  const auto same = [](int power, index_t window, double tolerance) {
    const double mean = exact<pes_a>(power, pes_a_options{.window = window}).mean[0],
                 expected = exact<pes>(power, pes_options{.window = window}).mean[0];
    INFO("power " << power << ", windows of " << window << ": " << mean << ", " << expected);
    CHECK(std::abs(mean - expected) < tolerance * std::abs(expected));
  };
  same(3, 1, 1e-10);
  same(2, 2, 1e-10);  // the last window is not full
  same(1, 3, 1e-12);  // one window: a mean of gradients
}

TEST_CASE("a control variate that knows its own perturbation is biased") {
  // one copy on the witness, window by window
  const auto mean = [](bool at_theta) {
    testing::enumerator all;
    const testing::enumerating_chooser draw(all);
    const auto r = testing::enumerate_outcomes(all, 1, [&](view<double> g) {
      constexpr double theta = witness::theta, sigma = witness::sigma;
      double s = .5, xi = 0, z = 0;
      g[0] = 0;
      for (int t = 0; t < 3; ++t) {
        draw.normals(t, view<double>(&z, 1));
        const double e = sigma * z, next = witness::advance(theta + e, s),
                     beside = witness::advance(theta, s);
        const double moved = 2 * next * (.5 * s * s + 1), still = 2 * beside * (.5 * s * s + 1);
        g[0] += moved + xi * (next * next - e * (at_theta ? still : moved)) / (sigma * sigma);
        xi += e;
        s = next;
      }
    });
    return r.mean[0];
  };
  CHECK(std::abs(mean(true) - 15.306395572) < 1e-8);
  CHECK(std::abs(mean(false) - 11.597512247) < 1e-8);
}

TEST_CASE("pes_a has less variance than pes on the witness") {
  const double analytic = exact<pes_a>(2, pes_a_options{}, 2).covariance_trace,
               persistent = exact<pes>(2, pes_options{}, 2).covariance_trace;
  INFO(analytic << " beside " << persistent);
  CHECK(analytic > 0);
  CHECK(analytic < .6 * persistent);
}

TEST_CASE("pes_a costs four steps and vjps a pair and a step, in the first window half of them") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(7);
  pes_a est(golden::rnn<>{}, {.pairs = 2, .window = 3});
  gradient<double> g(8);
  report r = est.advance(theta, std::span(xs).first(3), g);
  CHECK((r.steps == 12 && r.vjps == 12 && r.losses == 3));
  r = est.advance(theta, std::span(xs).subspan(3), g);
  CHECK((r.steps == 24 && r.vjps == 24 && r.losses == 3));
  r = est.finish(theta, g);
  CHECK((r.steps == 8 && r.vjps == 8 && r.losses == 1));
}

TEST_CASE("pes_a keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  for (const index_t window : {1, 3})
    CHECK(testing::estimator_conformance(pes_a(golden::rnn<>{}, {.pairs = 2, .window = window}),
                                         golden::theta(), xs, &bad) == std::vector<std::string>{});
  CHECK_THROWS_WITH(pes_a(golden::rnn<>{}, {.window = 0}), ContainsSubstring("pes_a: window: is 0"));
  CHECK_THROWS_WITH(pes_a(golden::rnn<>{}, {.pairs = 0}), ContainsSubstring("pes_a: pairs: is 0"));
  CHECK_THROWS_WITH(pes_a(golden::rnn<>{}, {.sigma = 0}), ContainsSubstring("pes_a: sigma: is 0"));
  pes_a est(golden::rnn<>{}, {.sigma = 1e-30});
  gradient<double> g(8);
  CHECK_THROWS_WITH(est.advance(golden::theta(), xs, g),
                    ContainsSubstring("lost in the rounding of theta[0]"));
}
