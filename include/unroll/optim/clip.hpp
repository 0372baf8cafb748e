#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"

namespace unroll {

/// Scales g down to the norm `most` when it is longer (Pascanu, Mikolov & Bengio 2013) and returns the norm
/// it had, right for numbers of any size whose norm is a double (a longer one is scaled too, and returned as
/// infinity). A gradient that is not finite is left alone, and so is the norm that tells; the optimisers then
/// refuse it. Clipping an unbiased gradient leaves a biased one.
template <class T>
double clip_norm(dparams<T> g, double most) {
  if (!(most > 0)) fail("clip_norm", "most", "is " + std::to_string(most) + ", must be positive");
  int power = 0;  // the numbers are taken times 2^power
  const auto norm_of_scaled = [&] {
    double square = 0;
    for (const T& v : g) {
      const double scaled = power == 0 ? double(v) : std::ldexp(double(v), power);
      square += scaled * scaled;
    }
    return std::sqrt(square);
  };
  double norm = norm_of_scaled();
  if (!(norm > 1e-140 && norm < 1e150) &&
      linalg::all_finite(g.data(), g.size())) {  // squares are rounded off
    double largest = 0;
    for (const T& v : g) largest = std::max(largest, std::abs(double(v)));
    if (largest == 0) return 0;
    power = -std::ilogb(largest);
    norm = norm_of_scaled();
  }
  if (norm > std::ldexp(most, power) && std::isfinite(norm))
    for (T& v : g) {
      const double scaled = power == 0 ? double(v) : std::ldexp(double(v), power);
      v = T(scaled * (most / norm));
    }
  return std::ldexp(norm, -power);
}
/// The same of a block.
template <class T>
double clip_norm(gradient<T>& g, double most) {
  return clip_norm(dparams<T>(g), most);
}

}  // namespace unroll
