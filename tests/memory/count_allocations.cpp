// Lets the conformance checks see what every model and policy of this program allocates.
#include "unroll/testing/count_allocations.hpp"
