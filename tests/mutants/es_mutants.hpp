#pragma once

#include <array>

#include "unroll/testing/enumerate.hpp"

// A polynomial system whose smoothed gradients are known, and evolution strategies with one line wrong.
namespace mutants {

using unroll::index_t;

/// s_t = 0.6 s + 0.5 theta s^2 + theta, loss s_t^2, s_0 = 0.5. At theta = 0.3 over three steps and with
/// sigma = 0.4 the three gradients below differ by far.
struct polynomial {
  using scalar = double;
  using input = int;
  static constexpr double theta = .3, sigma = .4;
  static constexpr double true_gradient = 9.519767, jointly_smoothed = 72.389549,
                          independently_smoothed = 15.306396, truncated = 7.252912;

  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
  void start(unroll::state<double> s) const { s[0] = .5; }
  void step(int, const unroll::edge<double>& e) const {
    e.next[0] = advance(e.theta[0], e.s[0]);
    *e.loss = e.next[0] * e.next[0];
  }
  static double advance(double th, double s) { return .6 * s + .5 * th * s * s + th; }
};

enum class es_mutation {
  none,
  missing_half,    ///< divides by sigma instead of 2 sigma
  truncated_noise  ///< fresh noise every step on carried states, credited to the newest noise only
};

/// Exact mean of the mutant on the polynomial, by quadrature.
inline double enumerate_es(es_mutation m) {
  using namespace unroll;
  enumerator all;
  const enumerating_chooser draw(all);
  const auto r = testing::enumerate_outcomes(all, 1, [&](view<double> g) {
    g[0] = 0;
    double z = 0, up = .5, down = .5;
    for (int t = 0; t < 3; ++t) {
      draw.normals(m == es_mutation::truncated_noise ? t : 0, view<double>(&z, 1));
      up = polynomial::advance(polynomial::theta + polynomial::sigma * z, up);
      down = polynomial::advance(polynomial::theta - polynomial::sigma * z, down);
      g[0] += z * (up * up - down * down) / ((m == es_mutation::missing_half ? 1 : 2) * polynomial::sigma);
    }
  });
  return r.mean[0];
}

}  // namespace mutants
