// artbp without a law: one sentence says what a law is.
// expect: artbp\(system, law\) needs a law, the probability of a cut after each step:
// fixed_truncation\(mean\)
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/artbp.hpp"

void make(const unroll::cells::elman<double>& cell) {
#ifdef UNROLL_SHOULD_FAIL
  unroll::artbp estimator(cell);
#else
  unroll::artbp estimator(cell, unroll::fixed_truncation(10));
  const auto copy(estimator);  // not of an artbp
  (void)copy;
#endif
}
