#pragma once

#include "unroll/cells/simple_recurrent.hpp"

namespace unroll::cells {

struct hyperbolic_tangent {
  static constexpr const char* name = "elman";
  template <class T>
  static void apply(T* z, index_t n) {
    linalg::tanh(z, z, n);
  }
  template <class T>
  static T slope(T y) {
    return 1 - y * y;
  }
};

using elman_options = simple_recurrent_options;

/// The vanilla recurrent network of Elman (1990): s' = tanh(W_h s + W_x x + b), y = W_y s' + b_y.
template <class T>
using elman = simple_recurrent<T, hyperbolic_tangent>;

}  // namespace unroll::cells
