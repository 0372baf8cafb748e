#pragma once

#include <array>
#include <vector>

#include "unroll/ad/dual.hpp"
#include "unroll/system/concepts.hpp"
#include "unroll/testing/gauss_hermite.hpp"

// Systems of several parameters whose losses are polynomials of them, so that Gauss-Hermite products
// integrate the smoothed losses, their gradients and the evolution strategies exactly.
namespace polynomials {

using unroll::index_t;

/// Linear in the state, and in the parameters of each step.
struct bilinear {
  static constexpr std::size_t parameters = 3, states = 2;
  static constexpr std::array<double, parameters> values{.5, -.4, .7};
  static constexpr std::array<double, states> start{.5, -.3};
  static constexpr std::array<int, 3> nodes{3, 3, 5};  ///< that suffice for windows of 1, 2 and 3 steps
  template <class N>
  static N step(double x, const N* theta, const N* s, N* next) {
    next[0] = theta[0] * s[0] + theta[1] * s[1] + x;
    next[1] = theta[2] * s[0] - 0.4 * s[1];
    return next[0] * next[0] + next[0] * next[1];
  }
};

/// The loss has a parameter of its own.
struct readout {
  static constexpr std::size_t parameters = 2, states = 1;
  static constexpr std::array<double, parameters> values{.8, -.6};
  static constexpr std::array<double, states> start{.2};
  static constexpr std::array<int, 3> nodes{3, 3, 3};
  template <class N>
  static N step(double x, const N* theta, const N* s, N* next) {
    next[0] = 0.6 * s[0] + theta[0] * x;
    const N error = theta[1] * next[0] - x;
    return error * error;
  }
};

/// Quadratic in the state: of degree 14 in theta_0 after three steps.
struct quadratic {
  static constexpr std::size_t parameters = 2, states = 1;
  static constexpr std::array<double, parameters> values{.7, -.3};
  static constexpr std::array<double, states> start{.5};
  static constexpr std::array<int, 3> nodes{5, 7, 9};
  template <class N>
  static N step(double x, const N* theta, const N* s, N* next) {
    next[0] = 0.5 * s[0] + 0.3 * theta[0] * s[0] * s[0] + theta[1] * x;
    return next[0] * next[0];
  }
};

inline const std::vector<double> inputs{1, -.5, .8};

/// One of them as a system without derivatives.
template <class P>
struct system {
  using scalar = double;
  using input = double;
  unroll::dims size() const { return {index_t(P::parameters), index_t(P::states), 0, 0, 1}; }
  void start(unroll::state<double> s) const { std::copy(P::start.begin(), P::start.end(), s.begin()); }
  void step(double x, const unroll::edge<double>& e) const {
    *e.loss = P::step(x, e.theta.data(), e.s.data(), e.next.data());
  }
};

/// The gradient of E L(theta + sigma z^1, .., theta + sigma z^W) over the inputs, a z for each window of
/// `window` steps: the mean of pathwise derivatives, in dual numbers.
template <class P>
std::array<double, P::parameters> smoothed_gradient(double sigma, std::size_t window) {
  const std::size_t T = inputs.size(), windows = (T + window - 1) / window, n = windows * P::parameters;
  const auto rule = unroll::testing::make_hermite_rule(P::nodes[window - 1]);
  using number = unroll::ad::dual<double>;
  std::array<double, P::parameters> mean{};
  std::vector<std::size_t> at(n);
  for (bool more = true; more;) {
    double weight = 1;
    for (const std::size_t i : at) weight *= rule.weight[i];
    for (std::size_t p = 0; p < P::parameters; ++p) {
      std::array<number, P::states> s{}, next{};
      for (std::size_t i = 0; i < P::states; ++i) s[i] = P::start[i];
      for (std::size_t t = 0; t < T; ++t) {
        std::array<number, P::parameters> theta{};
        for (std::size_t q = 0; q < P::parameters; ++q)
          theta[q] = number(P::values[q] + sigma * rule.node[at[t / window * P::parameters + q]], p == q);
        mean[p] += weight * P::step(inputs[t], theta.data(), s.data(), next.data()).tangent();
        s = next;
      }
    }
    std::size_t i = 0;
    while (i < n && ++at[i] == rule.node.size()) at[i++] = 0;
    more = i < n;
  }
  return mean;
}

/// |a - b| / |b|
template <class A, class B>
double distance(const A& a, const B& b) {
  double top = 0, bottom = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    top += (a[i] - b[i]) * (a[i] - b[i]);
    bottom += b[i] * b[i];
  }
  return std::sqrt(top / bottom);
}

}  // namespace polynomials
