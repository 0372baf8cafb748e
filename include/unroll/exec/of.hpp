#pragma once

#include "unroll/exec/executor.hpp"
#if !defined(__CUDACC__)  // device code brings executors of its own
#include "unroll/exec/host.hpp"
#endif
