#pragma once

#include "unroll/core/simd.hpp"

namespace unroll::linalg::detail {

/// y (+)= A' x with A `in` x `out`, in >= simd::width<T>. Four columns are read at a time that lie a quarter
/// of the matrix apart, so that the processor sees four streams: out of memory, columns of 1 to 4 KiB that
/// are neighbours come at half of that speed.
template <class T>
void row_dots(const T* a, index_t stride, index_t in, index_t out, const T* x, bool add, T* y) {
  constexpr int N = simd::width<T>, streams = 4;
  using vec = simd::vec<T>;
  // The last vector of a column overlaps the one before it, times zeros there.
  const index_t whole = in / N * N;
  T tail[std::size_t(N)] = {};
  for (int i = 1; i < N && i <= in - whole; ++i) tail[N - i] = x[in - i];
  const vec last = simd::load<N>(tail);
  const auto dots = [&]<int S>(std::integral_constant<int, S>, index_t j, index_t apart) {
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
      to = add ? to + simd::reduce<T, N>(sum[s]) : simd::reduce<T, N>(sum[s]);
    }
  };
  const index_t apart = out / streams;
  for (index_t j = 0; j < apart; ++j) dots(std::integral_constant<int, streams>{}, j, apart);
  for (index_t j = streams * apart; j < out; ++j) dots(std::integral_constant<int, 1>{}, j, 1);
}

}  // namespace unroll::linalg::detail
