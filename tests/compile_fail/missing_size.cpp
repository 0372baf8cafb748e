// A system that does not say its sizes.
// expect: a system needs: unroll::dims size\(\) const
#include "unroll/system/explain.hpp"

struct cell {
  using scalar = double;
  using input = double;
#ifdef UNROLL_SHOULD_FAIL
  int size() const { return 1; }
#else
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
#endif
  void step(double, const unroll::edge<double>&) const {}
};

static_assert(unroll::require_recurrent<cell>());
