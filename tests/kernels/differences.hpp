#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "unroll/core/config.hpp"

namespace tests {

/// Numbers in [-1, 1), the same for the same seed; those of float are those of double rounded.
template <class T>
std::vector<T> random_numbers(unroll::index_t n, std::uint32_t seed) {
  std::uint32_t s = seed * 2654435761u + 1u;
  std::vector<T> x(std::size_t(n), T(0));
  for (T& v : x) {
    s = s * 1664525u + 1013904223u;
    v = T(double(s >> 8) / double(1u << 23) - 1);
  }
  return x;
}

/// The largest difference of two vectors.
template <class A, class B>
double distance(const std::vector<A>& a, const std::vector<B>& b) {
  double worst = a.size() == b.size() ? 0 : HUGE_VAL;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = std::abs(double(a[i]) - double(b[i]));
    worst = d <= worst ? worst : d;  // NaN is the worst
  }
  return worst;
}

/// Largest difference between `slope` and the derivatives of f by about 40 of the elements of x: central
/// differences at h and h / 2, extrapolated to h^4.
template <class F>
double worst_slope(F f, std::vector<double>& x, const std::vector<double>& slope) {
  double worst = 0;
  const std::size_t step = std::max<std::size_t>(1, x.size() / 40);
  for (std::size_t i = 0; i < x.size(); i += step) {
    const double centre = x[i];
    const auto central = [&](double h) {
      x[i] = centre + h;
      const double up = f();
      x[i] = centre - h;
      const double down = f();
      x[i] = centre;
      return (up - down) / (2 * h);
    };
    const double h = 1e-3, d = (4 * central(h / 2) - central(h)) / 3;
    const double error = std::abs(d - slope[i]);
    worst = error <= worst ? worst : error;
  }
  return worst;
}

/// The derivative of f at x along d, from the same differences.
template <class F>
double derivative_along(F f, std::vector<double>& x, const std::vector<double>& d) {
  const std::vector<double> centre = x;
  const auto central = [&](double h) {
    const auto at = [&](double step) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = centre[i] + step * d[i];
      return f();
    };
    const double up = at(h), down = at(-h);
    x = centre;
    return (up - down) / (2 * h);
  };
  return (4 * central(5e-4) - central(1e-3)) / 3;
}

template <class A>
double dot(const std::vector<A>& a, const std::vector<A>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

}  // namespace tests
