#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "unroll/core/bf16.hpp"
#include "unroll/core/matrix.hpp"
#include "unroll/core/simd.hpp"

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

typedef float pair_sums __attribute__((vector_size(64)));
typedef std::uint32_t pair_vector __attribute__((vector_size(64)));
typedef std::uint32_t pair_quad __attribute__((vector_size(16)));

inline constexpr int pair_vectors = 4, pair_columns = 6;  // of a tile
inline constexpr index_t pairs_packed = 256;              // per pass over C
inline constexpr index_t columns_rounded = 256;

/// a(r, p) = a[16 M p + r], b(p, j) = b[p + j pairs_packed], c(r, j) = c[r + j cj]; the last vector of rows
/// has `last` of them.
struct pair_tile_arguments {
  index_t pairs;
  const std::uint32_t* a;
  const std::uint32_t* b;
  bool add;
  float* c;
  index_t cj;
  std::size_t last;
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
    for (int u = 0; u < M; ++u) std::memcpy(&w[u], a + 16 * u, sizeof w[u]);
    UNROLL_FULLY
    for (int j = 0; j < R; ++j) {
      const pair_vector x = b[j * pairs_packed] + pair_vector{};
      UNROLL_FULLY
      for (int u = 0; u < M; ++u) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum[j][u]) : "v"(w[u]), "v"(x));
    }
  }
  UNROLL_FULLY
  for (int j = 0; j < R; ++j) {
    UNROLL_FULLY
    for (int u = 0; u < M; ++u) {
      float* c = t.c + 16 * u + j * t.cj;
      const std::size_t bytes = u + 1 < M ? sizeof(pair_sums) : t.last * sizeof(float);
      pair_sums before{};
      if (t.add) std::memcpy(&before, c, bytes);
      before += sum[j][u];
      std::memcpy(c, &before, bytes);
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
template <class X>
std::uint32_t pair_of(const X* x, index_t left) {
  return std::uint32_t(bf16(float(x[0])).bits) | (left > 1 ? std::uint32_t(bf16(float(x[1])).bits) << 16 : 0);
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
    std::uint32_t* out = to;
    index_t i = 0;
    for (; i + 8 <= terms; i += 8, out += 4 * width) {  // 4 pairs of 16 rows: four 4 x 4 blocks
      pair_vector q[4];
      UNROLL_FULLY
      for (int r = 0; r < 4; ++r) {  // rows r, r + 4, r + 8, r + 12
        pair_quad x[4];
        UNROLL_FULLY
        for (int l = 0; l < 4; ++l) std::memcpy(&x[l], row[r + 4 * l] + i, sizeof x[l]);
        const auto low = __builtin_shufflevector(x[0], x[1], 0, 1, 2, 3, 4, 5, 6, 7);
        const auto high = __builtin_shufflevector(x[2], x[3], 0, 1, 2, 3, 4, 5, 6, 7);
        q[r] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      }
#define UNROLL_LOW_WORDS 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define UNROLL_HIGH_WORDS 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define UNROLL_LOW_PAIRS 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define UNROLL_HIGH_PAIRS 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
      const pair_vector a = __builtin_shufflevector(q[0], q[1], UNROLL_LOW_WORDS),
                        b = __builtin_shufflevector(q[2], q[3], UNROLL_LOW_WORDS),
                        c = __builtin_shufflevector(q[0], q[1], UNROLL_HIGH_WORDS),
                        d = __builtin_shufflevector(q[2], q[3], UNROLL_HIGH_WORDS);
      const pair_vector done[4] = {
          __builtin_shufflevector(a, b, UNROLL_LOW_PAIRS), __builtin_shufflevector(a, b, UNROLL_HIGH_PAIRS),
          __builtin_shufflevector(c, d, UNROLL_LOW_PAIRS), __builtin_shufflevector(c, d, UNROLL_HIGH_PAIRS)};
      UNROLL_FULLY
      for (int p = 0; p < 4; ++p) std::memcpy(out + p * width, &done[p], sizeof done[p]);
    }
#undef UNROLL_LOW_WORDS
#undef UNROLL_HIGH_WORDS
#undef UNROLL_LOW_PAIRS
#undef UNROLL_HIGH_PAIRS
    for (; i < terms; i += 2, out += width)
      for (int r = 0; r < 16; ++r) out[r] = pair_of(row[r] + i, terms - i);
  }
}

/// C (+)= W' X.
template <class W>
UNROLL_DOT_PAIRS void pair_gemm(matrix<const W> w, matrix<const float> x, bool add, matrix<float> c) {
  static constexpr auto tiles = pair_tile_table(std::make_integer_sequence<int, pair_vectors>{});
  alignas(64) std::uint32_t a[std::size_t(16 * pair_vectors * pairs_packed)];
  alignas(64) std::uint32_t b[std::size_t(columns_rounded * pairs_packed)];
  for (index_t q = 0; q < w.rows; q += 2 * pairs_packed)
    for (index_t j0 = 0; j0 < x.cols; j0 += columns_rounded) {
      const index_t terms = std::min(2 * pairs_packed, w.rows - q);
      const index_t width = std::min(columns_rounded, x.cols - j0);
      for (index_t j = 0; j < width; ++j)
        for (index_t p = 0; p < terms; p += 2)
          b[j * pairs_packed + p / 2] = pair_of(x.data + q + p + (j0 + j) * x.stride, terms - p);
      for (index_t i = 0; i < c.rows; i += 16 * pair_vectors) {
        const index_t rows = std::min<index_t>(16 * pair_vectors, c.rows - i), vectors = (rows + 15) / 16;
        pack_pairs(w.data + q + i * w.stride, w.stride, rows, terms, vectors, a);
        pair_tile_arguments t{};
        t.pairs = (terms + 1) / 2;
        t.a = a;
        t.add = add || q > 0;
        t.cj = c.stride;
        t.last = std::size_t(rows - 16 * (vectors - 1));
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

#undef UNROLL_DOT_PAIRS
#else

inline bool has_dot_pairs() { return false; }
inline bool amd_processor() { return false; }
template <class W>
void pair_gemm(matrix<const W>, matrix<const float>, bool, matrix<float>) {}

#endif

}  // namespace unroll::linalg::detail
