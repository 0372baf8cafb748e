#pragma once

#include "unroll/kernels/attention_shape.hpp"
#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

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
/// matrices; strides and offsets are multiples of 8 and data of 16 bytes.
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

/// 2^x for x <= 0 with a relative error below 6e-7; 2^-126 where that is below it; NaN of NaN. Equal bits on
/// the host and a device: additions, fmaf and bits only.
UNROLL_HD inline float exp2_of_negative(float x) {
  const float bounded = x < -126.0f ? -126.0f : x;
  const float shifted = bounded + 12582912.0f;        // 1.5 2^23: the integer part in the lowest bits
  const float f = bounded - (shifted - 12582912.0f);  // in [-1/2, 1/2]
  float p = fmaf(0x1.23a608p-10f, f, 0x1.3cbea8p-7f);
  p = fmaf(p, f, 0x1.c74322p-5f);
  p = fmaf(p, f, 0x1.ebfa4ep-3f);
  p = fmaf(p, f, 0x1.62e39ep-1f);
  p = fmaf(p, f, 1.0f);
  const std::uint32_t exponent = __builtin_bit_cast(std::uint32_t, shifted) << 23;
  return p * __builtin_bit_cast(float, exponent + 0x3f800000u);  // a product, so that NaN stays NaN
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

/// Rows of `Head` bfloat16 in shared memory whose pieces of 16 bytes are exchanged within the row, so that
/// the eight rows of one matrix of ldmatrix lie in different banks.
template <int Head>
struct swizzled {
  static constexpr int pieces = Head / 8;
  bf16* at;
  UNROLL_HD bf16* piece(int row, int p) const { return at + row * Head + ((p ^ (row & 7)) * 8); }
};

/// A thread's part of the copies of Rows rows of a head: row(r) is where row r lies, null for zeros, and
/// `any` an address to name for those.
template <int Head, int Rows, int Threads, class Context, class Row>
UNROLL_HD void fetch_rows(Context& c, int thread, const swizzled<Head>& to, const bf16* any, Row&& row) {
  constexpr int pieces = Head / 8;
  const int p = thread % pieces;
  UNROLL_UNROLLED
  for (int i = 0; i < Rows * pieces / Threads; ++i) {
    const int r = thread / pieces + i * (Threads / pieces);
    const bf16* const at = row(r);
    c.copy_async(to.piece(r, p), at ? at + 8 * p : any, 16, at != nullptr);
  }
}

/// The keys that one sequence sees, of key-value head g: the prefix, then its own tokens.
template <int Head>
struct sequence_keys {
  const flash_operands* on;
  prefix_range range;
  int prefix, tokens;  // keys of each
  index_t column, row;

  UNROLL_HD sequence_keys(const flash_operands& operands, index_t sequence, int g)
      : on(&operands),
        range(operands.before.range(sequence)),
        prefix(int(range.blocks * range.keys)),
        tokens(int(operands.mask.first + operands.queries())),
        column(sequence * tokens),
        row(index_t(g) * Head) {}
  /// Where the key and its value lie; null behind the last one.
  struct place {
    const bf16 *k, *v;
  };
  UNROLL_HD place operator()(int key) const {
    if (key < prefix) {
      const int in_block = int(range.keys);
      const bf16* const at = on->before.blocks[range.first + key / in_block] + row +
                             index_t(key % in_block) * on->shape.kv_width();
      return {at + on->before.key_offset, at + on->before.value_offset};
    }
    if (key >= prefix + tokens) return {nullptr, nullptr};
    const index_t col = column + (key - prefix);
    return {on->k.data + row + col * on->k.stride, on->v.data + row + col * on->v.stride};
  }
};

/// A thread's part of the copies of the keys [from, from + Rows) and their values.
template <int Head, int Rows, int Threads, class Context>
UNROLL_HD void fetch_keys(Context& c, int thread, const swizzled<Head>& k, const swizzled<Head>& v,
                          const sequence_keys<Head>& keys, int from) {
  constexpr int pieces = Head / 8;
  const int p = thread % pieces;
  UNROLL_UNROLLED
  for (int i = 0; i < Rows * pieces / Threads; ++i) {
    const int r = thread / pieces + i * (Threads / pieces);
    const auto at = keys(from + r);
    c.copy_async(k.piece(r, p), at.k ? at.k + 8 * p : keys.on->k.data, 16, at.k != nullptr);
    c.copy_async(v.piece(r, p), at.v ? at.v + 8 * p : keys.on->v.data, 16, at.v != nullptr);
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

/// s += a b' over the numbers of a head: a the 16 RowTiles rows from row0 on, b Columns rows. s: RowTiles x
/// Columns / 8 tiles of mma.
template <int Head, int RowTiles, int Columns, class Warp, class Sum>
UNROLL_HD void multiply_rows(const Warp& w, Sum& s, const swizzled<Head>& a, int row0,
                             const swizzled<Head>& b) {
  UNROLL_UNROLLED
  for (int kk = 0; kk < Head / 16; ++kk) {
    auto x = w.template fragment<word, RowTiles * 4>();
    UNROLL_UNROLLED
    for (int r = 0; r < RowTiles; ++r)
      w.ldmatrix_x4(x.template part<4>(4 * r),
                    [&](int lane) { return a.piece(row0 + 16 * r + lane % 16, 2 * kk + lane / 16); });
    UNROLL_UNROLLED
    for (int t = 0; t < Columns / 16; ++t) {
      auto y = w.template fragment<word, 4>();
      w.ldmatrix_x4(
          y, [&](int lane) { return b.piece(16 * t + lane % 8 + lane / 16 * 8, 2 * kk + lane / 8 % 2); });
      UNROLL_UNROLLED
      for (int i = 0; i < 2 * RowTiles; ++i)
        w.mma(s.template part<4>((i / 2 * (Columns / 8) + 2 * t + i % 2) * 4), x.template part<4>(i / 2 * 4),
              y.template part<2>(i % 2 * 2));
    }
  }
}

/// acc += p b over Rows rows of b: p RowTiles x Rows / 16 operands of mma, acc RowTiles x Head / 8 tiles of
/// it.
template <int Head, int RowTiles, int Rows, class Warp, class Operand, class Sum>
UNROLL_HD void multiply_probabilities(const Warp& w, Sum& acc, Operand& p, const swizzled<Head>& b) {
  UNROLL_UNROLLED
  for (int kk = 0; kk < Rows / 16; ++kk) {
    UNROLL_UNROLLED
    for (int t = 0; t < Head / 16; ++t) {
      auto y = w.template fragment<word, 4>();
      w.ldmatrix_x4_transposed(y, [&](int lane) { return b.piece(16 * kk + lane % 16, 2 * t + lane / 16); });
      UNROLL_UNROLLED
      for (int i = 0; i < 2 * RowTiles; ++i)
        w.mma(acc.template part<4>(w, (i / 2 * (Head / 8) + 2 * t + i % 2) * 4),
              p.template part<4>((i / 2 * (Rows / 16) + kk) * 4), y.template part<2>(i % 2 * 2));
    }
  }
}

/// The word of an operand into which the pair of numbers of `tile` of a sum goes, in rows g or (half) g + 8,
/// when the sum's columns are the next product's summed index: tiles 2 u and 2 u + 1 become operand u.
UNROLL_HD constexpr int operand_word(int tile, int half) { return tile / 2 * 4 + tile % 2 * 2 + half; }

}  // namespace detail
}  // namespace unroll::kernels
