// Lets estimator_conformance see what every estimator of this program allocates.
#include "unroll/testing/count_allocations.hpp"
