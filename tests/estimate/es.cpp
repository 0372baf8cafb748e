#include "unroll/estimate/es.hpp"
#include "unroll/estimate/bptt.hpp"

#include "tests/mutants/es_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using mutants::polynomial;

static_assert(gradient_estimator<es<polynomial>>);
static_assert(gradient_estimator<es<golden::rnn<float>>>);

/// loss_t = c_t . theta with a different c for every step: the gradient and the covariance are known.
struct linear_loss {
  using scalar = double;
  using input = std::array<double, 2>;
  dims size() const { return {2, 1, 0, 0, 1}; }
  void step(const input& c, const edge<double>& e) const {
    e.next[0] = e.s[0];
    *e.loss = c[0] * e.theta[0] + c[1] * e.theta[1];
  }
};

/// loss_t = (t + 1) theta, by the step number that the system is told.
struct timed_loss {
  using scalar = double;
  using input = int;
  dims size() const { return {1, 1, 0, 0, 1}; }
  void step(int, const edge<double>& e) const {
    e.next[0] = e.s[0];
    *e.loss = double(e.t + 1) * e.theta[0];
  }
};

}  // namespace

TEST_CASE("es is unbiased for the jointly smoothed loss, which is not the gradient itself") {
  testing::enumerator all;
  const std::vector<double> theta{polynomial::theta};
  const std::vector<int> xs(3);
  const es est(polynomial{}, {.sigma = polynomial::sigma}, testing::enumerating_chooser(all));
  const auto r = testing::enumerate(all, est, params<const double>(theta), xs);
  CHECK(std::abs(r.mean[0] - polynomial::jointly_smoothed) < 1e-6);
  CHECK(std::abs(r.mean[0] - polynomial::true_gradient) > 60);
}

TEST_CASE("es of a linear loss has covariance trace (params + 1) |gradient|^2 / pairs") {
  const std::vector<double> theta{.4, -.3};
  const std::vector<linear_loss::input> xs{{1, 2}, {-3, .5}, {.25, .5}};
  const double gradient[] = {-1.75, 3};
  for (const index_t pairs : {1, 2}) {
    testing::enumerator all(3);
    const es est(linear_loss{}, {.sigma = .2, .pairs = pairs}, testing::enumerating_chooser(all));
    const auto r = testing::enumerate(all, est, params<const double>(theta), xs);
    for (std::size_t p = 0; p < 2; ++p) CHECK(std::abs(r.mean[p] - gradient[p]) < 1e-11);
    const double squared = gradient[0] * gradient[0] + gradient[1] * gradient[1];
    CHECK(std::abs(r.covariance_trace - 3 * squared / double(pairs)) < 1e-10);
  }
}

TEST_CASE("es runs every copy once and nothing backwards") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(9);
  gradient<double> g(8);
  es est(golden::rnn<>{}, {.pairs = 3});
  const report r = est.advance(theta, xs, g);
  for (const double v : g) CHECK(v == 0);
  CHECK(est.finish(theta, g).steps == 0);
  CHECK(r.steps == 9 * 2 * 3);
  CHECK(r.vjps + r.jvps == 0);
  CHECK(r.losses == 9);
}

TEST_CASE("es tells both copies of a pair the step and reports the mean of their losses") {
  const std::vector<double> theta{.5};
  const std::vector<int> xs(6);
  es est(timed_loss{}, {.pairs = 3});
  std::vector<double> g(1);
  const std::span<const int> all(xs);
  const report first = est.advance(params<const double>(theta), all.first(2), g);
  const report second = est.advance(params<const double>(theta), all.subspan(2), g);
  CHECK(first.loss == Approx((1 + 2) * .5));  // theta + sigma z and theta - sigma z: the noise cancels
  CHECK(second.loss == Approx((3 + 4 + 5 + 6) * .5));
}

TEST_CASE("es shows the state of its first copy, which runs at theta + sigma z") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(5);
  std::vector<double> g(8), z(16), up(8);
  es est(golden::rnn<>{}, {.sigma = .2, .pairs = 2});
  est.reset(key{3});
  est.advance(theta, xs, g);
  philox_chooser(key{3}).normals(0, view<double>(z));
  for (index_t p = 0; p < 8; ++p) up[std::size_t(p)] = theta[p] + .2 * z[std::size_t(p)];
  bptt at_up(golden::rnn<>{});
  at_up.advance(params<const double>(up), xs, g);
  const auto expected = at_up.last_state(params<const double>(up));
  const auto shown = est.last_state(theta);
  REQUIRE(shown.size() == expected.size());
  for (index_t i = 0; i < shown.size(); ++i) CHECK(shown[i] == Approx(expected[i]).epsilon(1e-12));
}

TEST_CASE("es is nres with a window that never ends, under its own name") {
  using Catch::Matchers::ContainsSubstring;
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(9);
  gradient<double> g(8), same(8), few(7);
  es est(golden::rnn<>{}, {.sigma = .2, .pairs = 2});
  nres other(golden::rnn<>{}, {.sigma = .2, .pairs = 2, .window = 9});
  est.reset(key{3});
  other.reset(key{3});
  est.advance(theta, xs, g);
  other.advance(theta, xs, same);
  est.finish(theta, g);
  other.finish(theta, same);
  for (index_t p = 0; p < 8; ++p) CHECK(g[p] == same[p]);

  CHECK((est.options().sigma == .2 && est.options().pairs == 2));
  CHECK((est.smoothing().sigma == .2 && est.smoothing().window == 0));
  std::vector<std::string> texts;
  est.visit([&](std::string_view name, auto shown) {
    if constexpr (std::is_same_v<decltype(shown), std::string_view>)
      if (name == "estimator") texts.emplace_back(shown);
  });
  CHECK(texts == std::vector<std::string>{"es, sigma 0.2, pairs 2"});
  CHECK_THROWS_WITH(est.advance(theta, xs, g), ContainsSubstring("es::advance: call: comes after finish()"));
  est.reset(key{3});
  CHECK_THROWS_WITH(est.finish(theta, few), ContainsSubstring("es::finish: g: has size 7, expected 8"));
  CHECK_THROWS_WITH(es(golden::rnn<>{}, {.pairs = 0}), ContainsSubstring("es: pairs: is 0"));
}

TEST_CASE("es keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  CHECK(testing::estimator_conformance(es(golden::rnn<>{}, {.pairs = 2}), golden::theta(), xs, &bad) ==
        std::vector<std::string>{});
  const auto small = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(es(golden::rnn<float>{}), golden::theta<float>(), small) ==
        std::vector<std::string>{});
  CHECK_THROWS_AS(es(golden::rnn<>{}, {.sigma = 0}), error);
  CHECK_THROWS_AS(es(golden::rnn<>{}, {.pairs = 0}), error);
}

TEST_CASE("a sigma that is lost in the rounding of a parameter is refused, with both values") {
  using Catch::Matchers::ContainsSubstring;
  const auto xs = golden::long_inputs(4);
  auto theta = golden::theta();
  gradient<double> g(8);
  const auto run = [&](auto estimator) { estimator.advance(theta, xs, g); };
  CHECK_THROWS_WITH(run(es(golden::rnn<>{}, {.sigma = 1e-300})),
                    ContainsSubstring("es: sigma: is 1e-300") && ContainsSubstring("of theta[0] = "));
  CHECK_THROWS_WITH(run(pes(golden::rnn<>{}, {.sigma = 1e-17})), ContainsSubstring("pes: sigma: is 1e-17"));
  CHECK_THROWS_WITH(run(nres(golden::rnn<>{}, {.sigma = 1e-17})), ContainsSubstring("nres: sigma: is 1e-17"));
  const double u = std::numeric_limits<double>::epsilon();
  for (index_t p = 0; p < theta.size(); ++p) theta[p] = p == 3 ? 1 : 0;
  CHECK_THROWS_WITH(run(es(golden::rnn<>{}, {.sigma = u})), ContainsSubstring("theta[3] = 1"));
  CHECK_NOTHROW(run(es(golden::rnn<>{}, {.sigma = 1.01 * u})));
  theta[3] = std::nan("");  // a status, as everywhere
  es estimator(golden::rnn<>{}, {.sigma = 1e-300});
  CHECK(estimator.advance(theta, xs, g).code == status::non_finite);
  // numbers of the scalar type
  CHECK_THROWS_WITH(es(golden::rnn<float>{}, {.sigma = 1e-50}), ContainsSubstring("is 1e-50"));
  CHECK_THROWS_WITH(es(golden::rnn<float>{}, {.sigma = 1e50}), ContainsSubstring("is 1e+50"));
  CHECK_THROWS_WITH(es(golden::rnn<>{}, {.sigma = std::nan("")}), ContainsSubstring("is nan"));
}

TEST_CASE("sabotaged evolution strategies have the wrong mean, and quadrature sees it") {
  using m = mutants::es_mutation;
  CHECK(std::abs(mutants::enumerate_es(m::none) - polynomial::jointly_smoothed) < 1e-6);
  CHECK(std::abs(mutants::enumerate_es(m::missing_half) - 2 * polynomial::jointly_smoothed) < 1e-5);
  CHECK(std::abs(mutants::enumerate_es(m::truncated_noise) - polynomial::truncated) < 1e-6);
}
