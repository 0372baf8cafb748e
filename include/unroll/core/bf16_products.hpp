#pragma once

#include "unroll/core/bf16_pairs.hpp"
#include "unroll/core/error.hpp"
#include "unroll/core/linalg.hpp"

// Products of bfloat16 weights with floats. A weight is widened to float, which is exact, so that a product
// has the error of the float product of the widened weights; only dot pairs (bf16_pairs.hpp) round the other
// operand too. Nothing allocates; gemm uses at most 580 KiB of stack.
namespace unroll::linalg {

/// How C = W' X is computed. `widened`: in floats. `dot_pairs`: by instructions that multiply pairs of
/// bfloat16; x is rounded to bfloat16, |error| <= (2^-8 + 2 k 2^-24) sum_i |w_i x_i| for k terms, numbers
/// below 2^-126 count as zero.
enum class bf16_way { widened, dot_pairs };

/// What this processor computes fastest: dot pairs on AMD's that have AVX512-BF16, where they do twice the
/// multiply-adds of floats. On Intel's they do fewer than floats (docs/performance/bf16.md), which are exact
/// too.
inline bf16_way fastest_bf16_way() {
  return detail::has_dot_pairs() && detail::amd_processor() ? bf16_way::dot_pairs : bf16_way::widened;
}

namespace detail {

/// N bfloat16s as floats.
template <int N>
UNROLL_INLINE inline simd::vec<float, N> load_widened(const bf16* p) {
  if constexpr (N == 1) {
    return {float(*p)};
  } else {
#if defined(__GNUC__) && !defined(__CUDACC__)
    // By zeros in between: g++ 12 widens four numbers one at a time for NEON.
    if constexpr (N == 4) {
      using words = typename simd::vec<std::uint16_t, 8>::raw;
      std::uint64_t four;
      std::memcpy(&four, p, sizeof four);
      const auto v = __builtin_bit_cast(words, typename simd::vec<std::uint64_t, 2>::raw{four, 0});
      return {__builtin_bit_cast(typename simd::vec<float, 4>::raw,
                                 __builtin_shufflevector(words{}, v, 0, 8, 1, 9, 2, 10, 3, 11))};
    }
    using wide = simd::vec<std::uint32_t, N>;
    const auto narrow = simd::load<N>(&p->bits);
    return simd::bits_as<float>(wide{__builtin_convertvector(narrow.v, typename wide::raw) << 16});
#endif
  }
}

/// The columns of a matrix as floats, one behind the other.
struct widen_kernel {
  template <class Isa, class W>
  UNROLL_INLINE static void run(const matrix<const W>& from, float* to) {
    constexpr int N = simd::width<Isa, float>;
    for (index_t j = 0; j < from.cols; ++j, to += from.rows) {
      const W* x = from.data + j * from.stride;
      index_t i = 0;
      for (; i + N <= from.rows; i += N) simd::store(load_widened<N>(x + i), to + i);
      for (; i < from.rows; ++i) to[i] = x[i];
    }
  }
};
template <class W>
void widen(matrix<const W> from, float* to) {
  simd::dispatch<widen_kernel, const matrix<const W>&>(from, to);
}

/// y (+)= W' x with W of at least N rows. S columns are read at a time that lie a quarter of the matrix
/// apart, as row_dots does; out of memory, asking for what lies 3 KiB ahead is worth a third of the speed.
template <int N, int S, class W>
UNROLL_INLINE inline void widened_dots(const matrix<const W>& w, index_t j, index_t apart, const float* x,
                                       bool add, float* y) {
  const W* p[std::size_t(S)];
  simd::vec<float, N> sum[std::size_t(S)] = {};
  UNROLL_FULLY
  for (int s = 0; s < S; ++s) p[s] = w.data + (j + s * apart) * w.stride;
  const index_t whole = w.rows / N * N;
  for (index_t i = 0; i < whole; i += N) {
    const simd::vec<float, N> v = simd::load<N>(x + i);
    UNROLL_FULLY
    for (int s = 0; s < S; ++s) {
#if defined(__GNUC__)
      __builtin_prefetch(p[s] + i + 1536);
#endif
      sum[s] += v * load_widened<N>(p[s] + i);
    }
  }
  if (whole < w.rows) {  // the last vector overlaps the one before it, times zeros there
    float tail[std::size_t(N)] = {};
    for (int i = 1; i < N && i <= w.rows - whole; ++i) tail[N - i] = x[w.rows - i];
    const simd::vec<float, N> v = simd::load<N>(tail);
    UNROLL_FULLY
    for (int s = 0; s < S; ++s) sum[s] += v * load_widened<N>(p[s] + w.rows - N);
  }
  UNROLL_FULLY
  for (int s = 0; s < S; ++s) {
    const float dot = simd::reduce(sum[s]);
    float& to = y[j + s * apart];
    to = add ? to + dot : dot;
  }
}
/// Returns false where W has fewer rows than a vector.
struct widened_gemv {
  template <class Isa, class W>
  UNROLL_INLINE static bool run(const matrix<const W>& w, const float* x, bool add, float* y) {
    constexpr int N = simd::width<Isa, float>;
    if (w.rows < N) return false;
    const index_t apart = w.cols / 4;
    for (index_t j = 0; j < apart; ++j) widened_dots<N, 4>(w, j, apart, x, add, y);
    for (index_t j = 4 * apart; j < w.cols; ++j) widened_dots<N, 1>(w, j, 1, x, add, y);
    return true;
  }
};

/// Panels of 512 terms by 64 rows of C are widened, each once, and multiplied as floats.
template <class W>
void widened_gemm(op ow, matrix<const W> w, op ob, matrix<const float> b, bool add, matrix<float> c) {
  constexpr index_t terms = inner_block, rows = 64;
  alignas(64) float panel[std::size_t(terms * rows)];
  const index_t k = ow == op::none ? w.cols : w.rows;
  for (index_t j = 0; k == 0 && !add && j < c.cols; ++j) std::fill_n(c.data + j * c.stride, c.rows, 0.0f);
  for (index_t i = 0; i < c.rows; i += rows) {
    const index_t m = std::min(rows, c.rows - i);
    for (index_t q = 0; q < k; q += terms) {
      const index_t t = std::min(terms, k - q);
      const matrix<const W> from = ow == op::none ? part(w, i, m, q, t) : part(w, q, t, i, m);
      widen(from, panel);
      gemm<float>(ow, {panel, from.rows, from.cols}, ob,
                  ob == op::none ? rows_of(b, q, t) : columns_of(b, q, t), add || q > 0, rows_of(c, i, m));
    }
  }
}

}  // namespace detail

/// y = op(W) x, or y += op(W) x when `add`. W' x reads the weights once, four columns at a time.
template <std::same_as<bf16> W>
void gemv(op ow, matrix<const W> w, const float* x, bool add, float* y) {
  if (ow == op::none)
    detail::widened_gemm(ow, w, op::none, {x, w.cols, 1}, add, {y, w.rows, 1});
  else if (!simd::dispatch<detail::widened_gemv, const matrix<const W>&>(w, x, add, y))
    detail::widened_gemm(ow, w, op::none, {x, w.rows, 1}, add, {y, w.cols, 1});
}

/// C = op(W) op(B), or C += op(W) op(B) when `add`; C overlaps no operand. `way` is looked at for C = W' X of
/// two columns and more: gradients always go through floats. Throws unroll::error where the processor has no
/// dot pairs. Bits depend on the sizes, the numbers, the way and the float product that is used.
template <std::same_as<bf16> W>
void gemm(op ow, matrix<const W> w, op ob, matrix<const float> b, bool add, matrix<float> c,
          bf16_way way = fastest_bf16_way()) {
  const index_t k = ow == op::none ? w.cols : w.rows;
  UNROLL_ASSERT(c.rows == (ow == op::none ? w.rows : w.cols) &&
                c.cols == (ob == op::none ? b.cols : b.rows) && k == (ob == op::none ? b.rows : b.cols));
  if (way == bf16_way::dot_pairs && !detail::has_dot_pairs())
    fail("gemm", "way", "is dot_pairs, this processor or compiler has no AVX512-BF16");
  if (c.rows == 0 || c.cols == 0) return;
  if (c.cols == 1 && ob == op::none) {
    gemv(ow, w, b.data, add, c.data);
  } else if (way == bf16_way::dot_pairs && ow == op::transpose && ob == op::none && k > 0) {
    detail::pair_gemm(w, b, add, c);
  } else {
    detail::widened_gemm(ow, w, ob, b, add, c);
  }
}

#if defined(UNROLL_INSTANCE)
UNROLL_INSTANCE void gemv<bf16>(op, matrix<const bf16>, const float*, bool, float*);
UNROLL_INSTANCE void gemm<bf16>(op, matrix<const bf16>, op, matrix<const float>, bool, matrix<float>,
                                bf16_way);
#endif

}  // namespace unroll::linalg
