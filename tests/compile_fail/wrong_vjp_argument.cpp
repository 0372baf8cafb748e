// A vjp with one wrong argument: the cotangent of the parameters is a plain view of parameters.
// expect: this estimator needs: void vjp\(.*unroll::dparams<scalar> dtheta\) const
#include "unroll/estimate/bptt.hpp"

struct cell {
  using scalar = double;
  using input = double;
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
  void step(double x, const unroll::edge<double>& e) const {
    e.next[0] = e.theta[0] * e.s[0] + x;
    *e.loss = e.next[0];
  }
#ifdef UNROLL_SHOULD_FAIL
  using gradient_view = unroll::params<double>;
#else
  using gradient_view = unroll::dparams<double>;
#endif
  void vjp(double, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext, double dloss,
           unroll::dstate<double> ds, gradient_view dtheta) const {
    const double d = dloss + (dnext.empty() ? 0 : dnext[0]);
    if (!ds.empty()) ds[0] += d * e.theta[0];
    if (!dtheta.empty()) dtheta[0] += d * e.s[0];
  }
};

unroll::bptt estimator(cell{});
