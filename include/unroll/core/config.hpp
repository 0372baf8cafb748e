#pragma once

// What this library cannot be compiled with. A missing file ends the compilation there and then; after #error
// hundreds of messages about the rest would follow.
#if !(__cplusplus >= 202002L || (defined(_MSVC_LANG) && _MSVC_LANG >= 202002L))
#include "unroll needs C++20: compile with -std=c++20"
#endif
#if !(defined(__cpp_exceptions) || defined(_CPPUNWIND))
#include "unroll reports errors by exceptions: compile without -fno-exceptions"
#endif
#if (defined(__SIZEOF_PTRDIFF_T__) && __SIZEOF_PTRDIFF_T__ < 8) || (defined(_WIN32) && !defined(_WIN64))
#include "unroll needs a 64-bit target"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#include "unroll needs a little-endian target: files are read and written as they lie in memory"
#endif
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
#error \
    "unroll: compile without -ffast-math, -Ofast, -fassociative-math and -funsafe-math-optimizations: gradients would be wrong"
#elif defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "unroll: compile without -ffinite-math-only: a run that diverges would not be noticed"
#endif

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

/// The version of the library; CMake reads it here. Before 1.0 public names may change where the minor
/// version does.
#define UNROLL_VERSION_MAJOR 0
#define UNROLL_VERSION_MINOR 2
#define UNROLL_VERSION_PATCH 0

namespace unroll {

/// Signed size and index type of the whole library.
using index_t = std::ptrdiff_t;

}  // namespace unroll
