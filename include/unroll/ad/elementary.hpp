#pragma once

#include <cmath>
#include <compare>

#include "unroll/core/config.hpp"

namespace unroll::ad {

namespace detail {

/// derivative * by, and 0 where one of them is 0, also beside an infinite one: what does not count does no
/// harm.
template <class T>
constexpr T scaled(T derivative, T by) {
  return derivative == T(0) || by == T(0) ? T(0) : derivative * by;
}

}  // namespace detail

/// Arithmetic, comparisons and elementary functions of a number type N over T, every derivative written once.
/// N derives from differentiable<N, T> and offers value() and
///   static N chain(T value, const N& x, T dx)                      a function of x with derivative dx
///   static N chain(T value, const N& x, T dx, const N& y, T dy)    a function of x and y
/// Everything is found by argument-dependent lookup: write `using std::tanh;` and then `tanh(x)`, and the
/// same code runs for float, double and N. Comparisons look at the values alone. Where a function has no
/// derivative (abs at 0, max of equals) one of the one-sided ones, or their mean, is taken.
template <class N, class T>
struct differentiable {
  friend N operator+(const N& x) { return x; }
  friend N operator-(const N& x) { return N::chain(-x.value(), x, T(-1)); }
  friend N operator+(const N& x, const N& y) { return N::chain(x.value() + y.value(), x, T(1), y, T(1)); }
  friend N operator-(const N& x, const N& y) { return N::chain(x.value() - y.value(), x, T(1), y, T(-1)); }
  friend N operator*(const N& x, const N& y) {
    return N::chain(x.value() * y.value(), x, y.value(), y, x.value());
  }
  friend N operator/(const N& x, const N& y) {
    const T q = x.value() / y.value();
    return N::chain(q, x, T(1) / y.value(), y, -q / y.value());
  }
  friend N& operator+=(N& x, const N& y) { return x = x + y; }
  friend N& operator-=(N& x, const N& y) { return x = x - y; }
  friend N& operator*=(N& x, const N& y) { return x = x * y; }
  friend N& operator/=(N& x, const N& y) { return x = x / y; }

  friend bool operator==(const N& x, const N& y) { return x.value() == y.value(); }
  friend std::partial_ordering operator<=>(const N& x, const N& y) { return x.value() <=> y.value(); }

  friend N exp(const N& x) {
    const T v = std::exp(x.value());
    return N::chain(v, x, v);
  }
  friend N log(const N& x) { return N::chain(std::log(x.value()), x, T(1) / x.value()); }
  friend N tanh(const N& x) {
    const T v = std::tanh(x.value());
    return N::chain(v, x, (T(1) - v) * (T(1) + v));
  }
  friend N sin(const N& x) { return N::chain(std::sin(x.value()), x, std::cos(x.value())); }
  friend N cos(const N& x) { return N::chain(std::cos(x.value()), x, -std::sin(x.value())); }
  friend N sqrt(const N& x) {
    const T v = std::sqrt(x.value());
    return N::chain(v, x, T(0.5) / v);
  }
  /// The derivative by the exponent is taken as 0 where x is not positive, so that constant exponents work.
  friend N pow(const N& x, const N& y) {
    const T v = std::pow(x.value(), y.value());
    const T dx = y.value() == T(0) ? T(0) : y.value() * std::pow(x.value(), y.value() - T(1));
    return N::chain(v, x, dx, y, x.value() > T(0) ? v * std::log(x.value()) : T(0));
  }
  friend N abs(const N& x) {
    return N::chain(std::abs(x.value()), x, T(x.value() > T(0)) - T(x.value() < T(0)));
  }
  friend N max(const N& x, const N& y) { return x.value() < y.value() ? y : x; }
  friend N min(const N& x, const N& y) { return y.value() < x.value() ? y : x; }
};

}  // namespace unroll::ad
