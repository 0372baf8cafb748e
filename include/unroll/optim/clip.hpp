#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"

namespace unroll {

/// Scales g down to the Euclidean norm `most` where it is longer (Pascanu, Mikolov & Bengio 2013) and returns
/// the norm it had. Squares neither overflow nor underflow; a norm that is itself beyond the doubles is
/// returned as infinity, and g is scaled all the same. Where g holds NaN or infinity it is left as it is and
/// the returned norm is not finite; the optimisers refuse such a gradient. Clipping makes an unbiased
/// gradient biased.
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
