#pragma once

#include <cstdint>
#include <utility>

#include "unroll/core/simd.hpp"

// Pairs of normal numbers from the bits of Philox (Box & Muller 1958), many at a time. Sums, products,
// quotients and square roots are rounded one by one, as IEEE arithmetic has them, and none of them is fused:
// the numbers have the same bits on every instruction set, by every compiler, and on a device
// (kernels/random_body.hpp, which shares the formulas).
namespace unroll::box_muller {

/// ln(2^k (1 + f)) for sqrt(1/2) - 1 <= f <= sqrt(2) - 1, within 1 unit in the last place (the method of
/// FreeBSD's e_log.c).
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

namespace detail {

/// N numbers whose products are rounded before anything is added to them.
template <int N>
struct unfused {
  simd::vec<double, N> v;

  UNROLL_INLINE explicit unfused(double x) : v(simd::splat<N>(x)) {}
  UNROLL_INLINE explicit unfused(const simd::vec<double, N>& x) : v(x) {}
  friend UNROLL_INLINE inline unfused operator*(const unfused& a, const unfused& b) {
#if defined(__clang__)
#pragma clang fp contract(off)
#endif
    simd::vec<double, N> product{a.v.v * b.v.v};
    simd::hide(product);
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

template <int N>
using words = typename simd::vec<std::uint64_t, N>::raw;

/// x < 2^52 as doubles.
template <int N>
UNROLL_INLINE inline unfused<N> as_doubles(const words<N>& x) {
  return unfused<N>(simd::bits_as<double>(simd::vec<std::uint64_t, N>{x | 0x4330000000000000u}) - 0x1p52);
}

/// What the rounds of Philox xor to words 0 and 2.
struct key_schedule {
  std::uint64_t key[10][2];

  explicit key_schedule(std::uint64_t seed) {
    auto first = std::uint32_t(seed), second = std::uint32_t(seed >> 32);
    for (auto& now : key) {
      now[0] = first;
      now[1] = second;
      first += 0x9E3779B9u;
      second += 0xBB67AE85u;
    }
  }
};

/// Philox 4x32 (rng/philox.hpp) of N counters, a word of each in the low half of an element; what the high
/// halves hold does not count.
template <int N>
UNROLL_INLINE inline void philox_on(words<N> (&c)[4], const key_schedule& keys) {
  const auto first = simd::splat<N>(std::uint64_t{0xD2511F53u}),
             second = simd::splat<N>(std::uint64_t{0xCD9E8D57u});
  UNROLL_FULLY
  for (const auto& key : keys.key) {
    const words<N> p0 = simd::multiply_low<N>({c[0]}, first).v, p1 = simd::multiply_low<N>({c[2]}, second).v;
    c[0] = (p1 >> 32) ^ c[1] ^ key[0];
    c[1] = p1;
    c[2] = (p0 >> 32) ^ c[3] ^ key[1];
    c[3] = p0;
  }
}

/// Cosines and sines of 2 pi v, 0 <= v < 1 with at most 50 bits.
template <int N>
UNROLL_INLINE inline void cos_sin_turns(const unfused<N>& v, simd::vec<double, N>& cosine,
                                        simd::vec<double, N>& sine) {
  using bits = simd::vec<std::uint64_t, N>;
  const simd::vec<double, N> shifted = v.v * 4.0 + 0x1.8p52;  // the nearest quarter of a turn in its low bits
  const words<N> quarter = simd::bits_as<std::uint64_t>(shifted).v & 3u;
  const unfused<N> x = (v - unfused<N>((shifted - 0x1.8p52) * 0.25)) * unfused<N>(turn);
  const words<N> c = simd::bits_as<std::uint64_t>(cos_near_0(x).v).v,
                 s = simd::bits_as<std::uint64_t>(sin_near_0(x).v).v;
  const words<N> swapped = (c ^ s) & (0u - (quarter & 1u));  // odd quarters: each is the other
  cosine = simd::bits_as<double>(bits{c ^ swapped ^ ((quarter + 1u) & 2u) << 62});
  sine = simd::bits_as<double>(bits{s ^ swapped ^ (quarter & 2u) << 62});
}

/// sqrt(-2 ln u), u uniform on (0, 1] with 53 bits, of N draws; r0, r1: words of theirs, below 2^32.
template <int N>
UNROLL_INLINE inline unfused<N> radii(const words<N>& r0, const words<N>& r1) {
  const unfused<N> drawn = (as_doubles<N>(r0) + unfused<N>(0.5)) * unfused<N>(0x1.0p-32) +
                           as_doubles<N>(r1 >> 11) * unfused<N>(0x1.0p-53);
  const simd::vec<double, N> one = simd::splat<N>(1.0), u = simd::where_greater(one, drawn.v, drawn.v, one);
  // u = 2^k (1 + f), 1 + f from sqrt(1/2) on
  const words<N> b = simd::bits_as<std::uint64_t>(u).v + 0x00095f6200000000u;
  const words<N> m = (b & 0x000fffffffffffffu) + 0x3fe6a09e00000000u;
  const unfused<N> k = as_doubles<N>(b >> 52) - unfused<N>(1023.0),
                   f(simd::bits_as<double>(simd::vec<std::uint64_t, N>{m}) - 1.0);
  return unfused<N>(simd::sqrt((unfused<N>(-2.0) * log_of(k, f)).v));
}

#if defined(__GNUC__) && !defined(__CUDACC__)
/// a_i, b_i, a_i+1, ... of N / 2 elements each from `from` on.
template <int from, int N, int... L>
UNROLL_INLINE inline simd::vec<double, N> interleaved(const simd::vec<double, N>& a,
                                                      const simd::vec<double, N>& b,
                                                      std::integer_sequence<int, L...>) {
  return {__builtin_shufflevector(a.v, b.v, (from + L / 2 + L % 2 * N)...)};
}
#endif

/// Element i of `first`, then of `second`, for every i; to: 2 N numbers.
template <int N, class T>
UNROLL_INLINE inline void store_pairs(const simd::vec<double, N>& first, const simd::vec<double, N>& second,
                                      T* to) {
  if constexpr (N == 1) {
    to[0] = T(first.v);
    to[1] = T(second.v);
  } else {
#if defined(__GNUC__) && !defined(__CUDACC__)
    const auto every = std::make_integer_sequence<int, N>{};
    using raw = typename simd::vec<T, N>::raw;
    const auto a = interleaved<0>(first, second, every), b = interleaved<N / 2>(first, second, every);
    simd::store(simd::vec<T, N>{__builtin_convertvector(a.v, raw)}, to);
    simd::store(simd::vec<T, N>{__builtin_convertvector(b.v, raw)}, to + N);
#endif
  }
}

struct normals_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(std::uint64_t seed, std::uint32_t kind, std::uint64_t step,
                                std::uint64_t pair, T* out, index_t n) {
    constexpr int N = simd::width<Isa, double>;
    const key_schedule keys(seed);
    std::uint64_t ordinal[std::size_t(N)];
    for (int i = 0; i < N; ++i) ordinal[i] = pair + std::uint64_t(i);
    words<N> block = simd::load<N>(static_cast<const std::uint64_t*>(ordinal)).v;
    // The bits of so many vectors are drawn before any is used: a processor waits for no chain of rounds.
    constexpr int ahead = 4;
    while (n > 0) {
      const words<N> zero{};
      words<N> r[ahead][4];
      for (auto& one : r) {
        one[0] = block;
        one[1] = (block >> 32) << 8 | std::uint64_t(kind);
        one[2] = zero + (step & 0xFFFFFFFFu);
        one[3] = zero + (step >> 32);
        philox_on<N>(one, keys);
        block += std::uint64_t(N);
      }
      for (int i = 0; i < ahead && n > 0; ++i, n -= 2 * N, out += 2 * N) {
        simd::vec<double, N> cosine, sine;
        cos_sin_turns((as_doubles<N>(r[i][2] & 0xFFFFFFFFu) + unfused<N>(0.5)) * unfused<N>(0x1.0p-32),
                      cosine, sine);
        const simd::vec<double, N> radius = radii<N>(r[i][0] & 0xFFFFFFFFu, r[i][1] & 0xFFFFFFFFu).v;
        cosine = radius * cosine;
        sine = radius * sine;
        if (n >= 2 * N) {
          store_pairs(cosine, sine, out);
          continue;
        }
        T rest[std::size_t(2 * N)];
        store_pairs(cosine, sine, rest);
        for (index_t k = 0; k < n; ++k) out[k] = rest[k];
      }
    }
  }
};

}  // namespace detail

/// WRITES n standard normals to `out`, the first two those of block `pair` of (seed, kind, step) and so on.
template <class T>
void fill(std::uint64_t seed, std::uint32_t kind, std::int64_t step, std::uint64_t pair, T* out, index_t n) {
  simd::dispatch<detail::normals_kernel>(seed, kind, std::uint64_t(step), pair, out, n);
}

#if defined(UNROLL_INSTANCE)
UNROLL_INSTANCE void fill<float>(std::uint64_t, std::uint32_t, std::int64_t, std::uint64_t, float*, index_t);
UNROLL_INSTANCE void fill<double>(std::uint64_t, std::uint32_t, std::int64_t, std::uint64_t, double*,
                                  index_t);
#endif

}  // namespace unroll::box_muller
