// A step that changes the system.
// expect: a system needs: void step\(const input& x, const unroll::edge<scalar>& e\) const
#include "unroll/system/explain.hpp"

struct cell {
  using scalar = double;
  using input = double;
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
#ifdef UNROLL_SHOULD_FAIL
  void step(double, const unroll::edge<double>&) {}
#else
  void step(double, const unroll::edge<double>&) const {}
#endif
};

static_assert(unroll::require_recurrent<cell>());
