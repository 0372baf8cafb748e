#include "unroll/testing/enumerate.hpp"

#include "tests/support/catch.hpp"

namespace testing = unroll::testing;
using unroll::index_t;
using unroll::key;
using unroll::view;
using unroll::testing::enumerating_chooser;
using unroll::testing::enumerator;

TEST_CASE("two signs give four outcomes with the moments of a rademacher vector") {
  enumerator all;
  const enumerating_chooser choose(all);
  const auto r = testing::enumerate_outcomes(
      all, 2,
      [&](view<double> out) {
        choose.signs(0, out);
        out[1] = 3 + 2 * out[1];
      },
      true);
  CHECK(r.outcomes == 4);
  CHECK(r.probability == 1);
  CHECK(r.mean == std::vector<double>{0, 3});
  CHECK(r.covariance == std::vector<double>{1, 0, 0, 4});
  CHECK(r.covariance_trace == 5);
}

TEST_CASE("outcomes are weighted by their probability") {
  enumerator all;
  const enumerating_chooser choose(all);
  const auto r = testing::enumerate_outcomes(all, 1, [&](view<double> out) {
    out[0] = choose.coin(0, 0.2) ? 5.0 : (choose.coin(1, 0.5) ? 1.0 : -1.0);  // a tree, not a grid
  });
  CHECK(r.outcomes == 3);
  CHECK(r.mean[0] == Approx(1).epsilon(1e-14));
  CHECK(r.covariance_trace == Approx(0.2 * 25 + 0.8 * 1 - 1).epsilon(1e-14));
  CHECK(r.covariance.empty());
}

TEST_CASE("normals are integrated exactly for polynomials of low degree") {
  enumerator all(5);
  const enumerating_chooser choose(all);
  const auto r = testing::enumerate_outcomes(all, 2, [&](view<double> out) {
    choose.normals(0, out);
    out[1] = out[0] * out[0] * out[0] * out[0] + out[1];
  });
  CHECK(r.outcomes == 25);
  CHECK(r.mean[0] == Approx(0).margin(1e-13));
  CHECK(r.mean[1] == Approx(3).epsilon(1e-12));
  CHECK(r.covariance_trace == Approx(1 + (105 - 9) + 1).epsilon(1e-12));
}

TEST_CASE("a constant has mean and covariance to the bit") {
  enumerator all;
  const enumerating_chooser choose(all);
  const auto r = testing::enumerate_outcomes(all, 1, [&](view<double> out) {
    choose.signs(0, out);
    out[0] = 0.1;
  });
  CHECK(r.mean[0] == 0.1);
  CHECK(r.covariance_trace == 0);
}

TEST_CASE("too many outcomes are refused") {
  enumerator all;
  const enumerating_chooser choose(all);
  std::vector<double> signs(30);
  CHECK_THROWS_AS(testing::enumerate_outcomes(
                      all, 1, [&](view<double>) { choose.signs(0, view<double>(signs)); }, false, 1000),
                  unroll::error);
}

namespace {

// Draws one sign a step and adds bias + sign * x to g: a wrong estimator of whatever, but a complete one.
struct sign_estimator {
  struct system_type {
    using scalar = double;
    using input = double;
    unroll::dims size() const { return {1, 1, 0, 0, 1}; }
    void step(double, const unroll::edge<double>&) const {}
  };
  using scalar = double;
  using input = double;
  static constexpr unroll::estimand estimated_gradient = unroll::estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"none"};

  enumerating_chooser choose;
  bool overflow = false;
  system_type f{};
  std::int64_t t = 0;

  const system_type& system() const { return f; }
  void reset(key k, unroll::state<const double> = {}) {
    t = 0;
    choose.reset(k);
  }
  unroll::report advance(unroll::params<const double> theta, std::span<const double> xs,
                         unroll::dparams<double> g) {
    for (const double x : xs) {
      double sign = 0;
      choose.signs(t++, view<double>(&sign, 1));
      g[0] += theta[0] + sign * x;
    }
    unroll::report r;
    if (overflow) r.code = unroll::status::non_finite;
    return r;
  }
  unroll::report finish(unroll::params<const double>, unroll::dparams<double>) { return {}; }
};

}  // namespace

TEST_CASE("an estimator is enumerated over all its draws") {
  enumerator all;
  const sign_estimator e{enumerating_chooser(all)};
  const std::vector<double> theta{2}, xs{1, 3};
  const auto r = testing::enumerate(all, e, theta, xs);
  CHECK(r.outcomes == 4);
  CHECK(r.mean[0] == 4);
  CHECK(r.covariance_trace == 10);
}

TEST_CASE("an outcome that is not finite is an error") {
  enumerator all;
  const sign_estimator e{enumerating_chooser(all), true};
  const std::vector<double> theta{2}, xs{1, 3};
  CHECK_THROWS_AS(testing::enumerate(all, e, theta, xs), unroll::error);
}
