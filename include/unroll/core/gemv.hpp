#pragma once

#include "unroll/core/simd.hpp"

// Products of a matrix and a vector.
namespace unroll::linalg::detail {

/// y (+)= A' x with A `in` x `out`, in >= N. Four columns are read at a time that lie a quarter of the matrix
/// apart, so that the processor sees four streams: out of memory, columns of 1 to 4 KiB that are neighbours
/// come at half of that speed.
template <int N, class T>
UNROLL_INLINE inline void row_dots(const T* a, index_t stride, index_t in, index_t out, const T* x, bool add,
                                   T* y) {
  constexpr int streams = 4;
  using vec = simd::vec<T, N>;
  // The last vector of a column overlaps the one before it, times zeros there.
  const index_t whole = in / N * N;
  T tail[std::size_t(N)] = {};
  for (int i = 1; i < N && i <= in - whole; ++i) tail[N - i] = x[in - i];
  const vec last = simd::load<N>(tail);
  const auto dots = [&]<int S>(std::integral_constant<int, S>, index_t j, index_t apart) UNROLL_INLINE {
    const T* p[std::size_t(S)];
    vec sum[std::size_t(S)] = {};
    UNROLL_FULLY
    for (int s = 0; s < S; ++s) p[s] = a + (j + s * apart) * stride;
    for (index_t i = 0; i < whole; i += N) {
      const vec v = simd::load<N>(x + i);
      UNROLL_FULLY
      for (int s = 0; s < S; ++s) sum[s] += v * simd::load<N>(p[s] + i);
    }
    if (whole < in) {
      UNROLL_FULLY
      for (int s = 0; s < S; ++s) sum[s] += last * simd::load<N>(p[s] + in - N);
    }
    UNROLL_FULLY
    for (int s = 0; s < S; ++s) {
      T& to = y[j + s * apart];
      to = add ? to + simd::reduce(sum[s]) : simd::reduce(sum[s]);
    }
  };
  const index_t apart = out / streams;
  for (index_t j = 0; j < apart; ++j) dots(std::integral_constant<int, streams>{}, j, apart);
  for (index_t j = streams * apart; j < out; ++j) dots(std::integral_constant<int, 1>{}, j, 1);
}

/// y (+)= A x for M vectors of N rows, the last of which starts at row `last`; several partial sums where an
/// addition would wait for the one before it.
template <int N, int M, class T>
UNROLL_INLINE inline void weighted_rows(const T* a, index_t stride, index_t columns, const T* x, index_t last,
                                        bool add, T* y) {
  constexpr int S = M < 3 ? 4 / M : M < 5 ? 2 : 1;
  simd::vec<T, N> sum[std::size_t(S)][std::size_t(M)] = {};
  index_t j = 0;
  for (; j + S <= columns; j += S) {
    UNROLL_FULLY
    for (int s = 0; s < S; ++s, a += stride) {
      UNROLL_FULLY
      for (int u = 0; u < M; ++u) sum[s][u] += simd::load<N>(a + (u + 1 < M ? u * N : last)) * x[j + s];
    }
  }
  for (; j < columns; ++j, a += stride) {
    UNROLL_FULLY
    for (int u = 0; u < M; ++u) sum[0][u] += simd::load<N>(a + (u + 1 < M ? u * N : last)) * x[j];
  }
  UNROLL_FULLY
  for (int s = 1; s < S; ++s)
    for (int u = 0; u < M; ++u) sum[0][u] += sum[s][u];
  if (add) {
    UNROLL_FULLY
    for (int u = 0; u < M; ++u) sum[0][u] += simd::load<N>(y + (u + 1 < M ? u * N : last));
  }
  UNROLL_FULLY
  for (int u = 0; u < M; ++u) simd::store(sum[0][u], y + (u + 1 < M ? u * N : last));
}

/// y (+)= A x with A rows x columns, rows >= N. Sums of up to eight vectors of rows stay in registers; where
/// a matrix is wide, over few columns at a time, so that memory is read along them.
template <int N, bool widest, class T>
UNROLL_INLINE inline void column_sums(const T* a, index_t stride, index_t rows, index_t columns, const T* x,
                                      bool add, T* y) {
  const index_t block = columns < 128 ? columns : stride * index_t(sizeof(T)) < 32000 ? 16 : 4;
  index_t j = 0;
  do {
    const index_t count = block < columns - j ? block : columns - j;
    index_t i = 0, vectors = (rows + N - 1) / N;
    const auto next = [&]<int M>(std::integral_constant<int, M>) UNROLL_INLINE {
      const index_t last = vectors == M ? rows - i - N : (M - 1) * N;
      const T* const from = count ? a + i + j * stride : a;  // a may be null where there are no columns
      weighted_rows<N, M>(from, stride, count, x + j, last, add || j > 0, y + i);
      i += M * N;
      vectors -= M;
    };
    while (vectors > 0) {  // NOLINT(bugprone-infinite-loop): next() lowers it
      // No single vector is left over beside others: it would overlap rows that are done.
      if constexpr (widest) {
        if (vectors > 9 || vectors == 8) {
          next(std::integral_constant<int, 8>{});
          continue;
        }
        if (vectors == 9 || vectors == 7 || vectors == 4) {
          next(std::integral_constant<int, 4>{});
          continue;
        }
        if (vectors > 2) {
          next(std::integral_constant<int, 3>{});
          continue;
        }
      }
      if (vectors == 2)
        next(std::integral_constant<int, 2>{});
      else
        next(std::integral_constant<int, 1>{});
    }
    j += count;
  } while (j < columns);
}

/// y (+)= A' x by vectors of N elements, or narrower ones where columns are shorter.
template <class T, int N>
struct gemv_transposed {
  template <class Isa>
  UNROLL_INLINE static void run(const T* a, index_t stride, index_t rows, index_t columns, const T* x,
                                bool add, T* y) {
    if constexpr (N > 1)
      if (rows < N)
        return simd::for_half_vectors<Isa>::type::template call<gemv_transposed<T, N / 2>>(
            a, stride, rows, columns, x, add, y);
    row_dots<N>(a, stride, rows, columns, x, add, y);
  }
};
/// y (+)= A x likewise.
template <class T, int N>
struct gemv_plain {
  template <class Isa>
  UNROLL_INLINE static void run(const T* a, index_t stride, index_t rows, index_t columns, const T* x,
                                bool add, T* y) {
    if constexpr (N > 1)
      if (rows < N)
        return simd::for_half_vectors<Isa>::type::template call<gemv_plain<T, N / 2>>(a, stride, rows,
                                                                                      columns, x, add, y);
    column_sums<N, N == simd::width<Isa, T>>(a, stride, rows, columns, x, add, y);
  }
};
template <class T, template <class, int> class Gemv>
struct gemv_kernel {
  template <class Isa, class... Arguments>
  UNROLL_INLINE static void run(Arguments... arguments) {
    Gemv<T, simd::width<Isa, T>>::template run<Isa>(arguments...);
  }
};

}  // namespace unroll::linalg::detail
