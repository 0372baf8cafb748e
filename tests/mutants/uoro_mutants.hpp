#pragma once

#include "tests/support/delayed_golden.hpp"
#include "unroll/testing/enumerate.hpp"

// UORO written down once more for one small system, with one line wrong at a time.
namespace mutants {

using unroll::index_t;

enum class uoro_mutation {
  none,
  previous_pair,              ///< q_t meets s~, theta~ of the step before
  theta_not_divided_by_rho0,  ///< s~ is multiplied, theta~ is not divided
  b_not_divided_by_rho1,
  divides_by_rho_plus,   ///< multiplies by rho, divides by rho + 0.01
  rho_of_current_sign,   ///< rho1 times 1.2 or 0.8 by the current sign
  rho_of_previous_sign,  ///< the same by the sign before: allowed
  one_sign,              ///< the same sign for all units
  independent_signs,     ///< s~ and theta~ draw their own
  no_jacobian,           ///< s~ carried without J
  variance_one_third     ///< E nu nu' = I / 3
};

/// Exact mean and covariance of the mutant on the golden sequence.
inline unroll::testing::enumeration enumerate_uoro(uoro_mutation m) {
  using namespace unroll;
  using vec = std::array<double, 2>;
  using big = std::array<double, 8>;
  using enum uoro_mutation;
  const auto norm = [](const auto& v) {
    double sum = 0;
    for (const double x : v) sum += x * x;
    return std::sqrt(sum);
  };
  const golden::rnn<> f;
  const auto theta = golden::theta();
  const auto xs = golden::inputs();

  testing::enumerator all;
  const testing::enumerating_chooser draw(all);
  return testing::enumerate_outcomes(all, 8, [&](view<double> g) {
    for (double& v : g) v = 0;
    vec h{.3, .3}, s{}, tape{}, workspace{};
    big th{};
    double previous_sign = 1;
    for (std::size_t t = 0; t < xs.size(); ++t) {
      vec next{}, j{}, nu{}, nu_b{};
      double loss = 0;
      const edge<double> e{theta, h, next, tape, &loss, workspace, std::int64_t(t)};
      f.step(xs[t], e);
      const auto credit = [&] {
        const double c = (next[0] - xs[t].y[0]) * s[0] + (next[1] - xs[t].y[1]) * s[1];
        for (index_t p = 0; p < 8; ++p) g[p] += c * th[std::size_t(p)];
      };
      if (m == previous_pair) credit();

      f.jvp(xs[t], e, {}, s, j, nullptr);
      if (m == no_jacobian) j = s;
      const auto step = std::int64_t(t);
      if (m == one_sign) {
        draw.signs(step, view<double>(nu.data(), 1));
        nu[1] = nu[0];
      } else {
        draw.signs(step, view<double>(nu));
      }
      nu_b = nu;
      if (m == independent_signs) draw.signs(step + 100, view<double>(nu_b));
      if (m == variance_one_third)
        for (std::size_t i = 0; i < 2; ++i) nu_b[i] = nu[i] /= std::sqrt(3.0);
      big b{};
      f.vjp(xs[t], e, nu_b, 0, {}, b);

      double rho0 = 1, rho1 = std::sqrt(norm(b) / norm(nu));
      if (norm(th) > 0) rho0 = std::sqrt(norm(th) / norm(j));
      if (m == rho_of_current_sign) rho1 *= nu[0] > 0 ? 1.2 : 0.8;
      if (m == rho_of_previous_sign) rho1 *= previous_sign > 0 ? 1.2 : 0.8;
      previous_sign = nu[0];
      double over0 = rho0, over1 = rho1;
      if (m == theta_not_divided_by_rho0) over0 = 1;
      if (m == b_not_divided_by_rho1) over1 = 1;
      if (m == divides_by_rho_plus) {
        over0 += .01;
        over1 += .01;
      }
      for (std::size_t i = 0; i < 2; ++i) s[i] = rho0 * j[i] + rho1 * nu[i];
      for (std::size_t p = 0; p < 8; ++p) th[p] = th[p] / over0 + b[p] / over1;
      if (m != previous_pair) credit();
      h = next;
    }
  });
}

}  // namespace mutants
