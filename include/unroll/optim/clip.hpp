#pragma once

#include <cmath>

#include "unroll/core/block.hpp"

namespace unroll {

/// Scales g down to the norm `most` when it is longer (Pascanu, Mikolov & Bengio 2013) and returns the norm
/// it had. A gradient that is not finite is left alone, and so is the norm that tells. Clipping an unbiased
/// gradient leaves a biased one.
template <class T>
double clip_norm(dparams<T> g, double most) {
  if (!(most > 0)) fail("clip_norm", "most", "is " + std::to_string(most) + ", must be positive");
  double square = 0;  // in double: the square of a float gradient may overflow
  for (const T& v : g) square += double(v) * double(v);
  const double norm = std::sqrt(square);
  if (norm > most && std::isfinite(norm))
    for (T& v : g) v = T(double(v) * (most / norm));
  return norm;
}
template <class T>
double clip_norm(gradient<T>& g, double most) {
  return clip_norm(dparams<T>(g), most);
}

}  // namespace unroll
