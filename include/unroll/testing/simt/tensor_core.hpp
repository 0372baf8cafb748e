#pragma once

#include <cmath>
#include <cstdint>

#include "unroll/core/bf16.hpp"

namespace unroll::testing::simt {

/// A bfloat16 taken apart: x = significand 2^(exponent - 7).
struct tensor_core_factor {
  int exponent = -126;           ///< the number is significand 2^(exponent - 7)
  std::int32_t significand = 0;  ///< with its sign
  float value = 0;

  tensor_core_factor() = default;
  explicit tensor_core_factor(bf16 x) : value(float(x)) {
    const int e = (x.bits >> 7) & 0xff, fraction = x.bits & 0x7f;
    exponent = e == 0 ? -126 : e - 127;
    significand = e == 0 ? fraction : fraction | 0x80;
    if (x.bits >> 15) significand = -significand;
  }
  bool finite() const { return exponent < 128; }
};

/// What one element of d = a b + c is on the tensor cores of an H100 (bfloat16 in, float out): k <= 16
/// products and c, each exact, are aligned to the largest exponent among them (at least -133), cut to 25
/// binary places below it, added without error and cut to a float, always towards zero (the model of arXiv
/// 2512.07004; the bits of mma.sync and wgmma on an H100, see docs/cuda.md). NaN is 0x7fffffff. Exponents of
/// products are those of the factors added: a product of significands from 2 to 4 keeps them.
class tensor_core_sum {
 public:
  /// a b, exactly.
  void add_product(bf16 a, bf16 b) { add_product(tensor_core_factor(a), tensor_core_factor(b)); }
  /// a b, exactly.
  void add_product(const tensor_core_factor& a, const tensor_core_factor& b) {
    if (!a.finite() || !b.finite()) special_ += a.value * b.value;
    push(a.exponent + b.exponent, std::int64_t(a.significand) * b.significand * (1 << 11));
  }
  /// What the sum begins with, or a sum of others.
  void add(float c) {
    if (!std::isfinite(c)) special_ += c;
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, c);
    const int e = int(u >> 23) & 0xff;
    const std::int64_t fraction = u & 0x7fffffu, significand = e == 0 ? fraction : fraction | 0x800000;
    push(e == 0 ? -126 : e - 127, (u >> 31 ? -significand : significand) * 4);
  }
  /// The sum, cut to a float.
  float result() const {
    if (special_ != 0) return std::isnan(special_) ? __builtin_bit_cast(float, 0x7fffffffu) : special_;
    std::int64_t sum = 0;
    for (int i = 0; i < count_; ++i) {
      const int down = largest_ - exponent_[i] < 62 ? largest_ - exponent_[i] : 62;
      sum += units_[i] < 0 ? -(-units_[i] >> down) : units_[i] >> down;
    }
    if (sum == 0) return 0;
    std::uint64_t m = std::uint64_t(sum < 0 ? -sum : sum);
    const int unit = largest_ - 25, digits = 64 - __builtin_clzll(m);
    const int cut = digits - 24 > -149 - unit ? digits - 24 : -149 - unit;
    if (cut > 0) m = cut < 64 ? m >> cut << cut : 0;
    const float magnitude = std::ldexp(float(m), unit);
    return sum < 0 ? -magnitude : magnitude;
  }

 private:
  void push(int exponent, std::int64_t units) {
    if (units == 0) return;
    exponent_[count_] = exponent;
    units_[count_++] = units;
    largest_ = exponent > largest_ ? exponent : largest_;
  }

  int exponent_[17];
  std::int64_t units_[17];  // of 2^(exponent - 25)
  int count_ = 0, largest_ = -133;
  float special_ = 0;  // the sum of what is not finite
};

}  // namespace unroll::testing::simt
