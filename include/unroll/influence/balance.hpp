#pragma once

#include <cmath>

#include "unroll/core/config.hpp"

namespace unroll::influence {

/// The two factors that a product is rescaled by: a -> by a, b -> b over. `over` is 1 / `by`.
struct rescaling {
  double by = 1, over = 1;  ///< factor of one part, and of the other
};

/// Gives both sides the same norm: by = sqrt(right / (left + epsilon)) + epsilon. Where one side is zero the
/// product is zero, and both sides are dropped instead of divided by zero.
inline rescaling balance_norms(double left, double right, double epsilon) {
  if (left == 0 || right == 0) return {0, 0};
  const double rho = std::sqrt(right / (left + epsilon)) + epsilon;
  return {rho, 1 / rho};
}

}  // namespace unroll::influence
