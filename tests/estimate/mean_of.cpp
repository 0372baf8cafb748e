#include "unroll/estimate/mean_of.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;

static_assert(gradient_estimator<mean_of<uoro<golden::rnn<double>>>>);
static_assert(mean_of<es<golden::rnn<>>>::estimated_gradient == estimand::jointly_smoothed);

// A mean of means can be antithetic where what is inside can be mirrored.
template <class E>
concept mirrored = requires(E e) {
  e.mirror(true);
};
struct without_mirror {
  using inside = uoro<golden::rnn<double>>;
  using system_type = inside::system_type;
  using scalar = inside::scalar;
  using input = inside::input;
  static constexpr estimand estimated_gradient = inside::estimated_gradient;
  static constexpr bool unbiased = inside::unbiased, random = inside::random;
  static constexpr auto references = inside::references;
  inside e;

  void reset(key k, state<const scalar> s0 = {}) { e.reset(k, s0); }
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return e.advance(theta, xs, g);
  }
  report finish(params<const scalar> theta, dparams<scalar> g) { return e.finish(theta, g); }
  const system_type& system() const { return e.system(); }
};
static_assert(gradient_estimator<without_mirror> && without_mirror::random);
static_assert(mirrored<mean_of<uoro<golden::rnn<double>>>> && !mirrored<mean_of<without_mirror>>);

testing::enumeration exact(index_t copies, bool antithetic, std::size_t steps) {
  auto xs = golden::inputs();
  xs.resize(steps);
  testing::enumerator all;
  const uoro one(golden::rnn<>{}, {}, testing::enumerating_chooser(all));
  return testing::enumerate(all, mean_of(one, copies, antithetic), golden::theta(), xs);
}

}  // namespace

TEST_CASE("the mean of independent copies has the same mean and a part of the variance") {
  const auto one = exact(1, false, 2), two = exact(2, false, 2);
  REQUIRE(one.covariance_trace > 1e-3);
  CHECK(golden::relative_error(two.mean, one.mean) < 1e-12);
  CHECK(std::abs(two.covariance_trace - one.covariance_trace / 2) < 1e-12);
}

TEST_CASE("an antithetic pair is unbiased with less variance than an independent one") {
  const auto one = exact(1, false, 3), pair = exact(2, true, 3);
  CHECK(golden::relative_error(pair.mean, golden::gradient) < 1e-11);
  CHECK(pair.covariance_trace < 0.99 * one.covariance_trace / 2);
  CHECK(pair.outcomes == one.outcomes);
}

TEST_CASE("an antithetic pair of uoro in blocks cancels noise, though less of it than an independent pair") {
  for (const index_t block : {2, 3, 4}) {
    const auto xs = golden::long_inputs(3 * block + 1);
    const auto exact = testing::backward_gradient(golden::rnn<>{}, golden::theta(), xs);
    const auto of = [&](index_t copies, bool antithetic) {
      testing::enumerator all;
      const uoro one(golden::rnn<>{}, {.block = block}, testing::enumerating_chooser(all));
      return testing::enumerate(all, mean_of(one, copies, antithetic), golden::theta(), xs);
    };
    const auto one = of(1, false), pair = of(2, true);
    CHECK(golden::relative_error(pair.mean, exact) < 1e-11);
    CHECK(pair.outcomes == one.outcomes);
    CHECK(pair.covariance_trace < 0.99 * one.covariance_trace);
    CHECK(pair.covariance_trace > one.covariance_trace / 2);
  }
}

TEST_CASE("an antithetic pair of evolution strategies is one of them twice: they are antithetic already") {
  const auto theta = golden::theta();
  const auto run = [&](auto e) {
    gradient<double> g(8);
    e.reset(key{});
    e.advance(theta, golden::long_inputs(9), g);
    e.finish(theta, g);
    return g;
  };
  const pes one(golden::rnn<>{}, {.window = 2});
  const auto pair = run(mean_of(one, 2, true)), alone = run(mean_of(one, 1));
  CHECK(golden::relative_error(pair, alone) < 1e-12);
}

TEST_CASE("the mean of copies reports their loss once and their work together") {
  const auto theta = golden::theta();
  const auto xs = golden::inputs();
  gradient<double> g(8);
  const report one = uoro(golden::rnn<>{}).advance(theta, xs, g);
  mean_of three(uoro(golden::rnn<>{}), 3);
  const report r = three.advance(theta, xs, g);
  CHECK(r.loss == one.loss);
  CHECK(r.losses == 3);
  CHECK(r.consumed == 3);
  CHECK(r.steps == 3 * one.steps);
  CHECK(r.vjps == 3 * one.vjps);
  CHECK(r.jvps == 3 * one.jvps);
  CHECK(r.bytes == 3 * one.bytes + g.bytes());
  CHECK(three.finish(theta, g).bytes == r.bytes);
}

TEST_CASE("a mean of different estimators is unbiased and has the weighted covariances") {
  const auto xs = golden::inputs();
  const auto of = [&](auto make) {
    testing::enumerator all;
    return testing::enumerate(all, make(testing::enumerating_chooser(all)), golden::theta(), xs);
  };
  const auto first = [](auto c) { return uoro(golden::rnn<>{}, {}, c); };
  const auto second = [](auto c) { return artbp(golden::rnn<>{}, fixed_truncation(3), {}, c); };
  const auto both = of([&](auto c) { return mean_of(first(c), second(c)); });
  const double a = of(first).covariance_trace, b = of(second).covariance_trace;
  CHECK(golden::relative_error(both.mean, golden::gradient) < 1e-11);
  CHECK(both.covariance_trace == Approx((a + b) / 4).epsilon(1e-10));
  const std::array<double, 2> best{b / (a + b), a / (a + b)};
  const auto weighted = of([&](auto c) { return mean_of(best, first(c), second(c)); });
  CHECK(golden::relative_error(weighted.mean, golden::gradient) < 1e-11);
  CHECK(weighted.covariance_trace == Approx(a * b / (a + b)).epsilon(1e-10));
}

TEST_CASE("a mean of different estimators says what it is and keeps the promises of every estimator") {
  const mean_of both(uoro(golden::rnn<>{}), tbptt(golden::rnn<>{}, {.k1 = 3, .k2 = 5}));
  using E = std::remove_const_t<decltype(both)>;
  static_assert(gradient_estimator<E> && !E::unbiased && E::random);
  static_assert(mean_of<uoro<golden::rnn<>>, rtrl<golden::rnn<>>>::unbiased);
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(both, golden::theta(), xs, &bad) == std::vector<std::string>{});
  // w and 1 - w extrapolate; what is exact stays so
  gradient<double> g(8);
  mean_of exact(std::array<double, 2>{3, -2}, rtrl(golden::rnn<>{}), rtrl(golden::rnn<>{}));
  const report r = exact.advance(golden::theta(), golden::inputs(), g);
  CHECK(golden::relative_error(g, golden::gradient) < 1e-12);
  CHECK((r.steps == 6 && r.losses == 3));
  CHECK_THROWS_WITH(mean_of(std::array<double, 2>{.5, .6}, rtrl(golden::rnn<>{}), rtrl(golden::rnn<>{})),
                    Catch::Matchers::ContainsSubstring("mean_of: weights: sum to 1.1, must sum to 1"));
}

TEST_CASE("a mean of estimators whose losses are smoothed in different ways is refused") {
  const golden::rnn<> f;
  const mean_of same(gpes(f, {.sigma = .2, .window = 2, .reuse = 3}), pes(f, {.sigma = .2, .window = 6}));
  CHECK((same.smoothing().sigma == .2 && same.smoothing().window == 6));
  CHECK_THROWS_WITH(mean_of(pes(f, {.sigma = .2}), pes(f, {.sigma = .1})),
                    Catch::Matchers::ContainsSubstring("mean_of: sigma: is 0.1, that of the first is 0.2"));
  CHECK_THROWS_WITH(mean_of(pes(f, {.window = 2}), pes(f, {.window = 2}), pes(f, {.window = 3})),
                    Catch::Matchers::ContainsSubstring(
                        "mean_of: steps that share a perturbation: are 3, those of the first are 2"));
}

TEST_CASE("the mean of copies keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(mean_of(uoro(golden::rnn<>{}), 4, true), golden::theta(), xs, &bad) ==
        std::vector<std::string>{});
  CHECK(testing::estimator_conformance(mean_of(uoro(golden::rnn<>{}, {.block = 4}), 3), golden::theta(), xs,
                                       &bad) == std::vector<std::string>{});
  CHECK_THROWS_AS(mean_of(uoro(golden::rnn<>{}), 0), error);
  CHECK_THROWS_AS(mean_of(uoro(golden::rnn<>{}), 3, true), error);
  CHECK_THROWS_AS(mean_of(rtrl(golden::rnn<>{}), 2, true), error);
}
