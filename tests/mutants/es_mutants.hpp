#pragma once

#include <array>

#include "tests/support/polynomials.hpp"
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
  truncated_noise  ///< new noise every step on carried states, credited to the newest noise only
};

/// Exact mean of the mutant on the polynomial, by quadrature.
inline double enumerate_es(es_mutation m) {
  using namespace unroll;
  testing::enumerator all;
  const testing::enumerating_chooser draw(all);
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

enum class pes_mutation {
  none,
  missing_half,         ///< divides by sigma instead of 2 sigma
  newest_noise_only,    ///< a loss is credited to the noise of its own window
  all_but_newest,       ///< and to everything but that
  one_number,           ///< the same number perturbs all parameters
  crosses_parameters,   ///< a parameter is paid for the noise of its neighbour
  reuses_noise,         ///< windows share the noise, and each of them is credited
  forgets_state,        ///< the copies begin every window at the start
  swaps_the_pair_late,  ///< the twin of a pair keeps the noise of the window before
};

/// Exact mean of persistent evolution strategies with windows of one step on one of the polynomials.
template <class P>
std::vector<double> enumerate_pes(pes_mutation m, double sigma) {
  using namespace unroll;
  using enum pes_mutation;
  constexpr std::size_t n = P::parameters;
  testing::enumerator all(P::nodes[0]);
  const testing::enumerating_chooser draw(all);
  const auto r = testing::enumerate_outcomes(all, index_t(n), [&](view<double> g) {
    std::array<double, n> z{}, xi{}, up{}, down{}, before{};
    std::array<double, P::states> above = P::start, below = P::start, next{};
    for (double& v : g) v = 0;
    for (std::size_t t = 0; t < polynomials::inputs.size(); ++t) {
      const auto window = std::int64_t(m == reuses_noise ? 0 : t);
      draw.normals(window, view<double>(z.data(), m == one_number ? 1 : index_t(n)));
      if (m == one_number) z.fill(z[0]);
      if (m == forgets_state) above = below = P::start;
      for (std::size_t p = 0; p < n; ++p) {
        up[p] = P::values[p] + sigma * z[p];
        down[p] = P::values[p] - sigma * (m == swaps_the_pair_late ? before[p] : z[p]);
        if (m != all_but_newest) xi[p] += z[p];
      }
      const double x = polynomials::inputs[t];
      double d = P::step(x, up.data(), above.data(), next.data());
      above = next;
      d -= P::step(x, down.data(), below.data(), next.data());
      below = next;
      for (std::size_t p = 0; p < n; ++p) {
        const std::size_t q = m == crosses_parameters ? (p + 1) % n : p;
        g[index_t(p)] += (m == newest_noise_only ? z[q] : xi[q]) * d / ((m == missing_half ? 1 : 2) * sigma);
      }
      if (m == all_but_newest)
        for (std::size_t p = 0; p < n; ++p) xi[p] += z[p];
      before = z;
    }
  });
  return r.mean;
}

}  // namespace mutants
