// A misspelt option within braces: the compiler shows the constructor, whose line lists the options.
// expect: options: block, epsilon, balance
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/uoro.hpp"

void make(const unroll::cells::elman<double>& cell) {
#ifdef UNROLL_SHOULD_FAIL
  unroll::uoro estimator(cell, {.blok = 2});
#else
  unroll::uoro estimator(cell, {.block = 2});
#endif
  (void)estimator;
}
