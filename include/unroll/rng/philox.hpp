#pragma once

#include <array>
#include <cstdint>

#include "unroll/core/config.hpp"

namespace unroll {

namespace detail {
// Of the words 0 and 2 of a counter and of the two of a key.
inline constexpr std::uint32_t philox_times_0 = 0xD2511F53u, philox_times_2 = 0xCD9E8D57u;
inline constexpr std::uint32_t philox_plus_0 = 0x9E3779B9u, philox_plus_1 = 0xBB67AE85u;
inline constexpr int philox_rounds = 10;
}  // namespace detail

/// Philox 4x32 with 10 rounds (Salmon, Moraes, Dror, Shaw 2011): 128 random bits as a pure function of a
/// 128-bit counter and a 64-bit key. Checked against the published known answers.
UNROLL_HD constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                        std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < detail::philox_rounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{detail::philox_times_0} * counter[0];
    const std::uint64_t p1 = std::uint64_t{detail::philox_times_2} * counter[2];
    counter = {std::uint32_t(p1 >> 32) ^ counter[1] ^ key[0], std::uint32_t(p1),
               std::uint32_t(p0 >> 32) ^ counter[3] ^ key[1], std::uint32_t(p0)};
    key[0] += detail::philox_plus_0;
    key[1] += detail::philox_plus_1;
  }
  return counter;
}

}  // namespace unroll
