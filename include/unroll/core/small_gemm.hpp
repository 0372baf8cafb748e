#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "unroll/core/simd.hpp"

// Matrix products of the sizes that recurrent cells have. A tile of C is kept in registers while the inner
// dimension runs over columns of A and broadcast elements of B. An operand is packed where its layout asks
// for it, and A where there are columns enough to pay for that: out of a matrix, columns of A may split cache
// lines and fall into few sets of the cache. Nothing is allocated: the two packing buffers (128 and 192 KiB
// with AVX-512) are on the stack. While a tile multiplies it asks for what follows: the next tile of C and, a
// cache line for every term, the panel of A behind its own. Weights come from memory or from a cache that
// is shared, and what a processor fetches unasked ends at a column.
namespace unroll::linalg::detail {

using simd::vec;

// Registers: 4 x 6 + 4 + 1 of 32 with AVX-512, 4 x 5 + 4 + 5 of 32 with NEON, where g++ 12 loads all numbers
// of B before the first sum, and 3 x 4 + 3 + 1 of 16 otherwise.
template <class Isa>
inline constexpr int tile_vectors = Isa::registers == 32 ? 4 : 3;
template <class Isa>
inline constexpr int tile_columns = Isa::registers < 32 ? 4
                                    : Isa::bytes < 64   ? 5
                                                        : 6;
// For one or two vectors of rows, whose sums would be too few to hide the latency of an addition: 2 x 12 + 2
// + 1 registers with AVX-512; elsewhere one vector.
inline constexpr int long_tile_columns = 12;
template <class Isa>
inline constexpr int long_tile_vectors = Isa::bytes == 64 ? 2 : 1;
inline constexpr index_t inner_block = 512;  // terms summed per pass over C
template <class T>
inline constexpr index_t column_block = 384 / index_t(sizeof(T));  // columns per packed block of B

/// What a tile asks for while it multiplies: the next tile of C, and `runs` times `run` lines of A's next
/// panel that lie `stride` bytes apart, each 64 bytes behind the one of the run before. R terms and more.
template <class T>
struct lines_ahead {
  const T* next_tile = nullptr;
  const char* panel = nullptr;
  index_t stride = 0, run = 0, runs = 0;

  /// As many runs as a tile of so many terms has time for, r terms being those of the next tile, and moves on
  /// to the others.
  UNROLL_INLINE lines_ahead next(const T* tile, index_t terms, index_t r) {
    lines_ahead part = *this;
    part.next_tile = tile;
    if (runs == 0) return part;
    const index_t most = run < terms - r ? (terms - r) / run : 1;
    if (most < runs) part.runs = most;
    panel += 64 * part.runs;
    runs -= part.runs;
    return part;
  }
};

/// What a tile reads and writes: a(i, q) = a[i + q aq], b(q, j) = b[q bq + j bj], c(i, j) = c[i + j cj].
/// The last of the tile's row vectors starts at row `last`: where the rows are no multiple of the width it
/// overlaps its neighbour, and both then write the same numbers.
template <class T>
struct tile_arguments {
  index_t inner;
  const T* a;
  index_t aq;
  const T* b;
  index_t bq, bj;
  bool add;
  T* c;
  index_t cj, last;
  const lines_ahead<T>* ahead;  // of tiles that ask
};

/// sum += a b for one term of the inner dimension.
template <class T, int N, int M, int R>
UNROLL_INLINE inline void tile_term(const tile_arguments<T>& t, const T* a, const T* b,
                                    vec<T, N> (&sum)[std::size_t(R)][std::size_t(M)]) {
  vec<T, N> av[std::size_t(M)];
  UNROLL_FULLY
  for (int u = 0; u < M; ++u) simd::keep(av[u] = simd::load<N>(a + (u + 1 < M ? u * N : t.last)));
  UNROLL_FULLY
  for (int j = 0; j < R; ++j) {
    const T bj = b[j * t.bj];
    UNROLL_FULLY
    for (int u = 0; u < M; ++u) sum[j][u] += av[u] * bj;
  }
}

/// C (+)= A B for M vectors of N rows by R columns. Every number is one sum in the order of the terms,
/// whatever M and R: the bits of a column do not depend on how many there are. Asks: it asks for what
/// follows.
template <class T, int N, int M, int R, bool Asks>
struct tile {
  template <class Isa>
  UNROLL_INLINE static void run(const tile_arguments<T>& t) {
    vec<T, N> sum[std::size_t(R)][std::size_t(M)] = {};
    const T* a = t.a;
    const T* b = t.b;
    index_t left = t.inner;
    if constexpr (Asks) {
      const lines_ahead<T> ahead = *t.ahead;
      const T* c = ahead.next_tile;
      for (int j = 0; j < R; ++j, a += t.aq, b += t.bq, c += t.cj) {
        tile_term<T, N, M, R>(t, a, b, sum);
        UNROLL_FULLY
        for (int u = 0; u < M; ++u) simd::prefetch(c + u * N);
      }
      left -= R;
      const char* first = ahead.panel;
      for (index_t i = 0; i < ahead.runs; ++i, first += 64) {
        const char* line = first;
        const index_t terms = ahead.run < left ? ahead.run : left;
        left -= terms;
        for (index_t n = terms; n > 0; --n, a += t.aq, b += t.bq, line += ahead.stride) {
          tile_term<T, N, M, R>(t, a, b, sum);
          simd::prefetch(line);
        }
      }
    }
    for (; left > 0; --left, a += t.aq, b += t.bq) tile_term<T, N, M, R>(t, a, b, sum);
    T* c = t.c;
    const index_t cj = t.cj, last = t.last;
    if (t.add) {
      UNROLL_FULLY
      for (int j = 0; j < R; ++j) {
        UNROLL_FULLY
        for (int u = 0; u < M; ++u) sum[j][u] += simd::load<N>(c + j * cj + (u + 1 < M ? u * N : last));
      }
    }
    UNROLL_FULLY
    for (int j = 0; j < R; ++j, c += cj) {
      UNROLL_FULLY
      for (int u = 0; u < M; ++u) simd::store(sum[j][u], c + (u + 1 < M ? u * N : last));
    }
  }
};

template <class T>
using tile_function = void (*)(const tile_arguments<T>&);

/// Small tiles do not ask, whether they may or not: that would be another function.
template <class T, int N, int M, int R, bool May>
using tile_of = tile<T, N, M, R, (May && M > 1 && M * R >= 12 && N * int(sizeof(T)) >= 32)>;

template <class Isa, class T, int N, int M, bool May, int... R>
constexpr auto tile_row(std::integer_sequence<int, R...>) {
  return std::array<tile_function<T>, sizeof...(R)>{
      &Isa::template call<tile_of<T, N, M, R + 1, May>, const tile_arguments<T>&>...};
}
template <class Isa, class T, int N, int R, bool May, int... M>
constexpr auto tile_table(std::integer_sequence<int, M...>) {
  return std::array<std::array<tile_function<T>, std::size_t(R)>, sizeof...(M)>{
      tile_row<Isa, T, N, M + 1, May>(std::make_integer_sequence<int, R>{})...};
}
template <class Isa, class T, int N, bool May, int... M>
constexpr auto long_row(std::integer_sequence<int, M...>) {
  return std::array<tile_function<T>, sizeof...(M)>{
      &Isa::template call<tile_of<T, N, M + 1, long_tile_columns, May>, const tile_arguments<T>&>...};
}
/// The tiles of vectors of N rows: of[asks][M - 1][R - 1].
template <class Isa, class T, int N>
struct tiles {
  static constexpr bool widest = N == simd::width<Isa, T>;
  static constexpr int M = N == 1 ? 1 : widest ? tile_vectors<Isa> : 2, R = widest ? tile_columns<Isa> : 4;
  using rows = std::make_integer_sequence<int, M>;
  static constexpr std::array of{tile_table<Isa, T, N, R, false>(rows{}),
                                 tile_table<Isa, T, N, R, true>(rows{})};
  static constexpr int long_M = widest ? long_tile_vectors<Isa> : 0;
  using long_rows = std::make_integer_sequence<int, long_M>;
  static constexpr std::array of_long{long_row<Isa, T, N, false>(long_rows{}),
                                      long_row<Isa, T, N, true>(long_rows{})};
};

/// `total` things in as few groups of at most `most` as possible, of nearly equal sizes: the next group.
UNROLL_INLINE inline index_t balanced(index_t total, index_t most) {
  const index_t groups = (total + most - 1) / most;
  return (total + groups - 1) / groups;
}

/// to(r, q) = from(r, q) for r < rows, q < inner; rows >= N.
template <int N, class T>
UNROLL_INLINE inline void pack(const T* from, index_t stride, index_t rows, index_t inner, T* to) {
  for (index_t q = 0; q < inner; ++q, from += stride, to += rows) {
    for (index_t i = 0; i < rows - N; i += N) simd::store(simd::load<N>(from + i), to + i);
    simd::store(simd::load<N>(from + rows - N), to + rows - N);
  }
}
/// to(r, q) = from(q, r) for r < rows, q < inner, by N x N blocks and narrower ones behind them; rows >= N.
/// Ahead: asks for the rows behind those at hand.
template <int N, bool Ahead = false, class T>
UNROLL_INLINE inline void pack_transposed(const T* from, index_t stride, index_t rows, index_t inner, T* to) {
  const index_t whole = inner - inner % N;
  for (index_t i = 0; i < rows && whole > 0; i += N) {
    const index_t r = i < rows - N ? i : rows - N;
    const auto transpose = [&](index_t q, auto ask) UNROLL_INLINE {
      vec<T, N> block[std::size_t(N)];
      UNROLL_FULLY
      for (int u = 0; u < N; ++u) {
        const T* const row = from + q + (r + u) * stride;
        block[u] = simd::load<N>(row);
        if constexpr (ask) simd::prefetch(row + N * stride);
      }
      simd::transpose(block);
      UNROLL_FULLY
      for (int u = 0; u < N; ++u) simd::store(block[u], to + r + (q + u) * rows);
    };
    constexpr std::bool_constant<Ahead> ask;
    index_t q = 0;
    if constexpr (Ahead && N * sizeof(T) == 32)  // one line for two blocks
      for (; q + N < whole; q += 2 * N) {
        transpose(q, ask);
        transpose(q + N, std::false_type());
      }
    for (; q < whole; q += N) transpose(q, ask);
  }
  if constexpr (N > 1)
    if (whole < inner) pack_transposed<N / 2>(from + whole, stride, rows, inner - whole, to + whole * rows);
}

/// C (+)= op(A) op(B) with C m x n.
template <class T>
struct gemm_arguments {
  index_t m, n, k;
  const T* a;
  index_t lda;
  bool a_transposed;
  const T* b;
  index_t ldb;
  bool b_transposed, add;
  T* c;
  index_t ldc;
};

/// Whether columns of A are packed. From 96 columns of C on that always pays; where those of A are more than
/// the first cache holds and, 512 bytes or a multiple apart, fall into few of its sets, from 48 on. With
/// AVX-512 this is not so: there the second cache is fast enough.
template <class Isa, class T>
UNROLL_INLINE inline bool packs_a(const gemm_arguments<T>& g) {
  const index_t stride = g.lda * index_t(sizeof(T));
  const bool few_sets = Isa::registers == 16 && stride % 512 == 0 && g.k * stride > (32 << 10);
  return g.a_transposed || (g.k >= 64 && g.n >= (few_sets ? 48 : 96));
}
/// Whether the terms of A that are summed in one pass stay in a cache.
template <class T>
UNROLL_INLINE inline bool keeps_a(const gemm_arguments<T>& g) {
  return g.m * (g.k < inner_block ? g.k : inner_block) * index_t(sizeof(T)) <= (128 << 10);
}

/// The product by vectors of N rows where A is read as it lies and stays in a cache: down the rows of C, as
/// many columns at a time as a tile has.
template <class T, int N>
struct gemm_by_columns {
  template <class Isa>
  UNROLL_INLINE static void run(const gemm_arguments<T>& arguments) {
    const gemm_arguments<T> g = arguments;  // a copy, which no tile can change
    using tiles = detail::tiles<Isa, T, N>;
    constexpr int M = tiles::M, R = tiles::R;
    const bool pack_b = g.b_transposed && g.m > 2 * M * N;
    // `larger` groups of rows have one vector more than the others
    const index_t vectors = (g.m + N - 1) / N, groups = (vectors + M - 1) / M;
    const index_t smaller = vectors / groups, larger = vectors % groups;
    alignas(64) T b_buffer[std::size_t(R * inner_block)];
    for (index_t q = 0; q < g.k; q += inner_block) {
      tile_arguments<T> t{};
      t.inner = inner_block < g.k - q ? inner_block : g.k - q;
      t.aq = g.lda;
      t.cj = g.ldc;
      t.add = g.add || q > 0;
      for (index_t j = 0; j < g.n; j += R) {
        const index_t r = R < g.n - j ? R : g.n - j;
        const T* const a = g.a + q * g.lda;
        T* const c = g.c + j * g.ldc;
        t.b = g.b + (g.b_transposed ? j + q * g.ldb : q + j * g.ldb);
        t.bq = g.b_transposed ? g.ldb : 1;
        t.bj = g.b_transposed ? 1 : g.ldb;
        if (pack_b) {
          T* to = b_buffer;
          for (index_t left = t.inner; left > 0; --left, t.b += g.ldb, to += r)
            if (r == R)
              std::memcpy(to, t.b, std::size_t(R) * sizeof(T));
            else
              std::memcpy(to, t.b, std::size_t(r) * sizeof(T));
          t.b = b_buffer;
          t.bq = r;
        }
        for (index_t i = 0, group = 0; group < groups; ++group) {
          const index_t count = group < larger ? smaller + 1 : smaller;
          t.a = a + i;
          t.c = c + i;
          t.last = group + 1 < groups ? (count - 1) * N : g.m - N - i;
          tiles::of[false][std::size_t(count - 1)][std::size_t(r - 1)](t);
          i += count * N;
        }
      }
    }
  }
};

/// The lines of op(A) from row i and term q on, of as many as `most` rows, in the order in which they lie.
template <class T>
UNROLL_INLINE inline lines_ahead<T> lines_of_panel(const gemm_arguments<T>& g, index_t i, index_t most,
                                                   index_t q) {
  const index_t rows = most < g.m - i ? most : g.m - i;
  const index_t terms = inner_block < g.k - q ? inner_block : g.k - q;
  if (terms <= 0) return {};
  const index_t columns = g.a_transposed ? rows : terms, length = g.a_transposed ? terms : rows;
  const T* const from = g.a_transposed ? g.a + q + i * g.lda : g.a + i + q * g.lda;
  const char* const first = reinterpret_cast<const char*>(from);
  const index_t stride = g.lda * index_t(sizeof(T));
  const bool split = (reinterpret_cast<std::uintptr_t>(first) | std::uintptr_t(stride)) % 64 != 0;
  return {nullptr, first, stride, columns, (length * index_t(sizeof(T)) + 63) / 64 + split};
}

/// The product by vectors of N rows, whatever A is like.
template <class T, int N>
struct small_gemm {
  template <class Isa>
  UNROLL_INLINE static void run(const gemm_arguments<T>& arguments) {
    const gemm_arguments<T> g = arguments;  // a copy, which no tile can change
    using tiles = detail::tiles<Isa, T, N>;
    constexpr int M = tiles::M, R = tiles::R;
    const bool pack_b = g.b_transposed && g.m > 2 * M * N;
    const bool a_in_cache = keeps_a(g), pack_a = packs_a<Isa>(g);
    // Asking costs instructions, and nothing waits for a small A. For few columns that is worth while where A
    // comes from memory, and not out of the second cache; with AVX-512 tiles of so few do not ask.
    const index_t bytes = g.m * g.k * index_t(sizeof(T));
    const bool far_a = bytes > (512 << 10), few_ask = Isa::registers == 16 && far_a && g.n >= 8;
    const bool ask = (pack_a || !a_in_cache) && (few_ask || (g.n >= 24 && bytes > (64 << 10)));
    lines_ahead<T> panel, ahead;
    // Columns for which A is packed once: as many as the buffer of B has room for, where B is packed too.
    const index_t room = inner_block / (g.k < 1 ? 1 : g.k), least = room < 1 ? 1 : room;
    const index_t blocks = !pack_b || (pack_a && room > 6) ? 6 : pack_a ? least : 1;
    const index_t columns = !pack_a && a_in_cache ? long_tile_columns : blocks * column_block<T>;
    alignas(64) T a_buffer[std::size_t(N * M * inner_block)];
    alignas(64) T b_buffer[std::size_t(column_block<T> * inner_block)];
    if (ask && !pack_a) {  // the first panel, for which no product before has asked
      const lines_ahead<T> first = lines_of_panel(g, 0, M * N, 0);
      const char* column = first.panel;
      for (index_t i = 0; i < first.run; ++i, column += first.stride)
        for (index_t line = 0; line < first.runs; ++line) simd::prefetch(column + 64 * line);
    }
    for (index_t q = 0; q < g.k; q += inner_block) {
      tile_arguments<T> t{};
      t.inner = inner_block < g.k - q ? inner_block : g.k - q;
      t.cj = g.ldc;
      t.add = g.add || q > 0;
      const bool asks = ask && t.inner >= 64;
      const T* const a0 = g.a + (g.a_transposed ? q : q * g.lda);
      t.ahead = &ahead;
      for (index_t j0 = 0; j0 < g.n; j0 += columns) {
        const index_t width = columns < g.n - j0 ? columns : g.n - j0;
        // A packed panel is narrow, so that it stays in the first cache, where B can be read more often.
        const bool narrow_panels =
            pack_a && tiles::long_M > 1 && width * t.inner * index_t(sizeof(T)) <= (256 << 10);
        const index_t most = narrow_panels ? tiles::long_M : M;
        const T* b0 = g.b + (g.b_transposed ? j0 + q * g.ldb : q + j0 * g.ldb);
        t.bq = g.b_transposed ? g.ldb : 1;
        t.bj = g.b_transposed ? 1 : g.ldb;
        if (pack_b) {
          for (index_t p = 0; p < t.inner; ++p)
            std::memcpy(b_buffer + p * width, b0 + p * g.ldb, std::size_t(width) * sizeof(T));
          b0 = b_buffer;
          t.bq = width;
        }
        for (index_t i = 0, vectors = (g.m + N - 1) / N; vectors > 0;) {
          // No single vector is left over beside others.
          const index_t group = vectors == 3 ? 3 : balanced(vectors, most);
          t.last = group == vectors ? g.m - i - N : (group - 1) * N;
          const index_t rows = t.last + N;
          t.a = pack_a ? a_buffer : a0 + i;
          t.aq = pack_a ? rows : g.lda;
          if (g.a_transposed) {
            const T* const from = a0 + i * g.lda;
            if (far_a && !asks)
              pack_transposed<N, true>(from, g.lda, rows, t.inner, a_buffer);
            else
              pack_transposed<N>(from, g.lda, rows, t.inner, a_buffer);
          } else if (pack_a) {
            pack<N>(a0 + i, g.lda, rows, t.inner, a_buffer);
          }
          const index_t next_i = i + group * N;
          if (asks)
            panel = next_i < g.m        ? lines_of_panel(g, next_i, most * N, q)
                    : j0 + width == g.n ? lines_of_panel(g, 0, most * N, q + t.inner)
                                        : lines_ahead<T>();
          for (index_t j = 0; j < width;) {
            index_t r = long_tile_columns;
            auto multiply = group <= tiles::long_M ? tiles::of_long[asks][std::size_t(group - 1)] : nullptr;
            if (!multiply || width - j < r) {
              r = balanced(width - j, R);
              if (R > 4 && r == 4 && width - j > 4) r = 5;  // 5 + 3 columns stream A faster than 4 + 4
              multiply = tiles::of[asks][std::size_t(group - 1)][std::size_t(r - 1)];
            }
            t.b = b0 + j * t.bj;
            t.c = g.c + i + (j0 + j) * g.ldc;
            if (asks) {
              const T* const tile = j + r < width  ? t.c + r * g.ldc
                                    : next_i < g.m ? g.c + next_i + j0 * g.ldc
                                                   : g.c + (j0 + width) * g.ldc;
              ahead = panel.next(tile, t.inner, r);
            }
            multiply(t);
            j += r;
          }
          i += group * N;
          vectors -= group;
        }
      }
    }
  }
};

/// The same by vectors of at most N rows, and of no more than C has. The width is chosen in functions of
/// their own, because a frame of small_gemm holds its buffers.
template <class T, int N>
struct gemm_of_width {
  template <class Isa>
  UNROLL_INLINE static void run(const gemm_arguments<T>& g) {
    if constexpr (N > 1)
      if (g.m < N) {
        using half = typename simd::for_half_vectors<Isa>::type;
        return half::template call<gemm_of_width<T, N / 2>, const gemm_arguments<T>&>(g);
      }
    if (g.m > tiles<Isa, T, N>::long_M * N && !packs_a<Isa>(g) && keeps_a(g))
      return Isa::template call<gemm_by_columns<T, N>, const gemm_arguments<T>&>(g);
    Isa::template call<small_gemm<T, N>, const gemm_arguments<T>&>(g);
  }
};
/// The same by the widest vectors of a set.
template <class T>
struct gemm_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const gemm_arguments<T>& g) {
    gemm_of_width<T, simd::width<Isa, T>>::template run<Isa>(g);
  }
};

}  // namespace unroll::linalg::detail
