#pragma once

#include "unroll/cells/diagonal_cell.hpp"
#include "unroll/cells/rotation.hpp"

namespace unroll::cells {

/// The non-linear recurrent trace unit (Elelimy, White, Bowling & White 2024, arXiv:2409.01449), with tanh:
///
///   (s_1', s_2') = tanh( r R s + gamma (W_x x + b) ),   r = exp(-e^nu),   gamma = sqrt(1 - r^2)
///
/// R the rotation by e^phi, for every unit apart. y = W_y s' + b_y, or the first numbers s_1' where out = 0.
/// Parameters: w_x, the paper's W_1 above W_2 (2 hidden x in), b (2 hidden), nu and phi (hidden), then w_y
/// (out x 2 hidden) and b_y. The paper has no b. Its linear unit, without tanh, is `lru`.
template <class T>
using rtu = diagonal_cell<rotation_equations<T, true>>;
using rtu_options = rotation_options;  ///< those of every cell of rotations

}  // namespace unroll::cells
