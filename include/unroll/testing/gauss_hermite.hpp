#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "unroll/core/config.hpp"

namespace unroll::testing {

/// Probabilists' Gauss-Hermite rule: E f(z) = sum weight_i f(node_i) for z ~ N(0, 1).
struct hermite_rule {
  std::vector<double> node, weight;  ///< nodes and their probabilities
};
/// Nodes by Newton's method on the Hermite polynomial He_n, weights n! / (n He_{n-1}(x))^2.
inline hermite_rule make_hermite_rule(int nodes) {
  hermite_rule r;
  const auto he = [](int n, double x) {  // (He_n, He_{n-1}) by He_{k+1} = x He_k - k He_{k-1}
    double a = 1, b = 0;
    for (int k = 0; k < n; ++k) {
      const double c = x * a - double(k) * b;
      b = a;
      a = c;
    }
    return std::pair{a, b};
  };
  double factorial = 1;
  for (int k = 2; k <= nodes; ++k) factorial *= k;
  const double bound = 2 * std::sqrt(double(nodes)) + 1;
  double before = -bound;
  const int grid = 400 * nodes;
  for (int i = 1; i <= grid; ++i) {  // every sign change on a fine grid brackets one root
    const double after = -bound + 2 * bound * (i - 0.5) / grid;
    const double f0 = he(nodes, before).first, f1 = he(nodes, after).first;
    if ((f0 < 0) != (f1 < 0)) {
      double x = (before + after) / 2;
      for (int k = 0; k < 50; ++k) {
        const auto [f, g] = he(nodes, x);
        x -= f / (nodes * g);  // He_n' = n He_{n-1}
      }
      const double g = he(nodes, x).second;
      r.node.push_back(x);
      r.weight.push_back(factorial / (double(nodes) * nodes * g * g));
    }
    before = after;
  }
  return r;
}

}  // namespace unroll::testing
