// A state passed where parameters are wanted.
// expect: (could not convert|no viable conversion|no known conversion).*state_space.*param_space
#include <vector>

#include "unroll/core/view.hpp"

double first(unroll::params<const double> theta) { return theta[0]; }

double use(std::vector<double>& memory) {
#ifdef UNROLL_SHOULD_FAIL
  const unroll::state<double> s(memory);
  return first(s);
#else
  const unroll::params<double> theta(memory);
  return first(theta);
#endif
}
