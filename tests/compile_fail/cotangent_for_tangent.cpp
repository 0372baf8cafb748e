// A gradient passed where a direction is wanted.
// expect: (could not convert|no viable conversion|no known conversion).*param_cotangent.*param_tangent
#include "unroll/core/block.hpp"

void push(unroll::params_tangent<const float>);

void use(unroll::gradient<float>& g) {
#ifdef UNROLL_SHOULD_FAIL
  push(unroll::dparams<float>(g));
#else
  push({g.data(), g.size()});
#endif
}
