#pragma once

#if __has_include(<unistd.h>) && !defined(_WIN32)
#include <time.h>
#else
#include <chrono>
#endif

#include "unroll/core/config.hpp"

namespace unroll::detail {

/// Seconds of a clock that never goes back. (<chrono> would be a twentieth of what unroll.hpp costs the
/// compiler.)
inline double monotonic_seconds() {
#if __has_include(<unistd.h>) && !defined(_WIN32)
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
#else
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
#endif
}

}  // namespace unroll::detail
