#pragma once

#include <cstdint>

#include "unroll/core/simd.hpp"

// Logarithms, cosines and sines in double, one after another or in vectors. Sums, products, quotients and
// square roots are rounded one by one, as IEEE arithmetic has them, and none of them is fused: results have
// the same bits on every instruction set, by every compiler, and on a device, where V is double and the
// compiler is told not to fuse (kernels/device_math.hpp). clang's -ffp-contract=fast fuses them all the same.
namespace unroll::simd {

// nvcc: V may be a type of the host alone.
#if defined(__CUDACC__)
#define UNROLL_OF_ANY_SIDE _Pragma("nv_exec_check_disable")
#else
#define UNROLL_OF_ANY_SIDE
#endif

/// ln(2^k (1 + f)) for sqrt(1/2) - 1 <= f <= sqrt(2) - 1, within 1 unit in the last place (the method of
/// FreeBSD's e_log.c).
UNROLL_OF_ANY_SIDE
template <class V>
UNROLL_HD UNROLL_INLINE inline V log_of(const V& k, const V& f) {
  const V s = f / (V(2) + f), z = s * s, w = z * z;
  const V even =
      w * (V(3.999999999940941908e-01) + w * (V(2.222219843214978396e-01) + w * V(1.531383769920937332e-01)));
  const V odd = z * (V(6.666666666666735130e-01) +
                     w * (V(2.857142874366239149e-01) +
                          w * (V(1.818357216161805012e-01) + w * V(1.479819860511658591e-01))));
  const V half_square = V(0.5) * f * f;
  return k * V(6.93147180369123816490e-01) -
         ((half_square - (s * (half_square + (even + odd)) + k * V(1.90821492927058770002e-10))) - f);
}

/// cos(x), |x| <= pi / 4, within 1 unit in the last place (the method of FreeBSD's k_cos.c).
UNROLL_OF_ANY_SIDE
template <class V>
UNROLL_HD UNROLL_INLINE inline V cos_near_0(const V& x) {
  const V z = x * x;
  return V(1) -
         (V(0.5) * z -
          z * z *
              (V(4.16666666666666019037e-02) +
               z * (V(-1.38888888888741095749e-03) +
                    z * (V(2.48015872894767294178e-05) +
                         z * (V(-2.75573143513906633035e-07) +
                              z * (V(2.08757232129817482790e-09) - z * V(1.13596475577881948265e-11)))))));
}
/// sin(x) likewise (k_sin.c).
UNROLL_OF_ANY_SIDE
template <class V>
UNROLL_HD UNROLL_INLINE inline V sin_near_0(const V& x) {
  const V z = x * x;
  return x + z * x *
                 (V(-1.66666666666666324348e-01) +
                  z * (V(8.33333333332248946124e-03) +
                       z * (V(-1.98412698298579493134e-04) +
                            z * (V(2.75573137070700676789e-06) +
                                 z * (V(-2.50507602534068634195e-08) + z * V(1.58969099521155010221e-10))))));
}

/// 2 pi.
inline constexpr double turn = 6.283185307179586476925286766559;

/// N numbers whose products are rounded before anything is added to them.
template <int N>
struct unfused {
  vec<double, N> v;

  UNROLL_INLINE explicit unfused(double x) : v(splat<N>(x)) {}
  UNROLL_INLINE explicit unfused(const vec<double, N>& x) : v(x) {}
  friend UNROLL_INLINE inline unfused operator*(const unfused& a, const unfused& b) {
#if defined(__clang__)
#pragma clang fp contract(off)
#endif
    vec<double, N> product{a.v.v * b.v.v};
    hide(product);
    return unfused(product);
  }
  friend UNROLL_INLINE inline unfused operator+(const unfused& a, const unfused& b) {
    return unfused(a.v + b.v);
  }
  friend UNROLL_INLINE inline unfused operator-(const unfused& a, const unfused& b) {
    return unfused(a.v - b.v);
  }
  friend UNROLL_INLINE inline unfused operator/(const unfused& a, const unfused& b) {
    return unfused(a.v / b.v);
  }
};

/// x, below 2^52 each, as doubles.
template <int N>
UNROLL_INLINE inline unfused<N> as_doubles(const vec<std::uint64_t, N>& x) {
  return unfused<N>(bits_as<double>(vec<std::uint64_t, N>{x.v | 0x4330000000000000u}) - 0x1p52);
}

namespace detail {
/// Cosines and sines of x and of as many quarters of a turn more as the low bits of `shifted` say, |x| <= pi
/// / 4.
template <int N>
UNROLL_INLINE inline void cos_sin_quarters(const unfused<N>& x, const vec<double, N>& shifted,
                                           vec<double, N>& cosine, vec<double, N>& sine) {
  using bits = vec<std::uint64_t, N>;
  using words = typename bits::raw;
  const words quarter = bits_as<std::uint64_t>(shifted).v & 3u;
  const words c = bits_as<std::uint64_t>(cos_near_0(x).v).v, s = bits_as<std::uint64_t>(sin_near_0(x).v).v;
  const words swapped = (c ^ s) & (0u - (quarter & 1u));  // odd quarters: each is the other
  cosine = bits_as<double>(bits{c ^ swapped ^ ((quarter + 1u) & 2u) << 62});
  sine = bits_as<double>(bits{s ^ swapped ^ (quarter & 2u) << 62});
}
}  // namespace detail

/// Cosines and sines of 2 pi v, 0 <= v <= 1.
template <int N>
UNROLL_INLINE inline void cos_sin_turns(const unfused<N>& v, vec<double, N>& cosine, vec<double, N>& sine) {
  const vec<double, N> shifted = v.v * 4.0 + 0x1.8p52;  // the nearest quarter of a turn in its low bits
  const unfused<N> x = (v - unfused<N>((shifted - 0x1.8p52) * 0.25)) * unfused<N>(turn);
  detail::cos_sin_quarters(x, shifted, cosine, sine);
}
/// Cosines and sines of x, |x| <= 1e9, off by at most 2e-16 and, beyond 2^20, 1.2e-16 |x|. What is more is
/// taken from pi / 2 in two parts (the method of FreeBSD's e_rem_pio2.c).
template <int N>
UNROLL_INLINE inline void cos_sin(const unfused<N>& x, vec<double, N>& cosine, vec<double, N>& sine) {
  const vec<double, N> shifted = (x * unfused<N>(6.36619772367581382433e-01)).v + 0x1.8p52;
  const unfused<N> n(shifted - 0x1.8p52);
  detail::cos_sin_quarters(
      (x - n * unfused<N>(1.57079632673412561417e+00)) - n * unfused<N>(6.07710050650619224932e-11), shifted,
      cosine, sine);
}

/// x as numbers of type T.
template <class T, int N>
UNROLL_INLINE inline vec<T, N> rounded_to(const vec<double, N>& x) {
  if constexpr (N == 1) {
    return {T(x.v)};
  } else {
#if defined(__GNUC__)
    return {__builtin_convertvector(x.v, typename vec<T, N>::raw)};
#endif
  }
}

#undef UNROLL_OF_ANY_SIDE

}  // namespace unroll::simd
