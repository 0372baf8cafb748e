#pragma once

#include <cstdint>

#include "unroll/core/unfused.hpp"
#include "unroll/rng/philox.hpp"

// Philox (rng/philox.hpp) of many counters at a time.
namespace unroll::philox_lanes {

/// N words of 64 bits.
template <int N>
using words = typename simd::vec<std::uint64_t, N>::raw;

/// What the rounds of Philox xor to words 0 and 2.
struct key_schedule {
  std::uint64_t key[detail::philox_rounds][2];  ///< of each round, for words 0 and 2

  explicit key_schedule(std::uint64_t seed) {
    auto first = std::uint32_t(seed), second = std::uint32_t(seed >> 32);
    for (auto& now : key) {
      now[0] = first;
      now[1] = second;
      first += detail::philox_plus_0;
      second += detail::philox_plus_1;
    }
  }
};

/// Philox 4x32 (rng/philox.hpp) of N counters, a word of each in the low half of an element; what the high
/// halves hold does not count.
template <int N>
UNROLL_INLINE inline void philox_on(words<N> (&c)[4], const key_schedule& keys) {
  const auto first = simd::splat<N>(std::uint64_t{detail::philox_times_0}),
             second = simd::splat<N>(std::uint64_t{detail::philox_times_2});
  UNROLL_FULLY
  for (const auto& key : keys.key) {
    const words<N> p0 = simd::multiply_low<N>({c[0]}, first).v, p1 = simd::multiply_low<N>({c[2]}, second).v;
    c[0] = (p1 >> 32) ^ c[1] ^ key[0];
    c[1] = p1;
    c[2] = (p0 >> 32) ^ c[3] ^ key[1];
    c[3] = p0;
  }
}

/// first, first + 1, ...
template <int N>
UNROLL_INLINE inline simd::vec<std::uint64_t, N> counted_from(std::uint64_t first) {
  std::uint64_t ordinal[std::size_t(N)];
  for (int i = 0; i < N; ++i) ordinal[i] = first + std::uint64_t(i);
  return simd::load<N>(static_cast<const std::uint64_t*>(ordinal));
}

/// For simd::dispatch: what fill_uniforms does.
struct uniforms_kernel {
  /// WRITES n uniforms to `out`.
  template <class Isa>
  UNROLL_INLINE static void run(std::uint64_t seed, std::uint32_t kind, std::uint64_t step, double* out,
                                index_t n) {
    constexpr int N = simd::width<Isa, double>;
    const key_schedule keys(seed);
    words<N> at = counted_from<N>(step).v;
    for (; n > 0; n -= N, out += N, at += std::uint64_t(N)) {
      words<N> r[4] = {{}, words<N>{} + std::uint64_t(kind), at, at >> 32};
      philox_on<N>(r, keys);
      const simd::unfused<N> low = simd::as_doubles<N>({(r[0] & 0xFFFFFFFFu) >> 11}),
                             high = simd::as_doubles<N>({r[1] & 0xFFFFFFFFu});
      const simd::vec<double, N> u = (low.v + high.v * 0x1.0p21) * 0x1.0p-53;  // every one of these is exact
      if (n >= N)
        simd::store(u, out);
      else
        simd::store_first(u, out, n);
    }
  }
};

/// WRITES uniforms on [0, 1) to `out`, n of them, of (seed, kind) and the steps from `step` on. T: double.
template <class T>
void fill_uniforms(std::uint64_t seed, std::uint32_t kind, std::int64_t step, T* out, index_t n) {
  simd::dispatch<uniforms_kernel>(seed, kind, std::uint64_t(step), out, n);
}

#if defined(UNROLL_INSTANCE)
UNROLL_INSTANCE void fill_uniforms<double>(std::uint64_t, std::uint32_t, std::int64_t, double*, index_t);
#endif

}  // namespace unroll::philox_lanes
