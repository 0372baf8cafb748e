#pragma once

// What a share of the peak is a share of.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>

#include "unroll/core/linalg.hpp"

inline double cpu_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

/// Fused multiply-adds per second of twelve independent chains of the widest vectors, best of seven.
template <class T>
double fma_peak() {
  using namespace unroll;
  constexpr int chains = 12, rounds = 400000;
  volatile T one = 1, factor = T(0.9999), term = T(1e-7);  // hidden from constant folding
  double best = 0;
  for (int trial = 0; trial < 7; ++trial) {
    simd::vec<T> x[chains], f = simd::vec<T>{} + T(factor), t = simd::vec<T>{} + T(term);
    for (auto& v : x) v = simd::vec<T>{} + T(one);
    const double start = cpu_seconds();
    for (int i = 0; i < rounds; ++i) {
      UNROLL_FULLY
      for (int u = 0; u < chains; ++u) x[u] = x[u] * f + t;
    }
    const double seconds = cpu_seconds() - start;
    for (auto& v : x) benchmark::DoNotOptimize(v);
    best = std::max(best, 2.0 * chains * rounds * simd::width<T> / seconds);
  }
  return best;
}
