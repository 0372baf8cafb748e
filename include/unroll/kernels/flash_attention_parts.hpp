#pragma once

#include "unroll/kernels/attention_shape.hpp"
#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"
#include "unroll/kernels/panels.hpp"

// What attention on tensor cores and its vjp have in common: tiles in shared memory, and their products by
// warps.
namespace unroll::kernels {

/// What a kernel reads of a prefix: key_prefix with its spans at the kernel's place.
struct device_prefix {
  const bf16* const* blocks = nullptr;
  index_t key_offset = 0, value_offset = 0;
  const prefix_range* ranges = nullptr;  ///< one a sequence; null: every sequence sees `all`
  prefix_range all = {};

  UNROLL_HD prefix_range range(index_t sequence) const { return ranges ? ranges[sequence] : all; }
};

/// The arguments that attention on tensor cores and its vjp have in common. Heads lie in the rows of the
/// matrices; strides, below 2^23, and offsets are multiples of 8 and data of 16 bytes.
struct flash_operands {
  attention_shape shape;
  attention_mask mask;
  index_t sequences = 1;
  matrix<const bf16> q;     ///< query_width x sequences * queries
  matrix<const bf16> k, v;  ///< kv_width x sequences * (mask.first + queries)
  device_prefix before = {};

  UNROLL_HD index_t queries() const { return q.cols / sequences; }
};

namespace detail {

/// The larger of two numbers; NaN where one is.
UNROLL_HD inline float larger_or_nan(float a, float b) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a > b || a != a ? a : b;
#endif
}
/// a b + c between 0 and 1; 0 where that is NaN.
UNROLL_HD inline float saturated_fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(y) : "f"(a), "f"(b), "f"(c));
  return y;
#else
  const float y = fmaf(a, b, c);
  return y > 0 ? (y < 1 ? y : 1.0f) : 0.0f;
#endif
}

UNROLL_HD inline float not_a_number() { return __builtin_bit_cast(float, 0x7fffffffu); }

constexpr float exp2_shift = 12582912.0f;  // 1.5 2^23: near it a float's integer part is in its lowest bits

/// 2^f for f in [-1/2, 1/2] with a relative error below 4e-6, 1 of 0.
UNROLL_HD inline float exp2_of_fraction(float f) {
  float p = fmaf(0x1.409104p-7f, f, 0x1.ca9008p-5f);
  p = fmaf(p, f, 0x1.ebf1b4p-3f);
  p = fmaf(p, f, 0x1.62dfcap-1f);
  return fmaf(p, f, 1.0f);
}
/// 2^x for x <= 0 with that error; 2^-126 where that is below it; NaN of NaN. Equal bits on the host and a
/// device: additions, fmaf and bits only.
UNROLL_HD inline float exp2_of_negative(float x) {
  const float bounded = larger_or_nan(x, -126.0f), shifted = bounded + exp2_shift;
  const std::uint32_t exponent = (__builtin_bit_cast(std::uint32_t, shifted) << 23) + 0x3f800000u;
  // a product, so that NaN stays NaN
  return exp2_of_fraction(bounded - (shifted - exp2_shift)) * __builtin_bit_cast(float, exponent);
}
/// 2^(Range (y - 1)) for y in [0, 1] with that error and that of Range y; Range is at most 120.
template <int Range>
UNROLL_HD inline float exp2_of_share(float y) {
  constexpr float range = Range, shift = exp2_shift - Range;
  const float shifted = fmaf(y, range, shift);
  const float q = exp2_of_fraction(fmaf(y, range, shift - shifted));
  return __builtin_bit_cast(
      float, __builtin_bit_cast(std::uint32_t, q) + (__builtin_bit_cast(std::uint32_t, shifted) << 23));
}

/// pack of two floats by the instruction that rounds both, which gives any NaN the bits 0x7fff as well.
UNROLL_HD inline word pack_rounded(float low, float high) {
#if defined(__CUDA_ARCH__)
  word w;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
  return w;
#else
  return pack(low, high);
#endif
}

/// f(row, piece) for a thread's pieces of 16 bytes of Rows rows of a head: always the same piece.
template <int Head, int Rows, int Threads, class F>
UNROLL_HD void for_pieces(int thread, F&& f) {
  constexpr int pieces = Head / 8, at_once = Threads / pieces;
  static_assert(Threads % pieces == 0 && at_once % 8 == 0);
  UNROLL_UNROLLED
  for (int i = 0; i < (Rows + at_once - 1) / at_once; ++i) {
    const int r = thread / pieces + i * at_once;
    if (Rows % at_once == 0 || r < Rows) f(r, thread % pieces);
  }
}

/// A thread's part of the copies of Rows rows of a head: row(r) is where row r lies, null for zeros, and
/// `any` an address to name for those.
template <int Threads, class Context, int Rows, int Head, class Row>
UNROLL_HD void fetch_rows(Context& c, int thread, const panels<Rows, Head>& to, const bf16* any, Row&& row) {
  for_pieces<Head, Rows, Threads>(thread, [&](int r, int p) {
    const bf16* const at = row(r);
    c.copy_async(to.at, to.offset(r, p), at ? at + 8 * p : any, at != nullptr);
  });
}

/// The same of the columns from `col` on, of which there are `count`, and zeros behind them.
template <int Threads, class Context, int Rows, int Head>
UNROLL_HD void fetch_columns(Context& c, int thread, const panels<Rows, Head>& to,
                             const matrix<const bf16>& m, index_t row, index_t col, int count) {
  const bf16* const first = m.data + row + col * m.stride + 8 * (thread % (Head / 8));
  const int stride = int(m.stride);
  for_pieces<Head, Rows, Threads>(thread, [&](int r, int p) {
    c.copy_async(to.at, to.offset(r, p), first + (r < count ? r : 0) * stride, r < count);
  });
}

/// The keys that one sequence sees, of key-value head g: the prefix, then its own tokens.
template <int Head>
struct sequence_keys {
  const flash_operands* on;
  prefix_range range;
  int prefix, tokens;  // keys of each
  index_t column, row;
  std::uint32_t block_share;  // 2^32 / keys of a block

  UNROLL_HD sequence_keys(const flash_operands& operands, index_t sequence, int g)
      : on(&operands),
        range(operands.before.range(sequence)),
        prefix(int(range.blocks * range.keys)),
        tokens(int(operands.mask.first + operands.queries())),
        column(sequence * tokens),
        row(index_t(g) * Head),
        block_share(range.keys > 0 ? 0xffffffffu / std::uint32_t(range.keys) : 0) {}
  /// Where the key and its value lie; null behind the last one.
  struct place {
    const bf16 *k, *v;
  };
  UNROLL_HD place operator()(int key) const {
    if (key < prefix) {
      int block = int(std::uint64_t(key) * block_share >> 32);  // or one less
      int in_block = key - block * int(range.keys);
      if (in_block >= range.keys) {
        ++block;
        in_block -= int(range.keys);
      }
      const bf16* const at =
          on->before.blocks[range.first + block] + row + index_t(in_block) * on->shape.kv_width();
      return {at + on->before.key_offset, at + on->before.value_offset};
    }
    if (key >= prefix + tokens) return {nullptr, nullptr};
    const index_t col = column + (key - prefix);
    return {on->k.data + row + col * on->k.stride, on->v.data + row + col * on->v.stride};
  }
};

/// A thread's part of the copies of the keys [from, from + Rows) and their values.
template <int Threads, class Context, int Rows, int Head>
UNROLL_HD void fetch_keys(Context& c, int thread, const panels<Rows, Head>& k, const panels<Rows, Head>& v,
                          const sequence_keys<Head>& keys, int from) {
  if (from >= keys.prefix) {
    const index_t column = keys.column + (from - keys.prefix);
    const int left = keys.prefix + keys.tokens - from;
    fetch_columns<Threads>(c, thread, k, keys.on->k, keys.row, column, left);
    fetch_columns<Threads>(c, thread, v, keys.on->v, keys.row, column, left);
  } else {
    for_pieces<Head, Rows, Threads>(thread, [&](int r, int p) {
      const auto at = keys(from + r);
      c.copy_async(k.at, k.offset(r, p), at.k ? at.k + 8 * p : keys.on->k.data, at.k != nullptr);
      c.copy_async(v.at, v.offset(r, p), at.v ? at.v + 8 * p : keys.on->v.data, at.v != nullptr);
    });
  }
}

/// The tiles of keys that some query of [first, last] of a sequence sees, in order: those below the last
/// visible key, then those of the queries themselves.
struct key_tiles {
  int end, own_first, steps;

  UNROLL_HD key_tiles(const attention_mask& mask, int prefix, int first, int last, int tile) {
    index_t most = prefix + mask.visible(last);
    if (mask.memory_token(last) && !mask.memory_token(first)) most = larger(most, prefix + mask.ordinals);
    end = int(ceil_div(most, tile));
    own_first = int(larger(end, (prefix + mask.first + first) / tile));
    steps = end + int(larger(end, ceil_div(prefix + mask.first + last + 1, tile))) - own_first;
  }
  UNROLL_HD int tile(int step) const { return step < end ? step : own_first + (step - end); }
};

/// Where a block that owns a tile of queries of one head stands: block number `block` of those of all tiles,
/// heads and sequences. The longest rows come first; neighbouring blocks are the heads of one tile.
template <int Head>
struct query_tile_of_head {
  int n, heads, head;  // queries of a sequence; query heads, and this one
  index_t column;      // the first query of the sequence, among those of all
  int first, last;     // queries of the tile, in the sequence
  sequence_keys<Head> keys;
  key_tiles walk;
  bool causal;

  UNROLL_HD static index_t blocks(const flash_operands& on, int query_tile) {
    return on.sequences > 0 ? ceil_div(on.queries(), query_tile) * on.shape.heads * on.sequences : 0;
  }
  UNROLL_HD query_tile_of_head(const flash_operands& on, index_t block, int query_tile, int key_tile)
      : query_tile_of_head(on, block, query_tile, key_tile, int(ceil_div(on.queries(), query_tile))) {}

 private:
  UNROLL_HD query_tile_of_head(const flash_operands& on, index_t block, int query_tile, int key_tile,
                               int tiles)
      : n(int(on.queries())),
        heads(int(on.shape.heads)),
        head(int(block % heads)),
        column(block / (heads * tiles) * n),
        first((tiles - 1 - int(block / heads % tiles)) * query_tile),
        last(int(smaller(first + query_tile, n)) - 1),
        keys(on, block / (heads * tiles), int(head / (heads / on.shape.kv_heads))),
        walk(on.mask, keys.prefix, first, last, key_tile),
        causal(!on.mask.memory_token(last)) {}
};

/// Pairs of matrices of Rows rows of a head, as keys and values, that arrive in shared memory in Stages
/// stages.
template <int Rows, int Head, int Stages>
struct staged_pairs {
  using matrix_panels = panels<Rows, Head>;
  static constexpr int size = 2 * Stages * matrix_panels::size;  // numbers
  bf16* at;

  UNROLL_HD matrix_panels first(int step) const { return {at + step % Stages * (2 * matrix_panels::size)}; }
  UNROLL_HD matrix_panels second(int step) const { return {first(step).at + matrix_panels::size}; }
};

}  // namespace detail
}  // namespace unroll::kernels
