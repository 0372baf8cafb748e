#pragma once

#include "unroll/cells/simple_recurrent.hpp"

namespace unroll::cells {

/// phi = tanh, for simple_recurrent.
struct hyperbolic_tangent {
  static constexpr const char* name = "elman";  ///< of the cell, for messages
  /// z = tanh(z).
  template <class Isa, class T>
  UNROLL_INLINE static void apply_on(T* z, index_t n) {
    simd::map_on<Isa>([](const auto& u) UNROLL_INLINE { return simd::tanh(u); }, n, z, z);
  }
  /// 1 - y^2
  template <class T>
  static T slope(T y) {
    return 1 - y * y;
  }
  /// dy (1 - y^2).
  template <class V>
  UNROLL_INLINE static V times_slope(const V& dy, const V& y) {
    UNROLL_FUSES
    return dy * (1 - y * y);
  }
};

using elman_options = simple_recurrent_options;  ///< those of every simple recurrent cell

/// The vanilla recurrent network of Elman (1990): s' = tanh(W_h s + W_x x + b), y = W_y s' + b_y.
template <class T>
using elman = simple_recurrent<T, hyperbolic_tangent>;

}  // namespace unroll::cells
