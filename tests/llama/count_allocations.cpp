#include "unroll/testing/count_allocations.hpp"
