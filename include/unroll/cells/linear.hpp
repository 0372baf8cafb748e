#pragma once

#include "unroll/cells/simple_recurrent.hpp"

namespace unroll::cells {

/// phi = identity, for simple_recurrent.
struct identity {
  static constexpr const char* name = "linear";  ///< of the cell, for messages
  /// z = z.
  template <class Isa, class T>
  UNROLL_INLINE static void apply_on(T*, index_t) {}
  /// 1
  template <class T>
  static T slope(T) {
    return 1;
  }
  /// dy, since phi' = 1.
  template <class V>
  UNROLL_INLINE static V times_slope(const V& dy, const V&) {
    return dy;
  }
};

using linear_options = simple_recurrent_options;  ///< those of every simple recurrent cell

/// The linear recurrence s' = W_h s + W_x x + b, y = W_y s' + b_y. States, gradients and the variance of most
/// estimators have a closed form here.
template <class T>
using linear = simple_recurrent<T, identity>;

}  // namespace unroll::cells
