#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

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

#if defined(__GNUC__) && !defined(__CUDACC__)
namespace detail {
template <int S, class V, int... L>
inline V swap_halves(const V& v, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(v, v, (L ^ S)...);
}
}  // namespace detail
#endif

/// Sum of the elements of a vector, by halves; in vectors of full width, because g++ 12 takes narrower parts
/// of a vector through memory.
template <class T, int N, int S = N / 2>
inline T reduce(vec<T, N> v) {
  if constexpr (N == 1) {
    return v;
  } else {
#if defined(__GNUC__) && !defined(__CUDACC__)
    v += detail::swap_halves<S>(v, std::make_integer_sequence<int, N>{});
    if constexpr (S > 1)
      return reduce<T, N, S / 2>(v);
    else
      return v[0];
#endif
  }
}

/// Sum of f(x[i]...) over i < n; f must be 0 at 0. Blocks of 4096 elements are summed in four vectors, the
/// blocks in double: the rounding error is below about (1024 / width + log2(width) + 3) eps sum |f|.
template <class T, class F, class... X>
inline double sum(F f, index_t n, const X*... x) {
  constexpr int N = width<T>;
  double total = 0;
  for (index_t block = 0; block < n; block += 4096) {
    const index_t end = std::min<index_t>(block + 4096, n);
    vec<T> part[4] = {};
    index_t i = block;
    for (; i + 4 * N <= end; i += 4 * N) {
      UNROLL_FULLY
      for (int u = 0; u < 4; ++u) part[u] += f(load<N>(x + i + u * N)...);
    }
    for (; i + N <= end; i += N) part[0] += f(load<N>(x + i)...);
    if (i < end) part[1] += f(load_first<N>(x + i, end - i)...);
    total += double(reduce<T, N>((part[0] + part[1]) + (part[2] + part[3])));
  }
  return total;
}

/// The largest of m and the n elements of x.
template <class T>
inline T largest(const T* x, index_t n, T m) {
  constexpr int N = width<T>;
  index_t i = 0;
  if (n >= N) {
    vec<T> v = load<N>(x);
    for (i = N; i + N <= n; i += N) {
      const vec<T> u = load<N>(x + i);
      v = u > v ? u : v;
    }
    T lanes[std::size_t(N)];
    store(v, lanes);
    m = std::max(m, *std::max_element(lanes, lanes + N));
  }
  for (; i < n; ++i) m = std::max(m, x[i]);
  return m;
}

#if defined(__GNUC__) && !defined(__CUDACC__)
namespace detail {
// Swaps the off-diagonal S x S blocks of every 2S x 2S block of rows `low` (bit S clear) and `high` (set).
template <class V, int N, int S, int... L>
inline void swap_blocks(V& low, V& high, std::integer_sequence<int, L...>) {
  const V a = low, b = high;
  low = __builtin_shufflevector(a, b, ((L & S) != 0 ? N + L - S : L)...);
  high = __builtin_shufflevector(a, b, ((L & S) != 0 ? N + L : L + S)...);
}
template <class V, int N, int S>
inline void transpose_blocks(V (&row)[std::size_t(N)]) {
  UNROLL_FULLY
  for (int i = 0; i < N; ++i)
    if ((i & S) == 0) swap_blocks<V, N, S>(row[i], row[i + S], std::make_integer_sequence<int, N>{});
  if constexpr (S > 1) transpose_blocks<V, N, S / 2>(row);
}
}  // namespace detail
#endif

/// Transposes the N x N matrix whose rows are the N vectors.
template <std::size_t N, class V>
inline void transpose(V (&row)[N]) {
#if defined(__GNUC__) && !defined(__CUDACC__)
  if constexpr (N > 1) detail::transpose_blocks<V, int(N), int(N) / 2>(row);
#endif
}

}  // namespace unroll::simd
