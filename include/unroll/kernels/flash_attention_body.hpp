#pragma once

#include "unroll/kernels/attention_shape.hpp"
#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

// Attention on tensor cores without a matrix of scores (Dao et al. 2022, Milakov & Gimelshein 2018): bfloat16
// in and out, sums and the softmax in float.
namespace unroll::kernels {

/// What a kernel reads of a prefix: key_prefix with its spans at the kernel's place.
struct device_prefix {
  const bf16* const* blocks = nullptr;
  index_t key_offset = 0, value_offset = 0;
  const prefix_range* ranges = nullptr;  ///< one a sequence; null: every sequence sees `all`
  prefix_range all = {};

  UNROLL_HD prefix_range range(index_t sequence) const { return ranges ? ranges[sequence] : all; }
};

namespace detail {

/// 2^x for x <= 0 with a relative error below 6e-7; 2^-126 where that is below it. Equal bits on the host and
/// a device: additions, fmaf and bits only.
UNROLL_HD inline float exp2_of_negative(float x) {
  const float bounded = x < -126.0f ? -126.0f : x;
  const float shifted = bounded + 12582912.0f;        // 1.5 2^23: the integer part in the lowest bits
  const float f = bounded - (shifted - 12582912.0f);  // in [-1/2, 1/2]
  float p = fmaf(0x1.23a608p-10f, f, 0x1.3cbea8p-7f);
  p = fmaf(p, f, 0x1.c74322p-5f);
  p = fmaf(p, f, 0x1.ebfa4ep-3f);
  p = fmaf(p, f, 0x1.62e39ep-1f);
  p = fmaf(p, f, 1.0f);
  return __builtin_bit_cast(
      float, __builtin_bit_cast(std::uint32_t, p) + (__builtin_bit_cast(std::uint32_t, shifted) << 23));
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

}  // namespace detail

/// One block a tile of queries, head and sequence: for the queries i of a sequence
///   out_i = sum_t p_ti v_t,  p_ti = exp(s_ti - log_sum_i),  s_ti = k_t . q_i / sqrt(Head)
/// over all keys of the sequence's prefix and those of its own that the mask shows. Four warps own 16
/// RowTiles queries each and walk over tiles of 64 keys from the first on, so a row's bits depend on nothing
/// but its own sequence. Rows of scores are kept in base 2: p = 2^(s c - m c) with c = log2(e) / sqrt(Head)
/// and m the largest score so far; p is rounded to bfloat16 for the product with v, its sum is formed in
/// float before. Heads lie in the rows of the matrices; strides and offsets are multiples of 8 and data of 16
/// bytes. 4 Head operations a visible pair; keys and values are read once for every tile of queries.
template <int Head, int RowTiles = 1>
struct flash_attention_body {
  static_assert(Head % 16 == 0 && Head >= 64);
  static constexpr int threads = 128;
  static constexpr int query_tile = 64 * RowTiles, key_tile = 64, stages = 2;

  attention_shape shape;
  attention_mask mask;
  index_t sequences = 1;
  matrix<const bf16> q;     ///< query_width x sequences * queries
  matrix<const bf16> k, v;  ///< kv_width x sequences * (mask.first + queries)
  device_prefix before = {};
  matrix<bf16> out;          ///< as q
  float* log_sum = nullptr;  ///< heads x sequences * queries; may be null

  UNROLL_HD index_t queries() const { return q.cols / sequences; }
  UNROLL_HD index_t blocks() const {
    return sequences > 0 ? ceil_div(queries(), query_tile) * shape.heads * sequences : 0;
  }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<bf16>(query_tile * Head) + shared_size<bf16>(2 * stages * key_tile * Head);
  }

  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    using namespace detail;
    constexpr int pieces = Head / 8, key_tiles8 = key_tile / 8, head_tiles8 = Head / 8;
    // the longest rows first; neighbouring blocks are the heads of one tile
    const int n = int(queries()), tokens = int(mask.first) + n;
    const int tiles = int(ceil_div(n, query_tile));
    const int head = int(c.block() % shape.heads);
    const int tile = tiles - 1 - int(c.block() / shape.heads % tiles);
    const index_t sequence = c.block() / (shape.heads * tiles);
    const int first = tile * query_tile, last = int(smaller(first + query_tile, n)) - 1;
    const int kv_head = int(head / (shape.heads / shape.kv_heads));
    const prefix_range range = before.range(sequence);
    const int in_block = int(range.keys), prefix = int(range.blocks * range.keys);
    const index_t column = sequence * n;

    // Tiles of keys that some query of this block sees: those below `most`, then those of the queries
    // themselves.
    index_t most = prefix + mask.visible(last);
    if (mask.memory_token(last) && !mask.memory_token(first)) most = larger(most, prefix + mask.ordinals);
    const int end = int(ceil_div(most, key_tile));
    const int own_first = int(larger(end, (prefix + mask.first + first) / key_tile)),
              own_end = int(larger(end, ceil_div(prefix + mask.first + last + 1, key_tile)));
    const int steps = end + (own_end - own_first);
    const auto key_tile_of = [=](int step) { return step < end ? step : own_first + (step - end); };

    const swizzled<Head> Q{c.template shared<bf16>(query_tile * Head)};
    bf16* const staged = c.template shared<bf16>(2 * stages * key_tile * Head);
    const auto keys_of = [=](int step) { return swizzled<Head>{staged + step % 2 * (2 * key_tile * Head)}; };
    const auto values_of = [=](int step) { return swizzled<Head>{keys_of(step).at + key_tile * Head}; };

    const auto load_keys = [&](int step) {
      c.phase([&](int thread) {
        const int p = thread % pieces;
        const swizzled<Head> K = keys_of(step), V = values_of(step);
        const int from = key_tile_of(step) * key_tile;
        const index_t row = kv_head * Head + 8 * p;
        UNROLL_UNROLLED
        for (int r = thread / pieces; r < key_tile; r += threads / pieces) {
          const int key = from + r;
          const bool valid = key < prefix + tokens;
          const bf16 *k_at = k.data, *v_at = v.data;
          if (key < prefix) {
            const bf16* const block = before.blocks[range.first + key / in_block];
            const index_t at = row + index_t(key % in_block) * shape.kv_width();
            k_at = block + before.key_offset + at;
            v_at = block + before.value_offset + at;
          } else if (valid) {
            const index_t col = sequence * tokens + (key - prefix);
            k_at = k.data + row + col * k.stride;
            v_at = v.data + row + col * v.stride;
          }
          c.copy_async(K.piece(r, p), k_at, 16, valid);
          c.copy_async(V.piece(r, p), v_at, 16, valid);
        }
      });
    };

    c.phase([&](int thread) {
      const int p = thread % pieces;
      for (int r = thread / pieces; r < query_tile; r += threads / pieces) {
        const bool valid = first + r < n;
        const bf16* const at =
            valid ? q.data + head * Head + 8 * p + (column + first + r) * q.stride : q.data;
        c.copy_async(Q.piece(r, p), at, 16, valid);
      }
    });
    load_keys(0);
    c.commit();

    auto acc = c.template fragments<float, RowTiles * head_tiles8 * 4>();
    auto most_so_far = c.template fragments<float, RowTiles * 2>();
    auto sums = c.template fragments<float, RowTiles * 2>();  // of this lane's columns
    c.warps([&](auto&& w) {
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int i = 0; i < RowTiles * head_tiles8 * 4; ++i) acc(w, lane, i) = 0;
        UNROLL_UNROLLED
        for (int i = 0; i < RowTiles * 2; ++i) {
          most_so_far(w, lane, i) = lowest;
          sums(w, lane, i) = 0;
        }
      });
    });
    const float scale = 1.44269504f / sqrtf(float(Head));

    for (int step = 0; step < steps; ++step) {
      c.template wait<0>();
      if (step + 1 < steps) {
        load_keys(step + 1);
        c.commit();
      }
      const swizzled<Head> K = keys_of(step), V = values_of(step);
      const int from = key_tile_of(step) * key_tile;
      const bool all_visible = from + key_tile <= prefix + mask.first + first + 1 && !mask.memory_token(last);
      c.warps([&](auto&& w) {
        const int row0 = w.index() * 16 * RowTiles;
        auto s = w.template fragment<float, RowTiles * key_tiles8 * 4>();
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int i = 0; i < RowTiles * key_tiles8 * 4; ++i) s(lane, i) = 0;
        });
        // s = q k'
        UNROLL_UNROLLED
        for (int kk = 0; kk < Head / 16; ++kk) {
          auto a = w.template fragment<word, RowTiles * 4>();
          UNROLL_UNROLLED
          for (int r = 0; r < RowTiles; ++r)
            w.ldmatrix_x4(a.template part<4>(4 * r),
                          [&](int lane) { return Q.piece(row0 + 16 * r + lane % 16, 2 * kk + lane / 16); });
          UNROLL_UNROLLED
          for (int t = 0; t < key_tile / 16; ++t) {
            auto b = w.template fragment<word, 4>();
            w.ldmatrix_x4(b, [&](int lane) {
              return K.piece(16 * t + lane % 8 + lane / 16 * 8, 2 * kk + lane / 8 % 2);
            });
            UNROLL_UNROLLED
            for (int r = 0; r < RowTiles; ++r) UNROLL_UNROLLED
            for (int half = 0; half < 2; ++half)
              w.mma(s.template part<4>((r * key_tiles8 + 2 * t + half) * 4), a.template part<4>(4 * r),
                    b.template part<2>(2 * half));
          }
        }
        // p = 2^(s c - m c) in place of s; acc and sums to the new largest score m
        auto most_now = w.template fragment<float, RowTiles * 2>();
        w.lanes([&](int lane) {
          if (!all_visible) {
            UNROLL_UNROLLED
            for (int i = 0; i < RowTiles * key_tiles8 * 4; ++i) {
              const int r = i / (key_tiles8 * 4);
              const int query = first + row0 + 16 * r + lane / 4 + 8 * (i / 2 % 2);
              const int key = from + i / 4 % key_tiles8 * 8 + 2 * (lane % 4) + i % 2;
              if (!sees(query, key - prefix)) s(lane, i) = lowest;
            }
          }
          UNROLL_UNROLLED
          for (int h = 0; h < RowTiles * 2; ++h) {
            float m = most_so_far(w, lane, h);
            UNROLL_UNROLLED
            for (int t = 0; t < key_tiles8; ++t) {
              const int i = (h / 2 * key_tiles8 + t) * 4 + h % 2 * 2;
              m = m < s(lane, i) ? s(lane, i) : m;
              m = m < s(lane, i + 1) ? s(lane, i + 1) : m;
            }
            most_now(lane, h) = m;
          }
        });
        w.largest(most_now, 4);
        auto p = w.template fragment<word, RowTiles * key_tiles8 * 2>();
        w.lanes([&](int lane) {
          UNROLL_UNROLLED
          for (int h = 0; h < RowTiles * 2; ++h) {
            const float m = most_now(lane, h), shift = m * scale;
            const float down = exp2_of_negative((most_so_far(w, lane, h) - m) * scale);
            most_so_far(w, lane, h) = m;
            float sum = 0;
            UNROLL_UNROLLED
            for (int t = 0; t < key_tiles8; ++t) {
              const int i = (h / 2 * key_tiles8 + t) * 4 + h % 2 * 2;
              float p0 = exp2_of_negative(fmaf(s(lane, i), scale, -shift));
              float p1 = exp2_of_negative(fmaf(s(lane, i + 1), scale, -shift));
              if (!all_visible) {
                p0 = s(lane, i) == lowest ? 0 : p0;
                p1 = s(lane, i + 1) == lowest ? 0 : p1;
              }
              sum = sum + (p0 + p1);
              // words of a: rows g and g + 8 of columns t, then of columns t + 8
              p(lane, (h / 2 * (key_tile / 16) + t / 2) * 4 + t % 2 * 2 + h % 2) = pack_rounded(p0, p1);
            }
            sums(w, lane, h) = fmaf(sums(w, lane, h), down, sum);
            UNROLL_UNROLLED
            for (int t = 0; t < head_tiles8; ++t) {
              const int i = (h / 2 * head_tiles8 + t) * 4 + h % 2 * 2;
              acc(w, lane, i) = acc(w, lane, i) * down;
              acc(w, lane, i + 1) = acc(w, lane, i + 1) * down;
            }
          }
        });
        // acc += p v
        UNROLL_UNROLLED
        for (int kk = 0; kk < key_tile / 16; ++kk) UNROLL_UNROLLED
        for (int t = 0; t < Head / 16; ++t) {
          auto b = w.template fragment<word, 4>();
          w.ldmatrix_x4_transposed(b,
                                   [&](int lane) { return V.piece(16 * kk + lane % 16, 2 * t + lane / 16); });
          UNROLL_UNROLLED
          for (int r = 0; r < RowTiles; ++r) UNROLL_UNROLLED
          for (int half = 0; half < 2; ++half)
            w.mma(acc.template part<4>(w, (r * head_tiles8 + 2 * t + half) * 4),
                  p.template part<4>((r * (key_tile / 16) + kk) * 4), b.template part<2>(2 * half));
        }
      });
    }

    c.warps([&](auto&& w) {
      auto total = w.template fragment<float, RowTiles * 2>();
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int h = 0; h < RowTiles * 2; ++h) total(lane, h) = sums(w, lane, h);
      });
      w.sum(total, 4);
      w.lanes([&](int lane) {
        UNROLL_UNROLLED
        for (int h = 0; h < RowTiles * 2; ++h) {
          const int i = first + w.index() * 16 * RowTiles + h / 2 * 16 + lane / 4 + h % 2 * 8;
          if (i >= n) continue;
          const float share = 1.0f / total(lane, h);
          bf16* const o = out.data + head * Head + (column + i) * out.stride;
          UNROLL_UNROLLED
          for (int t = 0; t < head_tiles8; ++t) {
            const int at = (h / 2 * head_tiles8 + t) * 4 + h % 2 * 2;
            *reinterpret_cast<word*>(o + 8 * t + 2 * (lane % 4)) =
                pack_rounded(acc(w, lane, at) * share, acc(w, lane, at + 1) * share);
          }
          if (log_sum && lane % 4 == 0)
            log_sum[head + (column + i) * shape.heads] =
                fmaf(most_so_far(w, lane, h), 1.0f / sqrtf(float(Head)), log(total(lane, h)));
        }
      });
    });
  }

 private:
  static constexpr float lowest = -1e30f;  // below every score, and finite: no NaN where nothing is seen yet

  UNROLL_HD bool sees(index_t query, index_t own_key) const {
    return own_key < 0 || own_key < mask.visible(query) || own_key == mask.first + query;
  }
};

}  // namespace unroll::kernels
