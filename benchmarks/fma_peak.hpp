#pragma once

// What a share of the peak is a share of.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>

#include "unroll/core/linalg.hpp"

inline double cpu_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

namespace fma_peak_detail {
struct chains_kernel {
  static constexpr int chains = 12, rounds = 400000;
  /// Multiplications and additions of twelve chains; x leaves by `out`, so that nothing is dropped.
  template <class Isa, class T>
  UNROLL_INLINE static double run(T one, T factor, T term, T* out) {
    using namespace unroll;
    constexpr int N = simd::width<Isa, T>;
    simd::vec<T, N> x[chains], f = simd::splat<N>(factor), t = simd::splat<N>(term);
    for (auto& v : x) v = simd::splat<N>(one);
    for (int i = 0; i < rounds; ++i) {
      UNROLL_FULLY
      for (int u = 0; u < chains; ++u) x[u] = x[u] * f + t;
    }
    for (const auto& v : x) *out += simd::reduce(v);
    return 2.0 * chains * rounds * N;
  }
};
}  // namespace fma_peak_detail

/// Fused multiply-adds per second of twelve independent chains of the widest vectors of the instruction set
/// in use, best of seven.
template <class T>
double fma_peak() {
  volatile T one = 1, factor = T(0.9999), term = T(1e-7);  // hidden from constant folding
  double best = 0;
  for (int trial = 0; trial < 7; ++trial) {
    T out = 0;
    const double start = cpu_seconds();
    const double done =
        unroll::simd::dispatch<fma_peak_detail::chains_kernel>(T(one), T(factor), T(term), &out);
    best = std::max(best, done / (cpu_seconds() - start));
    benchmark::DoNotOptimize(out);
  }
  return best;
}
