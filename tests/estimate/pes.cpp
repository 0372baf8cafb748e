#include "unroll/estimate/pes.hpp"

#include "tests/mutants/es_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using mutants::polynomial;

static_assert(gradient_estimator<pes<polynomial>>);
static_assert(gradient_estimator<pes<golden::rnn<float>>>);

/// s accumulates a_t theta, loss_t = c_t s_t: linear in theta, every step's theta is heard by every later
/// loss.
struct linear_sum {
  using scalar = double;
  using input = std::array<double, 2>;  // a_t, c_t
  dims size() const { return {2, 2, 0, 0, 1}; }
  void step(const input& x, const edge<double>& e) const {
    for (index_t p = 0; p < 2; ++p) e.next[p] = e.s[p] + x[0] * e.theta[p] * (p == 0 ? 1 : -2);
    *e.loss = x[1] * (e.next[0] + e.next[1]);
  }
};

}  // namespace

TEST_CASE("pes is unbiased for the independently smoothed loss, and es for one window") {
  const std::vector<double> theta{polynomial::theta};
  const std::vector<int> xs(3);
  const auto mean = [&](index_t window) {
    testing::enumerator all;
    const pes est(polynomial{}, {.sigma = polynomial::sigma, .window = window},
                  testing::enumerating_chooser(all));
    return testing::enumerate(all, est, params<const double>(theta), xs).mean[0];
  };
  CHECK(std::abs(mean(1) - polynomial::independently_smoothed) < 1e-6);
  CHECK(std::abs(mean(3) - polynomial::jointly_smoothed) < 1e-6);
}

TEST_CASE("pes is unbiased where the last window is not full") {
  const std::vector<double> theta{polynomial::theta};
  const std::vector<int> xs(3);
  testing::enumerator all;
  const pes est(polynomial{}, {.sigma = polynomial::sigma, .window = 2}, testing::enumerating_chooser(all));
  const double mean = testing::enumerate(all, est, params<const double>(theta), xs).mean[0];
  // d/dtheta E L(theta + sigma z^1, theta + sigma z^1, theta + sigma z^2), exact quadrature for this degree
  const auto rule = testing::make_hermite_rule(9);
  const auto smoothed = [&](double h) {
    double sum = 0;
    for (std::size_t i = 0; i < 9; ++i)
      for (std::size_t j = 0; j < 9; ++j) {
        const double a = polynomial::theta + h + polynomial::sigma * rule.node[i];
        const double b = polynomial::theta + h + polynomial::sigma * rule.node[j];
        const double s1 = polynomial::advance(a, .5), s2 = polynomial::advance(a, s1),
                     s3 = polynomial::advance(b, s2);
        sum += rule.weight[i] * rule.weight[j] * (s1 * s1 + s2 * s2 + s3 * s3);
      }
    return sum;
  };
  const double expected = testing::ridders_derivative(smoothed);
  CHECK(std::abs(mean - expected) < 1e-9 * expected);
  CHECK(std::abs(expected - polynomial::independently_smoothed) > 1);
  CHECK(std::abs(expected - polynomial::jointly_smoothed) > 1);
}

TEST_CASE("pes with one window is es bit for bit") {
  const auto theta = golden::theta();
  const auto xs = golden::long_inputs(7);
  gradient<double> a(8), b(8);
  pes one(golden::rnn<>{}, {.pairs = 2, .window = 7});
  es full(golden::rnn<>{}, {.pairs = 2});
  one.advance(theta, xs, a);
  one.finish(theta, a);
  full.advance(theta, xs, b);
  full.finish(theta, b);
  for (index_t p = 0; p < 8; ++p) CHECK(a[p] == b[p]);
}

TEST_CASE("pes of a linear loss has the covariance of its formula") {
  // tr Cov = (P + 1) sum_s |b_ss|^2 + sum_{s != r} (P |b_rs|^2 + b_sr . b_rs),
  // b_rs = sum_{t >= max(r, s)} dl_t / dtheta_s
  const std::vector<linear_sum::input> xs{{1, .5}, {-.7, 1}, {.4, -2}};
  const std::vector<double> theta{.1, .2};
  const auto b = [&](std::size_t r, std::size_t s, std::size_t p) {
    double sum = 0;
    for (std::size_t t = std::max(r, s); t < 3; ++t) sum += xs[t][1] * xs[s][0] * (p == 0 ? 1 : -2);
    return sum;
  };
  double expected = 0;
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t s = 0; s < 3; ++s)
      for (std::size_t p = 0; p < 2; ++p)
        expected +=
            r == s ? 3 * b(s, s, p) * b(s, s, p) : 2 * b(r, s, p) * b(r, s, p) + b(s, r, p) * b(r, s, p);
  testing::enumerator all(3);
  const pes est(linear_sum{}, {}, testing::enumerating_chooser(all));
  const auto r = testing::enumerate(all, est, params<const double>(theta), xs);
  CHECK(std::abs(r.mean[0] - (b(0, 0, 0) + b(1, 1, 0) + b(2, 2, 0))) < 1e-11);
  CHECK(std::abs(r.covariance_trace - expected) < 1e-10);
}

TEST_CASE("pes keeps the promises of every estimator") {
  const auto xs = golden::long_inputs(50);
  auto bad = xs[0];
  bad.x = std::nan("");
  for (const index_t window : {1, 3})
    CHECK(testing::estimator_conformance(pes(golden::rnn<>{}, {.pairs = 2, .window = window}),
                                         golden::theta(), xs, &bad) == std::vector<std::string>{});
  const auto small = golden::long_inputs<float>(50);
  CHECK(testing::estimator_conformance(pes(golden::rnn<float>{}), golden::theta<float>(), small) ==
        std::vector<std::string>{});
  CHECK_THROWS_AS(pes(golden::rnn<>{}, {.window = 0}), error);
}
