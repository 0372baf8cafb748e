#pragma once

#include "unroll/cells/diagonal_cell.hpp"
#include "unroll/cells/rotation.hpp"

namespace unroll::cells {

/// The linear recurrent unit (Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu & De 2023, arXiv:2303.06349):
///
///   h' = lambda h + gamma (W_x x + b),   lambda = exp(-e^nu + i e^phi),   gamma = sqrt(1 - |lambda|^2)
///
/// for complex numbers h of every unit apart, kept as [Re h; Im h]. y = W_y [Re h'; Im h'] + b_y, which is
/// the paper's Re(C h'), or Re h' where out = 0. Parameters: w_x, the real parts of the paper's B above the
/// imaginary ones (2 hidden x in), b (2 hidden), nu and phi (hidden), then w_y (out x 2 hidden) and b_y. The
/// paper learns gamma as a parameter, which begins at this value; it has no b, and adds D x to y, which a
/// loss that reads s' alone does not see.
template <class T>
using lru = diagonal_cell<rotation_equations<T, false>>;
using lru_options = rotation_options;  ///< those of every cell of rotations

}  // namespace unroll::cells
