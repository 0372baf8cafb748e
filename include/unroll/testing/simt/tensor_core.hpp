#pragma once

#include <cmath>
#include <cstdint>

#include "unroll/core/bf16.hpp"

namespace unroll::testing::simt {

/// What one element of d = a b + c is on the tensor cores of an H100 (bfloat16 in, float out): k <= 16
/// products and c, each exact, are aligned to the largest exponent among them (at least -133), cut to 25
/// binary places below it, added without error and cut to a float, always towards zero (the model of arXiv
/// 2512.07004, whose public vectors it reproduces). NaN is 0x7fffffff. Exponents of products are those of the
/// factors added: a product of significands from 2 to 4 keeps them.
class tensor_core_sum {
 public:
  void add_product(bf16 a, bf16 b) {
    const parts x = of(float(a)), y = of(float(b));
    if (!std::isfinite(float(a)) || !std::isfinite(float(b))) special_ += float(a) * float(b);
    push(x.exponent + y.exponent, (x.significand >> 16) * (y.significand >> 16), 11,
         x.negative != y.negative);
  }
  void add(float c) {
    const parts x = of(c);
    if (!std::isfinite(c)) special_ += c;
    push(x.exponent, x.significand, 2, x.negative);
  }
  float result() const {
    if (special_ != 0) return std::isnan(special_) ? __builtin_bit_cast(float, 0x7fffffffu) : special_;
    std::int64_t sum = 0;
    for (int i = 0; i < count_; ++i) {
      const int down = largest_ - term_[i].exponent;
      const std::int64_t cut = down > 62 ? 0 : term_[i].units >> down;
      sum += term_[i].negative ? -cut : cut;
    }
    std::uint64_t m = std::uint64_t(sum < 0 ? -sum : sum);
    int unit = largest_ - 25;
    while (m >= std::uint64_t{1} << 24 || (m != 0 && unit < -149)) {
      m >>= 1;
      ++unit;
    }
    const float magnitude = std::ldexp(float(m), unit);
    return sum < 0 ? -magnitude : magnitude;
  }

 private:
  struct parts {
    bool negative;
    int exponent;
    std::int64_t significand;  // 24 bits, in units of 2^(exponent - 23)
  };
  struct term {
    int exponent;
    std::int64_t units;  // of 2^(exponent - 25)
    bool negative;
  };
  static parts of(float x) {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x);
    const int e = int(u >> 23) & 0xff;
    const std::int64_t fraction = u & 0x7fffffu;
    return {(u >> 31) != 0, e == 0 ? -126 : e - 127, e == 0 ? fraction : fraction | 0x800000};
  }
  void push(int exponent, std::int64_t significand, int up, bool negative) {
    if (significand == 0) return;
    term_[count_++] = {exponent, significand << up, negative};
    largest_ = exponent > largest_ ? exponent : largest_;
  }

  term term_[17];
  int count_ = 0, largest_ = -133;
  float special_ = 0;  // the sum of what is not finite
};

}  // namespace unroll::testing::simt
