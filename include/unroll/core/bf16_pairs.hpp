#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "unroll/core/bf16.hpp"
#include "unroll/core/matrix.hpp"
#include "unroll/core/simd.hpp"
#include "unroll/core/small_gemm.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__CUDACC__)
#define UNROLL_DOT_PAIRS __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#endif

// C = W' X by AVX512-BF16, compiled for that whatever the flags of the file and called only where
// has_dot_pairs(). The instruction adds to a float the products of a pair of bfloat16s,
// w[2p] x[2p] + w[2p + 1] x[2p + 1]; a pair is one 32-bit number here. As in small_gemm.hpp a tile of C, 4
// vectors of 16 rows by 6 columns, is kept in registers. All are templates, so that they cost a file nothing
// that does not use them.
namespace unroll::linalg::detail {

#if defined(UNROLL_DOT_PAIRS)

inline bool has_dot_pairs() { return simd::instructions() == simd::instruction_set::avx512_bf16; }
inline bool amd_processor() { return __builtin_cpu_is("amd"); }

using pair_sums = simd::vec<float, 16>;
using pair_vector = simd::vec<std::uint32_t, 16>;

inline constexpr int pair_vectors = 4, pair_columns = 6;  // of a tile
inline constexpr index_t pairs_packed = 256;              // per pass over C
inline constexpr index_t columns_rounded = 512;

/// a(r, p) = a[16 M p + r], b(p, j) = b[p + j pairs_packed], c(r, j) = c[r + j cj].
struct pair_tile_arguments {
  index_t pairs;
  const std::uint32_t* a;
  const std::uint32_t* b;
  bool add;
  float* c;
  index_t cj;
};

/// C (+)= A B for M vectors of rows by R columns.
template <int M, int R>
UNROLL_DOT_PAIRS void pair_tile(const pair_tile_arguments& t) {
  pair_sums sum[std::size_t(R)][std::size_t(M)] = {};
  const std::uint32_t* a = t.a;
  const std::uint32_t* b = t.b;
  for (index_t p = 0; p < t.pairs; ++p, a += 16 * M, ++b) {
    pair_vector w[std::size_t(M)];
    UNROLL_FULLY
    for (int u = 0; u < M; ++u) w[u] = simd::load<16>(a + 16 * u);
    UNROLL_FULLY
    for (int j = 0; j < R; ++j) {
      const pair_vector x = simd::splat<16>(b[j * pairs_packed]);
      UNROLL_FULLY
      for (int u = 0; u < M; ++u) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum[j][u].v) : "v"(w[u].v), "v"(x.v));
    }
  }
  UNROLL_FULLY
  for (int j = 0; j < R; ++j) {
    UNROLL_FULLY
    for (int u = 0; u < M; ++u) {
      float* const c = t.c + 16 * u + j * t.cj;
      simd::store((t.add ? simd::load<16>(c) : pair_sums{}) + sum[j][u], c);
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

/// The pairs of 32 numbers x, rounded as bf16 rounds.
UNROLL_INLINE inline pair_vector round_pairs(const float* x) {
  pair_vector half[2];
  UNROLL_FULLY
  for (int h = 0; h < 2; ++h) {
    const pair_vector::raw u = simd::bits_as<std::uint32_t>(simd::load<16>(x + 16 * h)).v;
    half[h] = {(u & 0x7fffffffu) > 0x7f800000u ? pair_vector::raw{} + 0x7fff0000u
                                               : u + (0x7fffu + ((u >> 16) & 1u))};
  }
  const auto first = __builtin_shufflevector(half[0].v, half[1].v, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22,
                                             24, 26, 28, 30),
             second = __builtin_shufflevector(half[0].v, half[1].v, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23,
                                              25, 27, 29, 31);
  return {first >> 16 | (second & 0xffff0000u)};
}
/// to[p] = pair p of `terms` numbers x; a single last one is a pair with a zero.
template <class T>
UNROLL_DOT_PAIRS void round_column(const T* x, index_t terms, std::uint32_t* to) {
  for (; terms >= 32; terms -= 32, x += 32, to += 16) simd::store(round_pairs(x), to);
  if (terms == 0) return;
  T rest[32] = {};
  std::copy_n(x, terms, rest);
  simd::store_first(round_pairs(rest), to, (terms + 1) / 2);
}

/// 32 numbers as pairs.
template <class W>
UNROLL_INLINE inline pair_vector load_pairs(const W* from) {
  return {__builtin_bit_cast(pair_vector::raw, simd::load<32>(&from->bits).v)};
}
/// to(r, p) = pair p of row r of the 16 `vectors` rows of A = W': columns of W, the last of which stands in
/// for those beyond.
template <class W>
UNROLL_DOT_PAIRS void pack_pairs(const W* w, index_t stride, index_t columns, index_t terms, index_t vectors,
                                 std::uint32_t* to) {
  const index_t width = 16 * vectors;
  for (index_t u = 0; u < vectors; ++u, to += 16) {
    const W* row[16];
    for (index_t r = 0; r < 16; ++r) row[r] = w + std::min(16 * u + r, columns - 1) * stride;
    for (index_t i = 0; i < terms; i += 32) {
      const index_t left = terms - i < 32 ? terms - i : 32;
      pair_vector block[16];
      if (left == 32) {
        UNROLL_FULLY
        for (int r = 0; r < 16; ++r) block[r] = load_pairs(row[r] + i);
      } else {
        for (int r = 0; r < 16; ++r) {
          W rest[32] = {};
          std::copy_n(row[r] + i, left, rest);
          block[r] = load_pairs(static_cast<const W*>(rest));
        }
      }
      simd::transpose(block);
      for (int p = 0; 2 * p < left; ++p) simd::store(block[p], to + (i / 2 + p) * width);
    }
  }
}

/// C (+)= W' X.
template <class W>
UNROLL_DOT_PAIRS void pair_gemm(matrix<const W> w, matrix<const float> x, bool add, matrix<float> c) {
  static constexpr auto tiles = pair_tile_table(std::make_integer_sequence<int, pair_vectors>{});
  alignas(64) std::uint32_t a[std::size_t(16 * pair_vectors * pairs_packed)];
  alignas(64) std::uint32_t b[std::size_t(columns_rounded * pairs_packed)];
  alignas(64) float edge[std::size_t(16 * pair_vectors * pair_columns)];  // rows of C and those beyond
  for (index_t q = 0; q < w.rows; q += 2 * pairs_packed)
    for (index_t j0 = 0; j0 < x.cols; j0 += columns_rounded) {
      const index_t terms = std::min(2 * pairs_packed, w.rows - q);
      const index_t width = std::min(columns_rounded, x.cols - j0);
      for (index_t j = 0; j < width; ++j)
        round_column(x.data + q + (j0 + j) * x.stride, terms, b + j * pairs_packed);
      for (index_t i = 0; i < c.rows; i += 16 * pair_vectors) {
        const index_t rows = std::min<index_t>(16 * pair_vectors, c.rows - i), vectors = (rows + 15) / 16;
        pack_pairs(w.data + q + i * w.stride, w.stride, rows, terms, vectors, a);
        const bool whole = rows == 16 * vectors, sums = add || q > 0;
        pair_tile_arguments t{(terms + 1) / 2, a, b, whole && sums, edge, whole ? c.stride : 16 * vectors};
        index_t ahead = i + rows, tiles_left = (width + pair_columns - 1) / pair_columns;
        for (index_t j = 0; j < width; --tiles_left) {
          const index_t columns = balanced(width - j, pair_columns);
          const index_t until = ahead + (std::min(i + 2 * rows, c.rows) - ahead) / tiles_left;
          for (; ahead < until; ++ahead)  // asks for a part of the next panel
            for (index_t p = 0; p < terms; p += 32) simd::prefetch(w.data + q + p + ahead * w.stride);
          float* const to = c.data + i + (j0 + j) * c.stride;
          t.b = b + j * pairs_packed;
          if (whole) t.c = to;
          tiles[std::size_t(vectors - 1)][std::size_t(columns - 1)](t);
          for (index_t l = 0; !whole && l < columns; ++l)
            for (index_t r = 0; r < rows; ++r) {
              float& sum = to[r + l * c.stride];
              sum = (sums ? sum : 0.0f) + edge[r + l * t.cj];
            }
          j += columns;
        }
      }
    }
}

#undef UNROLL_DOT_PAIRS
#else

inline bool has_dot_pairs() { return false; }
inline bool amd_processor() { return false; }
template <class W>
void pair_gemm(matrix<const W>, matrix<const float>, bool, matrix<float>) {}

#endif

}  // namespace unroll::linalg::detail
