#pragma once

#include "unroll/core/linalg.hpp"

// M <- A M in place for few rows, as RTRL wants it.
namespace unroll::linalg {

namespace detail {

/// Element j < R of the result is the sum of the elements of row[j]; R is a power of two up to N.
template <int S, class T, int N, std::size_t R>
UNROLL_INLINE inline simd::vec<T, N> sum_lanes(const simd::vec<T, N>& v) {
  if constexpr (S >= int(R))
    return sum_lanes<S / 2, T, N, R>(v +
                                     simd::detail::swap_halves<S>(v, std::make_integer_sequence<int, N>{}));
  else
    return v;
}
template <int S, class T, int N, std::size_t R>
UNROLL_INLINE inline simd::vec<T, N> sums_of(simd::vec<T, N> (&row)[R]) {
  if constexpr (S == 0) {
    return sum_lanes<N / 2, T, N, R>(row[0]);
  } else {
    UNROLL_FULLY
    for (int i = 0; i < S; ++i) {
      simd::detail::swap_blocks<S>(row[i], row[i + S], std::make_integer_sequence<int, N>{});
      row[i] += row[i + S];
    }
    return sums_of<S / 2>(row);
  }
}

/// R columns of M for V vectors of N rows, of which the last starts at row `last`; `first` is its first row
/// that no other vector has.
template <int N, int V, int R, class T>
UNROLL_INLINE inline void left_columns(const T* a, index_t rows, const T* x, T* m, T* y) {
  using vec = simd::vec<T, N>;
  const index_t last = rows - N;
  const auto start = [last](int v) UNROLL_INLINE { return v + 1 < V ? index_t(v * N) : last; };
  if constexpr (R > 1 && R <= N) {
    vec dots[std::size_t(R)];
    UNROLL_FULLY
    for (int j = 0; j < R; ++j) {
      dots[j] = simd::load<N>(m + j * rows) * simd::load<N>(x);
      UNROLL_FULLY
      for (int v = 1; v < V; ++v)
        dots[j] += simd::load<N>(m + j * rows + start(v)) * simd::load<N>(x + v * N);
    }
    const vec sum = sums_of<R / 2>(dots);
    UNROLL_FULLY
    for (int j = 0; j < R; ++j) y[j] += sum.v[j];
  } else {
    UNROLL_FULLY
    for (int j = 0; j < R; ++j) {
      vec dot{};
      UNROLL_FULLY
      for (int v = 0; v < V; ++v) dot += simd::load<N>(m + j * rows + start(v)) * simd::load<N>(x + v * N);
      y[j] += simd::reduce(dot);
    }
  }
  vec sum[std::size_t(R)][std::size_t(V)] = {};
  for (index_t q = 0; q < rows; ++q, a += rows) {
    vec column[std::size_t(V)];
    UNROLL_FULLY
    for (int v = 0; v < V; ++v) column[v] = simd::load<N>(a + start(v));
    UNROLL_FULLY
    for (int j = 0; j < R; ++j) {
      const T factor = m[j * rows + q];
      UNROLL_FULLY
      for (int v = 0; v < V; ++v) sum[j][v] += column[v] * factor;
    }
  }
  UNROLL_FULLY
  for (int j = 0; j < R; ++j) {
    UNROLL_FULLY
    for (int v = 0; v < V; ++v) simd::store(sum[j][v], m + j * rows + start(v));
  }
}

template <class T>
struct left_product_kernel {
  template <class Isa>
  UNROLL_INLINE static bool run(const T* a, index_t rows, const T* x, T* m, index_t columns, T* y) {
    constexpr int N = simd::width<Isa, T>;
    if (rows < N || rows > 4 * N) return false;
    // x with zeros in the rows of the last vector that overlap the one before it
    T weights[std::size_t(4 * N)] = {};
    const index_t whole = (rows - 1) / N * N;  // rows of all vectors but the last
    for (index_t i = 0; i < whole; ++i) weights[i] = x[i];
    for (index_t i = whole; i < rows; ++i) weights[i + whole + N - rows] = x[i];
    constexpr bool many = Isa::registers == 32;
    switch ((rows + N - 1) / N) {
      case 1:
        all<N, 1, 8>(a, rows, weights, m, columns, y);
        break;
      case 2:
        all<N, 2, many ? 8 : 4>(a, rows, weights, m, columns, y);
        break;
      case 3:
        all<N, 3, many ? 8 : 2>(a, rows, weights, m, columns, y);
        break;
      default:
        all<N, 4, many ? 4 : 2>(a, rows, weights, m, columns, y);
    }
    return true;
  }
  template <int N, int V, int R>
  UNROLL_INLINE static void all(const T* a, index_t rows, const T* x, T* m, index_t columns, T* y) {
    index_t j = 0;
    for (; j + R <= columns; j += R) left_columns<N, V, R>(a, rows, x, m + j * rows, y + j);
    for (; j < columns; ++j) left_columns<N, V, 1>(a, rows, x, m + j * rows, y + j);
  }
};

}  // namespace detail

/// y += M' x, then M <- A M in place and in one pass; A: M.rows x M.rows, x: M.rows numbers, y: M.cols.
/// False, and nothing is done, where a column of M is shorter than a vector of the instruction set or longer
/// than four.
template <class T>
bool left_product(const T* a, const T* x, matrix<T> m, T* y) {
  UNROLL_ASSERT(m.stride == m.rows);
  return simd::dispatch<detail::left_product_kernel<T>>(a, m.rows, x, m.data, m.cols, y);
}

#if defined(UNROLL_INSTANCE)
UNROLL_INSTANCE bool left_product<float>(const float*, const float*, matrix<float>, float*);
UNROLL_INSTANCE bool left_product<double>(const double*, const double*, matrix<double>, double*);
#endif

}  // namespace unroll::linalg
