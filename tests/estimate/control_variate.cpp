#include "unroll/estimate/control_variate.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

using F = golden::rnn<>;
static_assert(gradient_estimator<control_variate<tbptt<F>, bptt<F>>>);
static_assert(control_variate<tbptt<F>, uoro<F>>::unbiased && !tbptt<F>::unbiased);

double squared(const auto& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return sum;
}

}  // namespace

TEST_CASE("control_variate is unbiased and has the covariance of its formula, whatever is corrected") {
  const auto xs = golden::inputs();
  const auto moments = [&](auto make) {
    testing::enumerator all;
    return testing::enumerate(all, make(testing::enumerating_chooser(all)), golden::theta(), xs);
  };
  for (const double p : {.1, .5, 1.})
    for (const double share : {0., 1., .8}) {
      INFO("p " << p << ", share " << share);
      // lags below 2 beside the exact gradient: only the coin is random
      golden::vec8 apart = golden::gradient;
      for (std::size_t i = 0; i < 8; ++i) apart[i] -= share * golden::lag_below_2[i];
      const auto r = moments([&](auto c) {
        return control_variate(tbptt(F{}, {.k1 = 1, .k2 = 2}), bptt(F{}), {.p = p, .share = share}, c);
      });
      CHECK(golden::relative_error(r.mean, golden::gradient) < 1e-12);
      CHECK(r.covariance_trace == Approx((1 / p - 1) * squared(apart)).epsilon(1e-8).margin(1e-15));
    }

  // both random
  constexpr double p = .5, share = .8;
  const double V = moments([](auto c) { return uoro(F{}, {}, c); }).covariance_trace;
  const auto both = moments([](auto c) {
    return control_variate(uoro(F{}, {}, c), uoro(F{}, {}, c), {.p = p, .share = share}, c);
  });
  CHECK(golden::relative_error(both.mean, golden::gradient) < 1e-11);
  CHECK(both.covariance_trace ==
        Approx((1 / p - 1) * ((1 - share) * (1 - share) * golden::gradient_squared_norm + share * share * V) +
               V / p)
            .epsilon(1e-10));
}

TEST_CASE("control_variate runs its correction only where the coin says so") {
  const auto xs = golden::inputs();
  control_variate est(tbptt(F{}, {.k1 = 1, .k2 = 2}), bptt(F{}), {.p = .5});
  std::array<int, 2> seen{};
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    gradient<double> g(8);
    est.reset(key{seed});
    report r = est.advance(golden::theta(), xs, g);
    r += est.finish(golden::theta(), g);
    CHECK((r.steps == 3 || r.steps == 6));
    CHECK(r.loss == Approx(golden::loss));
    ++seen[r.steps == 6];
    for (std::size_t i = 0; i < 8; ++i) {
      const double low = golden::lag_below_2[i], high = golden::gradient[i];
      CHECK(g[index_t(i)] == Approx(r.steps == 6 ? 2 * high - low : low).epsilon(1e-7).margin(1e-9));
    }
  }
  CHECK((seen[0] > 9 && seen[1] > 9));
}

TEST_CASE("control_variate keeps the promises of every estimator and refuses probability 0") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  for (const double p : {.01, 1.})
    CHECK(testing::estimator_conformance(
              control_variate(tbptt(F{}, {.k1 = 3, .k2 = 5}), uoro(F{}, {.block = 4}), {.p = p}),
              golden::theta(), xs, &bad) == std::vector<std::string>{});
  for (const double p : {0., -1., 1.5, std::nan("")})
    CHECK_THROWS_WITH(control_variate(tbptt(F{}), bptt(F{}), {.p = p}),
                      ContainsSubstring("control_variate: p: is "));
  CHECK_THROWS_WITH(control_variate(tbptt(F{}), bptt(F{}), {.share = std::nan("")}),
                    ContainsSubstring("share: is nan, must be finite"));
}
