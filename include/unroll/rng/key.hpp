#pragma once

#include <cstdint>

#include "unroll/rng/philox.hpp"

namespace unroll {

/// Names one stream of random numbers. Same key, same bits.
struct key {
  std::uint64_t seed = 0;
  friend constexpr bool operator==(const key&, const key&) = default;
};

/// An independent stream for the n-th child of `parent`; folds nest. Two streams are the same only where all
/// 64 bits of their keys agree, which is as improbable as it is for random keys.
UNROLL_HD constexpr key fold(key parent, std::uint64_t n) {
  const auto r = philox({std::uint32_t(n), std::uint32_t(n >> 32), 0x666F6C64u, 0},
                        {std::uint32_t(parent.seed), std::uint32_t(parent.seed >> 32)});
  return {std::uint64_t(r[0]) | std::uint64_t(r[1]) << 32};
}

}  // namespace unroll
