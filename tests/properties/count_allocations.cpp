// Lets the conformance tests of this program see what an estimator allocates.
#include "unroll/testing/count_allocations.hpp"
