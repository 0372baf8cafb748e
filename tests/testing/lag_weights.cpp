#include "unroll/testing/lag_weights.hpp"

#include <optional>

#include "tests/support/catch.hpp"
#include "unroll/testing/oracle.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace testing = unroll::testing;
using unroll::index_t;

namespace {

// Keeps only paths of fewer than `lag` steps, and with a chooser drops each use of theta but the first
// with probability 1/2 and doubles what it keeps.
struct toy {
  using F = testing::tagging_system<double>;
  using system_type = F;
  using scalar = double;
  using input = index_t;
  static constexpr unroll::estimand estimated_gradient = unroll::estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = true;
  static constexpr std::array references{"none"};

  F f;
  index_t lag;
  std::optional<unroll::testing::enumerating_chooser> choose = {};

  const F& system() const { return f; }
  void reset(unroll::key, unroll::state<const double> = {}) {}
  unroll::report advance(unroll::params<const double>, std::span<const index_t> xs,
                         unroll::dparams<double> g) {
    const index_t n = index_t(xs.size());
    for (index_t s = 0; s < n; ++s) {
      const double weight = choose && s > 0 ? (choose->coin(s, 0.5) ? 2 : 0) : 1;
      for (index_t t = s; t < std::min(n, s + lag); ++t) g[t + s * n] += weight;
    }
    return {};
  }
  unroll::report finish(unroll::params<const double>, unroll::dparams<double>) { return {}; }
};

}  // namespace

TEST_CASE("the tagging system conforms and its true table is a triangle of ones") {
  const index_t n = 4;
  const testing::tagging_system<double> f(n);
  const std::vector<double> theta(16, 0.5);
  const std::vector<index_t> xs{0, 1, 2, 3};
  CHECK(testing::system_conformance(f, theta, xs, {.steps = 4}) == std::vector<std::string>{});
  for (const auto& g : {testing::backward_gradient(f, theta, xs), testing::forward_gradient(f, theta, xs)})
    for (index_t t = 0; t < n; ++t)
      for (index_t s = 0; s < n; ++s) CHECK(g[std::size_t(t + s * n)] == (s <= t ? 1 : 0));
}

TEST_CASE("the table shows truncation") {
  const auto w = testing::lag_weights([](auto f) { return toy{f, 2}; }, 5);
  for (index_t t = 0; t < 5; ++t)
    for (index_t s = 0; s < 5; ++s) CHECK(w(t, s) == (s <= t && t - s < 2 ? 1 : 0));
}

TEST_CASE("the expected table of a random estimator is taken over all outcomes") {
  unroll::testing::enumerator all;
  const auto make = [](auto f, auto choose) { return toy{f, 4, choose}; };
  const auto w = testing::expected_lag_weights(all, make, 4);
  for (index_t t = 0; t < 4; ++t)
    for (index_t s = 0; s < 4; ++s) CHECK(w(t, s) == (s <= t ? 1 : 0));
}

TEST_CASE("an input that is no step is refused") {
  CHECK_THROWS_AS(testing::tagging_system<float>(3).finite(3), unroll::error);
  CHECK_THROWS_AS(testing::tagging_system<float>(0), unroll::error);
}
