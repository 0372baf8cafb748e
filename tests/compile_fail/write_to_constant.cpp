// A constant vector passed where a gradient is written.
// expect: (could not convert|no viable conversion|no known conversion|invalid conversion)
#include <vector>

#include "unroll/core/view.hpp"

void write(unroll::dparams<double>);

#ifdef UNROLL_SHOULD_FAIL
void use(const std::vector<double>& g) { write(g); }
#else
void use(std::vector<double>& g) { write(g); }
#endif
