#pragma once

#include <cstdint>

#include "unroll/core/config.hpp"

namespace unroll {

/// A bfloat16: the upper half of a float. Storage only; arithmetic goes through float. Numbers are rounded
/// once, to nearest, ties to even, subnormals kept, beyond the largest to infinity, every NaN to 0x7fff, as
/// CUDA's __float2bfloat16 and __double2bfloat16 do.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  UNROLL_HD explicit constexpr bf16(float x) : bits(rounded(x)) {}
  UNROLL_HD explicit constexpr bf16(double x) : bits(rounded(to_odd(x))) {}
  UNROLL_HD constexpr operator float() const { return __builtin_bit_cast(float, std::uint32_t(bits) << 16); }

 private:
  UNROLL_HD static constexpr std::uint16_t rounded(float x) {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return std::uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  // The float next to x, towards zero, with its last bit set where x lies between two floats: rounding that
  // to fewer digits is rounding x (Boldo and Melquiond 2008).
  UNROLL_HD static constexpr float to_odd(double x) {
    const float f = float(x);
    if (x != x || double(f) == x) return f;
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, f);
    const bool beyond = x < 0 ? double(f) < x : double(f) > x;
    return __builtin_bit_cast(float, (beyond ? u - 1 : u) | 1u);
  }
};
static_assert(sizeof(bf16) == 2);

}  // namespace unroll
