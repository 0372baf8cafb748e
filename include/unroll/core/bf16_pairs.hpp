#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "unroll/core/bf16.hpp"
#include "unroll/core/instruction_set.hpp"
#include "unroll/core/matrix.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__CUDACC__)
#define UNROLL_DOT_PAIRS __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#if defined(__clang__)
#define UNROLL_UNROLL _Pragma("unroll")
#else
#define UNROLL_UNROLL _Pragma("GCC unroll 8")
#endif
#pragma GCC diagnostic push  // g++ 12 warns about its own intrinsics
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

// C = W' X by AVX512-BF16, compiled for that whatever the flags of the file and called only where
// has_dot_pairs(). The instruction adds to a float the products of a pair of bfloat16s,
// w[2p] x[2p] + w[2p + 1] x[2p + 1]; a pair is one 32-bit number here. As in small_gemm.hpp a tile of C, 4
// vectors of 16 rows by 6 columns, is kept in registers.
namespace unroll::linalg::detail {

#if defined(UNROLL_DOT_PAIRS)

inline bool has_dot_pairs() { return simd::instructions() == simd::instruction_set::avx512_bf16; }
inline bool amd_processor() { return __builtin_cpu_is("amd"); }

inline constexpr int pair_vectors = 4, pair_columns = 6;  // of a tile
inline constexpr index_t pairs_packed = 256;              // per pass over C
inline constexpr index_t columns_rounded = 256;

/// a(r, p) = a[16 M p + r], b(p, j) = b[p + j pairs_packed], c(r, j) = c[r + j cj]; of the last vector of
/// rows only those in `last` are there.
struct pair_tile_arguments {
  index_t pairs;
  const std::uint32_t* a;
  const std::uint32_t* b;
  bool add;
  float* c;
  index_t cj;
  std::uint16_t last;
};

/// C (+)= A B for M vectors of rows by R columns.
template <int M, int R>
UNROLL_DOT_PAIRS void pair_tile(const pair_tile_arguments& t) {
  __m512 sum[std::size_t(R)][std::size_t(M)];
  UNROLL_UNROLL
  for (int j = 0; j < R; ++j) {
    UNROLL_UNROLL
    for (int u = 0; u < M; ++u) sum[j][u] = _mm512_setzero_ps();
  }
  const std::uint32_t* a = t.a;
  const std::uint32_t* b = t.b;
  for (index_t p = 0; p < t.pairs; ++p, a += 16 * M, ++b) {
    __m512i w[std::size_t(M)];
    UNROLL_UNROLL
    for (int u = 0; u < M; ++u) w[u] = _mm512_load_si512(a + 16 * u);
    UNROLL_UNROLL
    for (int j = 0; j < R; ++j) {
      const __m512i x = _mm512_set1_epi32(int(b[j * pairs_packed]));
      UNROLL_UNROLL
      for (int u = 0; u < M; ++u)
        sum[j][u] =
            _mm512_dpbf16_ps(sum[j][u], reinterpret_cast<__m512bh>(w[u]), reinterpret_cast<__m512bh>(x));
    }
  }
  UNROLL_UNROLL
  for (int j = 0; j < R; ++j) {
    UNROLL_UNROLL
    for (int u = 0; u < M; ++u) {
      float* c = t.c + 16 * u + j * t.cj;
      const auto rows = __mmask16(u + 1 < M ? 0xffff : t.last);
      if (t.add) sum[j][u] = _mm512_add_ps(sum[j][u], _mm512_maskz_loadu_ps(rows, c));
      _mm512_mask_storeu_ps(c, rows, sum[j][u]);
    }
  }
}

using pair_tile_function = void (*)(const pair_tile_arguments&);
template <int M, int... R>
constexpr auto pair_tile_row(std::integer_sequence<int, R...>) {
  return std::array<pair_tile_function, sizeof...(R)>{&pair_tile<M, R + 1>...};
}
template <int... M>
constexpr auto pair_tile_table(std::integer_sequence<int, M...>) {
  using columns = std::make_integer_sequence<int, pair_columns>;
  return std::array<std::array<pair_tile_function, std::size_t(pair_columns)>, sizeof...(M)>{
      pair_tile_row<M + 1>(columns{})...};
}

/// The pair of the first two, or the last one and a zero.
inline std::uint32_t pair_of(const bf16* x, index_t left) {
  return std::uint32_t(x[0].bits) | (left > 1 ? std::uint32_t(x[1].bits) << 16 : 0);
}

/// to(r, p) = pair p of row r of the 16 `vectors` rows of A = W': columns of W, the last of which stands in
/// for those beyond.
UNROLL_DOT_PAIRS inline void pack_pairs(const bf16* w, index_t stride, index_t columns, index_t terms,
                                        int vectors, std::uint32_t* to) {
  const index_t width = 16 * vectors;
  for (int u = 0; u < vectors; ++u, to += 16) {
    const bf16* row[16];
    for (int r = 0; r < 16; ++r) row[r] = w + std::min<index_t>(16 * u + r, columns - 1) * stride;
    std::uint32_t* out = to;
    index_t i = 0;
    for (; i + 8 <= terms; i += 8) {  // 4 pairs of 16 rows: four 4 x 4 blocks, one in each lane
      __m512i q[4];
      UNROLL_UNROLL
      for (int r = 0; r < 4; ++r) {
        q[r] = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row[r] + i)));
        q[r] = _mm512_inserti32x4(q[r], _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[r + 4] + i)), 1);
        q[r] = _mm512_inserti32x4(q[r], _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[r + 8] + i)), 2);
        q[r] =
            _mm512_inserti32x4(q[r], _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[r + 12] + i)), 3);
      }
      const __m512i low = _mm512_unpacklo_epi32(q[0], q[1]), high = _mm512_unpackhi_epi32(q[0], q[1]);
      const __m512i low2 = _mm512_unpacklo_epi32(q[2], q[3]), high2 = _mm512_unpackhi_epi32(q[2], q[3]);
      _mm512_storeu_si512(out, _mm512_unpacklo_epi64(low, low2));
      _mm512_storeu_si512(out + width, _mm512_unpackhi_epi64(low, low2));
      _mm512_storeu_si512(out + 2 * width, _mm512_unpacklo_epi64(high, high2));
      _mm512_storeu_si512(out + 3 * width, _mm512_unpackhi_epi64(high, high2));
      out += 4 * width;
    }
    for (; i < terms; i += 2, out += width)
      for (int r = 0; r < 16; ++r) out[r] = pair_of(row[r] + i, terms - i);
  }
}

/// to[p] = pair p of x, rounded to nearest even.
UNROLL_DOT_PAIRS inline void round_pairs(const float* x, index_t terms, std::uint32_t* to) {
  index_t i = 0;
  for (; i + 32 <= terms; i += 32)
    _mm512_storeu_si512(to + i / 2, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16),
                                                                                  _mm512_loadu_ps(x + i))));
  for (; i < terms; i += 2) {
    const bf16 pair[2] = {bf16(x[i]), bf16(i + 1 < terms ? x[i + 1] : 0.0f)};
    to[i / 2] = pair_of(pair, 2);
  }
}

/// C (+)= W' X.
UNROLL_DOT_PAIRS inline void pair_gemm(matrix<const bf16> w, matrix<const float> x, bool add,
                                       matrix<float> c) {
  static constexpr auto tiles = pair_tile_table(std::make_integer_sequence<int, pair_vectors>{});
  alignas(64) std::uint32_t a[std::size_t(16 * pair_vectors * pairs_packed)];
  alignas(64) std::uint32_t b[std::size_t(columns_rounded * pairs_packed)];
  for (index_t q = 0; q < w.rows; q += 2 * pairs_packed)
    for (index_t j0 = 0; j0 < x.cols; j0 += columns_rounded) {
      const index_t terms = std::min(2 * pairs_packed, w.rows - q);
      const index_t width = std::min(columns_rounded, x.cols - j0);
      for (index_t j = 0; j < width; ++j)
        round_pairs(x.data + q + (j0 + j) * x.stride, terms, b + j * pairs_packed);
      for (index_t i = 0; i < c.rows; i += 16 * pair_vectors) {
        const index_t rows = std::min<index_t>(16 * pair_vectors, c.rows - i);
        const int vectors = int((rows + 15) / 16);
        pack_pairs(w.data + q + i * w.stride, w.stride, rows, terms, vectors, a);
        pair_tile_arguments t{};
        t.pairs = (terms + 1) / 2;
        t.a = a;
        t.add = add || q > 0;
        t.cj = c.stride;
        t.last = std::uint16_t(0xffffu >> (16 * vectors - rows));
        for (index_t j = 0; j < width;) {
          const index_t groups = (width - j + pair_columns - 1) / pair_columns;
          const index_t columns = (width - j + groups - 1) / groups;
          t.b = b + j * pairs_packed;
          t.c = c.data + i + (j0 + j) * c.stride;
          tiles[std::size_t(vectors - 1)][std::size_t(columns - 1)](t);
          j += columns;
        }
      }
    }
}

#undef UNROLL_UNROLL
#else

inline bool has_dot_pairs() { return false; }
inline bool amd_processor() { return false; }
inline void pair_gemm(matrix<const bf16>, matrix<const float>, bool, matrix<float>) {}

#endif

}  // namespace unroll::linalg::detail
