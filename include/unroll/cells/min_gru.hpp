#pragma once

#include <array>

#include "unroll/cells/diagonal_cell.hpp"
#include "unroll/core/elementary.hpp"

namespace unroll::cells {

struct min_gru_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units
  index_t out = 1;      ///< size of y; 0: y = s' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;  ///< independent sequences side by side
};

/// A gated unit that does not listen to itself either, for diagonal_cell:
///
///   (z, n) = W_x x + b,   s' = (1 - sigma(z)) s + sigma(z) n
template <class T>
struct min_gru_equations {
  using scalar = T;
  using options_type = min_gru_options;               ///< sizes and loss
  static constexpr const char* name = "min_gru";      ///< of the cell, for messages
  static constexpr index_t states = 1, gates = 2;     ///< numbers of s and of z of a unit
  static constexpr std::array<const char*, 0> own{};  ///< no parameters of its own
  min_gru_options options;

  /// s' and its derivatives by s and by (z, n).
  template <class V>
  UNROLL_INLINE void unit(const V* s, const V* v, V* next, V* J, V* D) const {
    const V z = simd::logistic(v[0]), step = v[1] - s[0];
    next[0] = s[0] + z * step;
    J[0] = T(1) - z;
    D[0] = step * z * (T(1) - z);
    D[1] = z;
  }
};

/// The minimal gated recurrent unit (Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024, arXiv:2410.01201):
/// min_gru_equations with y = W_y s' + b_y. Parameters: w_x (2 hidden x in, rows z, n), b, then w_y and b_y
/// unless out = 0. n is linear, as in the paper's section 3.1; its later form in logarithms makes n positive.
template <class T>
using min_gru = diagonal_cell<min_gru_equations<T>>;

}  // namespace unroll::cells
