#pragma once

#include <type_traits>

#include "unroll/ad/elementary.hpp"

namespace unroll::ad {

/// A value with its derivative in one direction: forward mode. Numbers convert to constants.
template <class T>
class dual : public differentiable<dual<T>, T> {
 public:
  constexpr dual() = default;
  template <class A>
  requires std::is_arithmetic_v<A>
  constexpr dual(A value) : value_(static_cast<T>(value)) {}
  constexpr dual(T value, T tangent) : value_(value), tangent_(tangent) {}

  constexpr T value() const { return value_; }
  constexpr T tangent() const { return tangent_; }  ///< the derivative along the direction

  /// f(x) of value `value` and derivative `dx`.
  static constexpr dual chain(T value, const dual& x, T dx) {
    return {value, detail::scaled(dx, x.tangent_)};
  }
  /// f(x, y) of value `value` and partial derivatives dx, dy.
  static constexpr dual chain(T value, const dual& x, T dx, const dual& y, T dy) {
    return {value, detail::scaled(dx, x.tangent_) + detail::scaled(dy, y.tangent_)};
  }

 private:
  T value_ = 0;
  T tangent_ = 0;
};

}  // namespace unroll::ad
