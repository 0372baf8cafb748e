#pragma once

#include "unroll/cells/simple_recurrent.hpp"

namespace unroll::cells {

/// phi(z) = max(z, 0), for simple_recurrent; its slope at 0 is 0. NaN stays NaN, so that a step that is not
/// finite is seen.
struct rectifier {
  static constexpr const char* name = "relu";  ///< of the cell, for messages
  /// z = max(z, 0).
  template <class Isa, class T>
  UNROLL_INLINE static void apply_on(T* z, index_t n) {
    simd::map_on<Isa>(
        []<class V>(const V& u) UNROLL_INLINE {
          constexpr V zero{};
          return simd::where_greater(zero, u, zero, u);
        },
        n, z, z);
  }
  /// 1 where y > 0, else 0.
  template <class T>
  static T slope(T y) {
    return T(y > 0);
  }
  /// dy where y > 0, else 0.
  template <class V>
  UNROLL_INLINE static V times_slope(const V& dy, const V& y) {
    constexpr V zero{};
    return simd::where_greater(y, zero, dy, zero);
  }
};

using relu_options = simple_recurrent_options;  ///< those of every simple recurrent cell

/// s' = max(W_h s + W_x x + b, 0), y = W_y s' + b_y: the recurrent network that Le, Jaitly and Hinton (2015)
/// start from W_h = I (init_irnn), nn.RNN(nonlinearity="relu") of PyTorch, VanillaRNN of haiku.
template <class T>
using relu = simple_recurrent<T, rectifier>;

}  // namespace unroll::cells
