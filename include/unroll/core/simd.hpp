#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "unroll/core/config.hpp"

// Short vectors by the compiler's vector extension: the arithmetic operators work element by element, and the
// same source compiles to AVX-512, AVX, SSE or, where there is no such extension, to scalars. A loop over
// vectors always starts at element 0 and ends in a partial vector, so that a result never depends on where
// in memory its operands lie.
namespace unroll::simd {

#if defined(__CUDACC__) || !defined(__GNUC__)
inline constexpr int vector_bytes = 1;
#elif defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

// Unrolls the loop that follows, whatever the optimisation level.
#if defined(__clang__)
#define UNROLL_FULLY _Pragma("unroll")
#elif defined(__GNUC__) && !defined(__CUDACC__)
#define UNROLL_FULLY _Pragma("GCC unroll 16")
#else
#define UNROLL_FULLY
#endif

/// Elements in the widest vector of the target.
template <class T>
inline constexpr int width = vector_bytes > int(sizeof(T)) ? vector_bytes / int(sizeof(T)) : 1;

template <class T, int N>
struct vector_of {
#if defined(__GNUC__)
  typedef T type __attribute__((vector_size(N * sizeof(T))));
#endif
};
template <class T>
struct vector_of<T, 1> {
  using type = T;
};
template <class T, int N = width<T>>
using vec = typename vector_of<T, N>::type;

template <int N, class T>
inline vec<T, N> load(const T* p) {
  vec<T, N> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T, class V>
inline void store(const V& v, T* p) {
  std::memcpy(p, &v, sizeof v);
}
/// The first n elements, zeros behind them.
template <int N, class T>
inline vec<T, N> load_first(const T* p, index_t n) {
  vec<T, N> v{};
  std::memcpy(&v, p, std::size_t(n) * sizeof(T));
  return v;
}
template <class T, class V>
inline void store_first(const V& v, T* p, index_t n) {
  std::memcpy(p, &v, std::size_t(n) * sizeof(T));
}

/// y[i] = f(x[i]...) for i < n, a vector at a time; y may be one of the x.
template <class T, class F, class... X>
inline void map(F f, index_t n, T* y, const X*... x) {
  constexpr int N = width<T>;
  index_t i = 0;
  for (; i + N <= n; i += N) store(f(load<N>(x + i)...), y + i);
  if (i < n) store_first(f(load_first<N>(x + i, n - i)...), y + i, n - i);
}

/// Sum of f(x[i]...) over i < n; f must be 0 at 0. Blocks of 1024 elements are summed in vectors, the blocks
/// in double: the rounding error stays below about (1024 / width / 4 + log2(width) + 2) eps sum |f|.
template <class T, class F, class... X>
inline double sum(F f, index_t n, const X*... x) {
  constexpr int N = width<T>;
  double total = 0;
  for (index_t block = 0; block < n; block += 1024) {
    const index_t end = std::min<index_t>(block + 1024, n);
    vec<T> part[4] = {};
    index_t i = block;
    for (; i + 4 * N <= end; i += 4 * N) {
      UNROLL_FULLY
      for (int u = 0; u < 4; ++u) part[u] += f(load<N>(x + i + u * N)...);
    }
    for (; i + N <= end; i += N) part[0] += f(load<N>(x + i)...);
    if (i < end) part[1] += f(load_first<N>(x + i, end - i)...);
    T element[N];
    store((part[0] + part[1]) + (part[2] + part[3]), element);
    for (int half = N / 2; half > 0; half /= 2)
      for (int u = 0; u < half; ++u) element[u] += element[u + half];
    total += double(element[0]);
  }
  return total;
}

}  // namespace unroll::simd
