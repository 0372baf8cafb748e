#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "unroll/core/simd.hpp"

namespace unroll {

/// Exact: every half-precision number, subnormal ones too, is a float.
UNROLL_INLINE inline float from_f16(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16, exponent = h >> 10 & 31u, digits = h & 1023u;
  const auto tiny = std::bit_cast<std::uint32_t>(float(int(digits)) * 0x1p-24f);
  const std::uint32_t usual = (exponent + 112u * (1u + (exponent == 31))) << 23 | digits << 13;
  const std::uint32_t is_tiny = 0u - (exponent == 0);  // no branches: loops over halves become vectors
  const std::uint32_t size = (tiny & is_tiny) | (usual & ~is_tiny);
  return std::bit_cast<float>(sign | size);
}

/// The nearest half-precision number, ties to even; infinity from 65520 on.
inline std::uint16_t to_f16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
  std::uint32_t h = 0x7c00u;
  if (size > 0x7f800000u)
    h = 0x7e00u;  // nan
  else if (size < 0x38800000u)
    h = std::uint32_t(std::nearbyint(std::bit_cast<float>(size) * 0x1p24f));  // subnormal
  else if (size < 0x477ff000u)
    h = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
  return std::uint16_t(sign | h);
}

}  // namespace unroll
