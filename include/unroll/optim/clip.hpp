#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/exec/executor.hpp"

namespace unroll {

/// Scales g down to the Euclidean norm `most` where it is longer (Pascanu, Mikolov & Bengio 2013) and returns
/// the norm it had. Squares neither overflow nor underflow; a norm that is itself beyond the doubles is
/// returned as infinity, and g is scaled all the same. Where g holds NaN or infinity it is left as it is and
/// the returned norm is not finite; the optimisers refuse such a gradient.
///
/// Bias: an estimate keeps its direction, but long ones count less in the mean, which is that of another
/// vector, in general of another direction; none where no estimate is longer than `most`. A gradient that is
/// exact keeps its direction.
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

/// The same of a gradient at the place of an executor, by whose `clip` it is done where that is not the host:
/// squares in double, added by a fixed tree, and the root and what g is multiplied by are P. A norm beyond P
/// is returned as infinity, and g is left as it is. `norm`: a number at that place, written there. Waits for
/// it.
template <class E, class T>
double clip_norm(const E& e, dparams<T> g, double most, T* norm) {
  if constexpr (E::where == place::host) {
    return clip_norm(g, most);
  } else {
    if (!(most > 0)) fail("clip_norm", "most", "is " + number_text(most) + ", must be positive");
    e.clip(most, g.data(), g.size(), norm);
    return double(exec::value(e, norm));
  }
}

/// Bounds every number of g to [-most, most] by itself (Mikolov 2012, for recurrent networks) and returns how
/// many it cut. NaN and infinity are left as they are, so that the optimisers refuse such a gradient.
///
/// Bias: number by number, E clip(g^) lies between -most and most and is E g^ only where no outcome is cut;
/// even an exact gradient changes its direction, whenever a number of it is cut.
template <class T>
index_t clip_value(dparams<T> g, double most) {
  if (!(most > 0)) fail("clip_value", "most", "is " + number_text(most) + ", must be positive");
  index_t cut = 0;
  for (T& v : g) {
    if (!(std::abs(double(v)) > most && std::isfinite(v))) continue;
    v = T(std::copysign(most, double(v)));
    ++cut;
  }
  return cut;
}
/// The same of a block.
template <class T>
index_t clip_value(gradient<T>& g, double most) {
  return clip_value(dparams<T>(g), most);
}

/// ADDS to g the gradients of all lanes, each of them scaled down to the norm `most` before (clip_norm; Abadi
/// et al. 2016, algorithm 1, without its noise), and returns how many were longer. `lanes`: lanes x params, a
/// gradient a lane, one behind the other, as lane_vjp or an estimator for every lane (with_lanes(1)) gives
/// them; scaled afterwards. Throws unroll::error unless they are a whole number of gradients of g's size.
///
/// Bias: that of clip_norm in each lane; a lane whose losses are steep has less weight in the sum, so that
/// even exact gradients add up to another direction.
template <class T>
index_t clip_lanes(view<T> lanes, double most, dparams<T> g) {
  if (g.empty() || lanes.size() % g.size() != 0)
    fail("clip_lanes", "lanes",
         "have " + std::to_string(lanes.size()) + " numbers, which is no multiple of the " +
             std::to_string(g.size()) + " of g");
  index_t cut = 0;
  for (index_t first = 0; first < lanes.size(); first += g.size()) {
    const dparams<T> lane(lanes.data() + first, g.size());
    if (clip_norm(lane, most) > most) ++cut;
    linalg::axpy(T(1), lane.data(), g.data(), g.size());
  }
  return cut;
}

}  // namespace unroll
