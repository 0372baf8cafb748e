#pragma once

#include <cmath>
#include <cstdint>

#include "unroll/core/config.hpp"
#include "unroll/core/unfused.hpp"

// Elementary functions that have the same bits on the host and on a device: additions, products, divisions,
// square roots and fused multiply-additions in one order, which IEEE arithmetic rounds alike everywhere. They
// ask for code that is compiled without contraction: nvcc -fmad=false, host -ffp-contract=off, needed where
// the flags of a file allow fused multiply-adds (x86-64 with -mfma, every aarch64). Polynomials are fitted to
// the least largest relative error.
namespace unroll::kernels::math {

namespace detail {

UNROLL_HD inline float float_of(std::uint32_t u) { return __builtin_bit_cast(float, u); }
UNROLL_HD inline std::uint32_t bits_of(float x) { return __builtin_bit_cast(std::uint32_t, x); }

/// 2^(n + r), n an integer in [-252, 254], |r| <= 1/2 (a little more is no harm); the second product rounds
/// subnormal results.
UNROLL_HD inline float power_of_two(float n, float r) {
  float q = 0x1.41fb2ep-13f;
  q = fmaf(q, r, 0x1.5f3f3p-10f);
  q = fmaf(q, r, 0x1.3b2d5p-7f);
  q = fmaf(q, r, 0x1.c6aee6p-5f);
  q = fmaf(q, r, 0x1.ebfbdcp-3f);
  q = fmaf(q, r, 0x1.62e43p-1f);
  const float y = fmaf(q, r, 1.f);
  const int i = int(n), half = i / 2;
  return y * float_of(std::uint32_t(half + 127) << 23) * float_of(std::uint32_t(i - half + 127) << 23);
}
/// x rounded to an integer, |x| < 2^22.
UNROLL_HD inline float nearest(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

}  // namespace detail

/// 2^x within 1 unit in the last place, subnormal results included; 0 below -150, NaN stays NaN.
UNROLL_HD inline float exp2(float x) {
  if (!(x >= -150.f)) return x < 0.f ? 0.f : x;
  if (x >= 128.f) return INFINITY;
  const float n = detail::nearest(x);
  return detail::power_of_two(n, x - n);
}

/// e^x within 1.2 units in the last place, subnormal results included; 0 below -104, NaN stays NaN.
UNROLL_HD inline float exp(float x) {
  if (!(x >= -104.f)) return x < 0.f ? 0.f : x;
  if (x >= 0x1.62e43p+6f) return INFINITY;  // 128 ln 2
  const float n = detail::nearest(x * 0x1.715476p+0f);
  return detail::power_of_two(n, fmaf(x, 0x1.4ae0cp-26f, fmaf(x, 0x1.715476p+0f, -n)));
}

/// ln(x) within 1 unit in the last place, subnormal x included; -infinity at 0, NaN below.
UNROLL_HD inline float log(float x) {
  if (!(x > 0.f)) return x == 0.f ? -INFINITY : NAN;
  if (x > 0x1.fffffep127f) return x;
  float e = 0.f;
  if (x < 0x1p-126f) {
    x *= 0x1p23f;
    e = -23.f;
  }
  const std::int32_t k = std::int32_t(detail::bits_of(x) - detail::bits_of(0x1.555556p-1f)) >> 23;
  const float m = detail::float_of(detail::bits_of(x) - (std::uint32_t(k) << 23)) - 1.f;  // in [-1/3, 1/3]
  e += float(k);
  float q = -0x1.080646p-3f;
  q = fmaf(q, m, 0x1.1e676ep-3f);
  q = fmaf(q, m, -0x1.f310f2p-4f);
  q = fmaf(q, m, 0x1.1ed6f6p-3f);
  q = fmaf(q, m, -0x1.559dcep-3f);
  q = fmaf(q, m, 0x1.99d02ap-3f);
  q = fmaf(q, m, -0x1.fffefp-3f);
  q = fmaf(q, m, 0x1.555506p-2f);
  q = fmaf(q, m, -0.5f);
  return fmaf(e, 0x1.62e43p-1f, fmaf(q, m * m, m));
}

/// 1 / sqrt(x): two roundings, where rsqrtf of a device is an approximation.
UNROLL_HD inline float reciprocal_sqrt(float x) { return 1.f / sqrtf(x); }

/// 1 / (1 + e^-x).
UNROLL_HD inline float logistic(float x) { return 1.f / (1.f + exp(-x)); }

/// ln(x) of a normal positive number, within 1 unit in the last place.
UNROLL_HD inline double log(double x) {
  const std::uint64_t u = __builtin_bit_cast(std::uint64_t, x) + 0x00095f6200000000u;  // from sqrt(1/2) on
  const int k = int(u >> 52) - 1023;
  const double f =
      __builtin_bit_cast(double, (u & 0x000fffffffffffffu) + 0x3fe6a09e00000000u) - 1;  // x / 2^k - 1
  return simd::log_of(double(k), f);
}

/// The cosine (sine unless `cosine`) of 2 pi v, 0 <= v < 1 with at most 51 bits, within 1e-15.
UNROLL_HD inline double turn_of(double v, bool cosine) {
  const int quarter = int(4 * v + 0.5);  // NOLINT(bugprone-incorrect-roundings): v is not negative
  const double x = (v - 0.25 * double(quarter)) * simd::turn;
  const int turned = (quarter + (cosine ? 1 : 0)) & 3;
  const double y = turned & 1 ? simd::cos_near_0(x) : simd::sin_near_0(x);
  return turned & 2 ? -y : y;
}

}  // namespace unroll::kernels::math
