#pragma once

#include <utility>

#include "unroll/system/with_resets.hpp"

namespace unroll {

/// F whose first state is learned: theta has behind that of F the state s0 of a lane, from which every lane
/// begins, at the first step of a sequence and where its flag is set.
///
///   F'([theta; s0], s, x) = F(theta, R s + (1 - R) s0, x.x),     R: 0 in the lanes that begin, 1 in the
///   others
///
/// The gradient of s0 is the sum of what arrives in front of those steps. It is a derivative of F' by theta
/// like any other, so that every estimator learns it; one that truncates has of it what its window reaches. A
/// state that the caller gives to reset() is refused. Over several lanes there are neither Jacobians
/// nor factors: rtrl and the rank-one estimators then make theirs of vjp, and what has no other way (snap,
/// kf_rtrl, preuoro, diagonal_rtrl, rflo, eprop) says that they are not there. init() begins with the start
/// of F.
template <class F>
with_resets<F, true> learned_start(F system) {
  return with_resets<F, true>(std::move(system));
}

}  // namespace unroll
