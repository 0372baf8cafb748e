#pragma once

#include <cstdint>
#include <utility>

#include "unroll/core/unfused.hpp"
#include "unroll/rng/philox_lanes.hpp"

// Pairs of normal numbers from the bits of Philox (Box & Muller 1958), many at a time, with the same bits on
// every instruction set, by every compiler, as core/unfused.hpp says, and on a device
// (kernels/random_body.hpp).
namespace unroll::box_muller {

namespace detail {

using philox_lanes::key_schedule, philox_lanes::philox_on, philox_lanes::words;

/// sqrt(-2 ln u) of N draws, at most sqrt(66 ln 2) = 6.76: u = (r0 + 1/2) / 2^32 and 21 bits of r1 behind
/// that, at most 1; r0, r1: words of theirs, below 2^32.
template <int N>
UNROLL_INLINE inline simd::vec<double, N> radii(const words<N>& r0, const words<N>& r1) {
  using real = simd::unfused<N>;
  const real drawn = (simd::as_doubles<N>({r0}) + real(0.5)) * real(0x1.0p-32) +
                     simd::as_doubles<N>({r1 >> 11}) * real(0x1.0p-53);
  const simd::vec<double, N> one = simd::splat<N>(1.0), u = simd::where_greater(one, drawn.v, drawn.v, one);
  // u = 2^k (1 + f), 1 + f from sqrt(1/2) on
  const words<N> b = simd::bits_as<std::uint64_t>(u).v + 0x00095f6200000000u;
  const words<N> m = (b & 0x000fffffffffffffu) + 0x3fe6a09e00000000u;
  const real k = simd::as_doubles<N>({b >> 52}) - real(1023.0),
             f(simd::bits_as<double>(simd::vec<std::uint64_t, N>{m}) - 1.0);
  return simd::sqrt((real(-2.0) * simd::log_of(k, f)).v);
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
    simd::store(simd::rounded_to<T>(interleaved<0>(first, second, every)), to);
    simd::store(simd::rounded_to<T>(interleaved<N / 2>(first, second, every)), to + N);
#endif
  }
}

struct normals_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(std::uint64_t seed, std::uint32_t kind, std::uint64_t step,
                                std::uint64_t pair, T* out, index_t n) {
    constexpr int N = simd::width<Isa, double>;
    const key_schedule keys(seed);
    words<N> block = philox_lanes::counted_from<N>(pair).v;
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
        using real = simd::unfused<N>;
        const real v = (simd::as_doubles<N>({r[i][2] & 0xFFFFFFFFu}) + real(0.5)) * real(0x1.0p-32);
        const simd::vec<double, N> radius = radii<N>(r[i][0] & 0xFFFFFFFFu, r[i][1] & 0xFFFFFFFFu);
        simd::vec<double, N> cosine, sine;
        simd::cos_sin_turns(v, cosine, sine);
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
