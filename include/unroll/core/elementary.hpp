#pragma once

#include "unroll/core/error.hpp"
#include "unroll/core/simd.hpp"

// exp, tanh and the logistic function of a vector, within 4 units in the last place of the true value (tanh
// in float: 6); NaN stays NaN. exp is 0 where its value is below sqrt(2) times the smallest normal number:
// for x < -86.99 in float, x < -708.05 in double.
namespace unroll::simd {

/// Whether (x + c) - c rounds x, on which exp rests. A compiler that may reorder sums folds it to x, and not
/// every one defines a macro that core/config.hpp could refuse: clang has none for
/// -funsafe-math-optimizations.
inline bool sums_keep_their_order() {
  const volatile double x = 1.25;
  const double y = x;
  return (y + 0x1.8p52) - 0x1.8p52 == 1;
}

/// Asked once, before main().
inline const bool checked_order_of_sums =
    sums_keep_their_order() ||
    (fail("unroll", "compiler flags",
          "sums are reordered, gradients would be wrong: compile without -fassociative-math and "
          "-funsafe-math-optimizations"),
     false);

template <class T>
struct exp_constants;
template <>
struct exp_constants<float> {
  using bits = std::uint32_t;
  static constexpr int mantissa = 23;
  static constexpr float shifter = 0x1.8p23f + 126, lowest = -87.3f, highest = 89.3f;
  static constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  // 2 (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, fitted by Chebyshev interpolation
  static constexpr float twice_series[] = {2 * 1.98910307e-4f, 2 * 1.39336858e-3f, 2 * 8.33331089e-3f,
                                           2 * 4.16664646e-2f, 2 * 1.66666667e-1f, 2 * 5.00000001e-1f};
  // tanh(x) = x p(x^2) / q(x^2) for |x| < 9.1, fitted to a relative error of 1.4e-9. At 9 it is 1 in float,
  // whichever products and sums are fused.
  static constexpr float tanh_p[] = {-1.21845177e-11f, 3.05614403e-8f, 2.79983418e-5f,
                                     3.86789657e-3f,   1.36795764e-1f, 9.99999999e-1f};
  static constexpr float tanh_q[] = {1.28670738e-6f, 3.93785607e-4f, 2.72442785e-2f, 4.70129085e-1f, 1.f};
};
template <>
struct exp_constants<double> {
  using bits = std::uint64_t;
  static constexpr bits sign = 0x8000000000000000u;
  static constexpr int mantissa = 52;
  static constexpr double shifter = 0x1.8p52 + 1022, lowest = -708.4, highest = 710.2;
  static constexpr double log2_e = 0x1.71547652b82fep+0, ln2_high = 0x1.62e42fee00000p-1,
                          ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double twice_series[] = {2 * 2.5100424157005066788e-8, 2 * 2.7620138719733995569e-7,
                                            2 * 2.7557268378684192873e-6, 2 * 2.4801521190217727651e-5,
                                            2 * 1.9841269863105968748e-4, 2 * 1.3888888917281793308e-3,
                                            2 * 8.3333333333300513464e-3, 2 * 4.1666666666623991516e-2,
                                            2 * 1.6666666666666667456e-1, 2 * 5.0000000000000010262e-1};
  // tanh(x) = x + x^3 p(x^2) / q(x^2) for |x| < 0.625 (Moshier, Cephes)
  static constexpr double tanh_p[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1,
                                      -1.61468768441708447952e3};
  static constexpr double tanh_q[] = {1.0, 1.12811678491632931402e2, 2.23548839060100448583e3,
                                      4.84406305325125486048e3};
};

/// coefficient[0] x^n + ... + coefficient[n].
template <class T, int N, std::size_t n>
UNROLL_INLINE inline vec<T, N> polynomial(const vec<T, N>& x, const T (&coefficient)[n]) {
  vec<T, N> y = splat<N>(coefficient[0]);
  UNROLL_FULLY
  for (std::size_t i = 1; i < n; ++i) y = y * x + coefficient[i];
  return y;
}

/// x where low <= x <= high, otherwise the nearer bound; NaN stays.
template <class T, int N>
UNROLL_INLINE inline vec<T, N> clamp(const vec<T, N>& x, std::type_identity_t<T> low,
                                     std::type_identity_t<T> high) {
  vec<T, N> l = splat<N, T>(low), h = splat<N, T>(high);
  // g++ 12 takes the instructions for a minimum and a maximum where it does not know the bound.
  hide(l);
  hide(h);
  const vec<T, N> y = where_greater(l, x, l, x);
  return where_greater(y, h, h, y);
}

namespace detail {
/// exp(x) = 2^(n-1) 2 exp(r) with n = round(x / ln 2), for lowest <= x <= highest. Adding `shifter` rounds to
/// an integer and leaves n - 1 + bias in the low bits, from where it is shifted into an exponent; its ends
/// are 0 and infinity. bias - 1 is even, as ties round to even.
template <class T, int N>
UNROLL_INLINE inline vec<T, N> exp_within(const vec<T, N>& x) {
  using c = exp_constants<T>;
  const vec<T, N> shifted = x * c::log2_e + c::shifter;
  const vec<T, N> n = shifted - c::shifter;
  const vec<T, N> r = (x - n * c::ln2_high) - n * c::ln2_low;
  const vec<T, N> twice = polynomial(r, c::twice_series) * (r * r) + (r * T(2) + T(2));
  const auto exponent = bits_as<typename c::bits>(shifted).v << c::mantissa;
  return twice * bits_as<T>(vec<typename c::bits, N>{exponent});
}
}  // namespace detail

/// e^x
template <class T, int N>
UNROLL_INLINE inline vec<T, N> exp(const vec<T, N>& x) {
  return detail::exp_within(clamp(x, exp_constants<T>::lowest, exp_constants<T>::highest));
}

/// 1 / (1 + e^-x)
template <class T, int N>
UNROLL_INLINE inline vec<T, N> logistic(const vec<T, N>& x) {
  using c = exp_constants<T>;
  return T(1) / (T(1) + detail::exp_within(-clamp(x, -c::highest, -c::lowest)));
}

/// In double, 1 - 2 / (exp(2|x|) + 1) with the sign of x, and a rational function near 0 where that would
/// cancel; one division serves both. In float, a rational function everywhere.
template <class T, int N>
UNROLL_INLINE inline vec<T, N> tanh(const vec<T, N>& x) {
  using c = exp_constants<T>;
  if constexpr (sizeof(T) == sizeof(float)) {
    const vec<T, N> a = clamp(x, T(-9), T(9)), z = a * a;
    return clamp(a * polynomial(z, c::tanh_p) / polynomial(z, c::tanh_q), T(-1), T(1));
  } else {
    const vec<T, N> one = splat<N>(T(1));
    using bits = vec<typename c::bits, N>;
    const auto sign = bits_as<typename c::bits>(x).v & c::sign;
    const vec<T, N> a = bits_as<T>(bits{bits_as<typename c::bits>(x).v ^ sign}), z = a * a;
    const vec<T, N> near = splat<N>(T(0.625));
    const vec<T, N> p = where_greater(near, a, z * a * polynomial(z, c::tanh_p), splat<N>(T(-2)));
    const vec<T, N> q = where_greater(near, a, polynomial(z, c::tanh_q), exp(a + a) + T(1));
    const vec<T, N> y = where_greater(near, a, a, one) + p / q;
    return bits_as<T>(bits{bits_as<typename c::bits>(y).v | sign});
  }
}

}  // namespace unroll::simd
