#pragma once

#include "unroll/core/simd.hpp"

// exp, tanh and the logistic function of a vector, within 4 units in the last place of the true value
// (results below the smallest normal number lose digits as usual); NaN stays NaN. Not for -ffast-math, which
// removes the rounding trick of exp.
namespace unroll::simd {

template <class T>
struct exp_constants;
template <>
struct exp_constants<float> {
  using bits = std::uint32_t;
  static constexpr bits sign = 0x80000000u, bias = 127;
  static constexpr int mantissa = 23;
  static constexpr float shifter = 0x1.8p23f, lowest = -104.f, highest = 89.f;
  static constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  // (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, best first coefficient last
  static constexpr float series[] = {1.98910307e-4f, 1.39336858e-3f, 8.33331089e-3f,
                                     4.16664646e-2f, 1.66666667e-1f, 5.00000001e-1f};
  // tanh(x) = x + x^3 p(x^2) / q(x^2) for |x| < 0.625 (Moshier, Cephes)
  static constexpr float tanh_p[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                                     1.33314422036e-1f, -3.33332819422e-1f};
  static constexpr float tanh_q[] = {1.f};
};
template <>
struct exp_constants<double> {
  using bits = std::uint64_t;
  static constexpr bits sign = 0x8000000000000000u, bias = 1023;
  static constexpr int mantissa = 52;
  static constexpr double shifter = 0x1.8p52, lowest = -746.0, highest = 710.0;
  static constexpr double log2_e = 0x1.71547652b82fep+0, ln2_high = 0x1.62e42fee00000p-1,
                          ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double series[] = {
      2.5100424157005066788e-8, 2.7620138719733995569e-7, 2.7557268378684192873e-6, 2.4801521190217727651e-5,
      1.9841269863105968748e-4, 1.3888888917281793308e-3, 8.3333333333300513464e-3, 4.1666666666623991516e-2,
      1.6666666666666667456e-1, 5.0000000000000010262e-1};
  static constexpr double tanh_p[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1,
                                      -1.61468768441708447952e3};
  static constexpr double tanh_q[] = {1.0, 1.12811678491632931402e2, 2.23548839060100448583e3,
                                      4.84406305325125486048e3};
};

/// coefficient[0] x^n + ... + coefficient[n].
template <class T, std::size_t n>
inline vec<T> polynomial(const vec<T>& x, const T (&coefficient)[n]) {
  vec<T> y = vec<T>{} + coefficient[0];
  UNROLL_FULLY
  for (std::size_t i = 1; i < n; ++i) y = y * x + coefficient[i];
  return y;
}

template <class T>
using vec_bits = vec<typename exp_constants<T>::bits, width<T>>;

/// exp(x) = 2^n exp(r) with n = round(x / ln 2). Adding `shifter` rounds to an integer and leaves it in the
/// low bits, from where it is shifted into an exponent; 2^n is applied in two halves so that neither
/// overflows before the product does.
template <class T>
inline vec<T> exp(vec<T> x) {
  using c = exp_constants<T>;
  x = x > c::highest ? vec<T>{} + c::highest : x;
  x = x < c::lowest ? vec<T>{} + c::lowest : x;
  const vec<T> shifted = x * c::log2_e + c::shifter;
  const vec<T> n = shifted - c::shifter;
  const vec<T> shifted_half = n * T(0.5) + c::shifter;
  const vec<T> r = (x - n * c::ln2_high) - n * c::ln2_low;
  const vec<T> y = polynomial<T>(r, c::series) * r * r + r + T(1);
  const auto whole = std::bit_cast<vec_bits<T>>(shifted), half = std::bit_cast<vec_bits<T>>(shifted_half);
  const vec_bits<T> first = (half + c::bias) << c::mantissa, second = (whole - half + c::bias) << c::mantissa;
  return y * std::bit_cast<vec<T>>(first) * std::bit_cast<vec<T>>(second);
}

template <class T>
inline vec<T> logistic(vec<T> x) {
  return T(1) / (T(1) + exp<T>(-x));
}

/// 1 - 2 / (exp(2|x|) + 1) with the sign of x, and a rational function near 0 where that would cancel; one
/// division serves both.
template <class T>
inline vec<T> tanh(vec<T> x) {
  using c = exp_constants<T>;
  const vec_bits<T> sign = std::bit_cast<vec_bits<T>>(x) & c::sign;
  const vec<T> a = std::bit_cast<vec<T>>(std::bit_cast<vec_bits<T>>(x) ^ sign), z = a * a;
  const auto small = a < T(0.625);
  const vec<T> p = small ? z * a * polynomial<T>(z, c::tanh_p) : vec<T>{} - T(2);
  const vec<T> q = small ? polynomial<T>(z, c::tanh_q) : exp<T>(a + a) + T(1);
  const vec<T> y = (small ? a : vec<T>{} + T(1)) + p / q;
  return std::bit_cast<vec<T>>(std::bit_cast<vec_bits<T>>(y) | sign);
}

}  // namespace unroll::simd
