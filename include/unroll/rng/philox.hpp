#pragma once

#include <array>
#include <cstdint>

#include "unroll/core/config.hpp"

namespace unroll {

/// Philox 4x32 with 10 rounds (Salmon, Moraes, Dror, Shaw 2011): 128 random bits as a pure function of a
/// 128-bit counter and a 64-bit key. Checked against the published known answers.
UNROLL_HD constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                        std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {std::uint32_t(p1 >> 32) ^ counter[1] ^ key[0], std::uint32_t(p1),
               std::uint32_t(p0 >> 32) ^ counter[3] ^ key[1], std::uint32_t(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace unroll
