#include "unroll/cells/influence_balancing.hpp"

#include "tests/cells/cell_checks.hpp"

using namespace unroll;
using system_type = cells::influence_balancing<double>;

TEST_CASE("influence balancing agrees with its derivatives and dense hooks") {
  for (const index_t n : {1, 2, 5, 23}) {
    INFO("n " << n);
    const system_type f({n, n / 2, 1});
    cell_checks::derivatives(f, {}, key{std::uint64_t(n)});
    cell_checks::dense_hooks(f, {}, key{std::uint64_t(n)});
  }
}

TEST_CASE("influence balancing has the published lag coefficients") {
  const system_type f;
  std::vector<double> c(400);
  f.lag_coefficients(view<double>(c));
  for (std::size_t k = 0; k < 10; ++k) CHECK(c[k] == 1);
  CHECK(c[10] < 1);
  CHECK(c[18] > 0);
  CHECK(std::abs(c[19]) < 1e-15);
  for (std::size_t k = 20; k < c.size(); ++k) CHECK(c[k] < 0);

  std::vector<double> sum(c.size() + 1);  // sum[K]: what a truncation after K lags sees
  for (std::size_t k = 0; k < c.size(); ++k) sum[k + 1] = sum[k] + c[k];
  CHECK(std::max_element(sum.begin(), sum.end()) - sum.begin() >= 19);
  CHECK(sum[19] == Approx(16.476).margin(5e-4));
  CHECK(sum[40] == Approx(0.566).margin(5e-4));
  CHECK(sum[41] < 0);
  CHECK(sum[50] == Approx(-4.75).margin(5e-3));
  CHECK(sum[60] == Approx(-5.90).margin(5e-3));
  CHECK(sum[80] == Approx(-5.99989).margin(5e-6));
  CHECK(sum[400] == Approx(-6).epsilon(1e-12));
}

TEST_CASE("the steps of influence balancing move by the lag coefficients") {
  const system_type f;
  const dims d = f.size();
  std::vector<double> s(std::size_t(d.state)), next = s, c(30);
  f.lag_coefficients(view<double>(c));
  start_state(f, state<double>(s));
  CHECK(s[0] == 1);
  CHECK(s[22] == 1);
  const std::vector<double> theta{-0.25};
  double loss = 0, free = 0, sum = 0;
  for (std::size_t t = 0; t < c.size(); ++t) {
    f.step({}, edge<double>{theta, s, next, {}, &loss, {}});
    s = next;
    sum += c[t];
    // without theta s_1 is the share of the ones that has not left through the end: P(Binomial(t+1, 1/2) < n)
    double binomial = std::pow(0.5, double(t + 1));
    free = 0;
    for (std::size_t j = 0; j < 23 && j <= t + 1; ++j) {
      free += binomial;
      binomial *= double(t + 1 - j) / double(j + 1);
    }
    CHECK(s[0] == Approx(free + theta[0] * sum).epsilon(1e-13));
    CHECK(loss == Approx((s[0] - 1) * (s[0] - 1) / 2).epsilon(1e-13));
  }
}

TEST_CASE("influence balancing rests at its optimum") {
  const system_type f;
  std::vector<double> s(23), next(23);
  const std::vector<double> theta{-1.0 / 6};
  double loss = 1;
  start_state(f, state<double>(s));
  for (int t = 0; t < 300; ++t, std::swap(s, next)) f.step({}, edge<double>{theta, s, next, {}, &loss, {}});
  CHECK(loss < 1e-28);
}

TEST_CASE("influence balancing refuses impossible options") {
  CHECK_THROWS_AS(system_type({0, 0, 1}), error);
  CHECK_THROWS_AS(system_type({3, -1, 1}), error);
  CHECK_THROWS_AS(system_type({3, 4, 1}), error);
}
