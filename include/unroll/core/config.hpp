#pragma once

#include <cassert>
#include <cstddef>

/// Marks a function that runs on the host and on a CUDA device.
#if defined(__CUDACC__)
#define UNROLL_HD __host__ __device__
#else
#define UNROLL_HD
#endif

/// Index checks of inner loops; off under NDEBUG. Sizes at an interface are checked by exceptions instead.
#define UNROLL_ASSERT(condition) assert(condition)

namespace unroll {

inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

/// Signed size and index type of the whole library.
using index_t = std::ptrdiff_t;

}  // namespace unroll
