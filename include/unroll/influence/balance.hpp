#pragma once

#include <cmath>

#include "unroll/core/config.hpp"

namespace unroll::influence {

/// The two factors that a product is rescaled by: a -> by a, b -> b over. `over` is 1 / `by`.
struct rescaling {
  double by = 1, over = 1;  ///< factor of one part, and of the other
};

/// The factors that give both sides of a product the same norm, from the norms `left` and `right`: by =
/// sqrt(right / (left + epsilon)) + epsilon. Where one of them is 0 the product is zero: both factors are 0.
inline rescaling balance_norms(double left, double right, double epsilon) {
  if (left == 0 || right == 0) return {0, 0};
  const double rho = std::sqrt(right / (left + epsilon)) + epsilon;
  return {rho, 1 / rho};
}

}  // namespace unroll::influence
