// An estimator that needs a vjp, over a system that has none: the message is the signature to write.
// expect: this estimator needs: void vjp\(const input& x, const unroll::const_edge<scalar>& e,
// expect: unroll::dstate<const scalar> dnext, scalar dloss, unroll::dstate<scalar> ds,
// expect: it ADDS to ds and dtheta
#include "unroll/estimate/bptt.hpp"

struct cell {
  using scalar = double;
  using input = double;
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
  void step(double x, const unroll::edge<double>& e) const {
    e.next[0] = e.theta[0] * e.s[0] + x;
    *e.loss = e.next[0];
  }
#ifndef UNROLL_SHOULD_FAIL
  void vjp(double, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext, double dloss,
           unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    const double d = dloss + (dnext.empty() ? 0 : dnext[0]);
    if (!ds.empty()) ds[0] += d * e.theta[0];
    if (!dtheta.empty()) dtheta[0] += d * e.s[0];
  }
#endif
};

unroll::bptt estimator(cell{});
