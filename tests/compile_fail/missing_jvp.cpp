// A forward-mode estimator over a system without a jvp.
// expect: this estimator needs: void jvp\(const input& x, const unroll::const_edge<scalar>& e,
// expect: it WRITES dnext and \*dloss
#include "unroll/system/explain.hpp"

struct cell {
  using scalar = float;
  using input = double;
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
  void step(double, const unroll::edge<float>&) const {}
#ifndef UNROLL_SHOULD_FAIL
  void jvp(double, const unroll::const_edge<float>&, unroll::params_tangent<const float>,
           unroll::state_tangent<const float>, unroll::state_tangent<float>, float*) const {}
#endif
};

static_assert(unroll::require_jvp<cell>());
