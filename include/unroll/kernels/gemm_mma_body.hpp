#pragma once

#include <cmath>
#include <concepts>

#include "unroll/kernels/body.hpp"

namespace unroll::kernels {

/// c = alpha op(a) op(b), or c += where `add`: m x n from m x k and k x n, on tensor cores. What is no
/// bfloat16 is rounded to it; sums are float, 16 terms at a time in the order of k, so that a column of c
/// does not depend on how many there are. A block has 64 columns and 64 rows of c, as 64 x 64 of its
/// transpose, so that neighbouring lanes hold neighbours in memory; each of its warps 32 x 32. Depths of 32
/// arrive in three stages, by asynchronous copies where 16 bytes are aligned and whole. With k_part, a
/// multiple of 32, so many terms make a product of their own, which stands behind the last one: m x n parts.
template <class A, class B, class C>
struct gemm_mma_body {
  op oa;
  matrix<const A> a;
  op ob;
  matrix<const B> b;
  float alpha;
  bool add;
  matrix<C> c;
  index_t k_part = 0;  ///< 0: all of them

  static constexpr int threads = 128;
  static constexpr index_t tile = 64, depth = 32, stages = 3;
  // Numbers from one row of a tile in shared memory to the next, 16 bytes more than a row: the eight rows of
  // a matrix of ldmatrix lie in different banks.
  static constexpr index_t k_stride = depth + 8, i_stride = tile + 8;
  static constexpr index_t staged_size = tile * k_stride > depth* i_stride ? tile* k_stride : depth* i_stride;

  UNROLL_HD index_t k() const { return oa == op::none ? a.cols : a.rows; }
  UNROLL_HD index_t parts() const { return k_part > 0 ? ceil_div(k(), k_part) : 1; }
  UNROLL_HD index_t blocks() const { return ceil_div(c.rows, tile) * ceil_div(c.cols, tile) * parts(); }
  UNROLL_HD index_t shared_bytes() const { return 2 * stages * shared_size<bf16>(staged_size); }
  template <class Context>
  UNROLL_HD void operator()(Context& x) const {
    bf16* const rows = x.template shared<bf16>(stages * staged_size);     // of op(b)', columns of c
    bf16* const columns = x.template shared<bf16>(stages * staged_size);  // of op(a)', rows of c
    const index_t tiles = ceil_div(c.cols, tile), part = x.block() % parts(), at = x.block() / parts();
    const index_t first = at % tiles * tile, row = at / tiles * tile;
    const index_t k0 = part * k_part, k_end = k_part > 0 ? smaller(k(), k0 + k_part) : k();
    const operand<B> of_rows{b, ob == op::none, first, c.cols, k_end};
    const operand<A> of_columns{a, oa == op::transpose, row, c.rows, k_end};
    auto sum = x.template fragments<float, 32>();  // 2 x 4 tiles of mma
    x.warps([&](const auto& w) {
      w.lanes([&](int l) {
        UNROLL_UNROLLED
        for (int i = 0; i < 32; ++i) sum(w, l, i) = 0;
      });
    });
    const auto fetch = [&](index_t step) {
      if (k0 + step * depth < k_end)
        x.phase([&](int t) {
          of_rows.fetch(x, t, k0 + step * depth, rows + step % stages * staged_size);
          of_columns.fetch(x, t, k0 + step * depth, columns + step % stages * staged_size);
        });
      x.commit();
    };
    fetch(0);
    fetch(1);
    for (index_t step = 0; k0 + step * depth < k_end; ++step) {
      x.template wait<1>();
      fetch(step + 2);
      x.warps([&](const auto& w) {
        const index_t at_stage = step % stages * staged_size;
        multiply(w, sum, {rows + at_stage, of_rows.k_contiguous, int(smaller(tile, c.cols - first))},
                 {columns + at_stage, of_columns.k_contiguous, int(smaller(tile, c.rows - row))},
                 int(smaller(depth, k_end - k0 - step * depth)));
      });
    }
    x.template wait<0>();
    x.warps([&](const auto& w) {
      if (first + w.index() % 2 * 32 >= c.cols || row + w.index() / 2 * 32 >= c.rows) return;
      w.lanes([&](int l) {
        UNROLL_UNROLLED
        for (int i = 0; i < 32; ++i) {
          const index_t n = first + w.index() % 2 * 32 + i / 16 * 16 + i % 4 / 2 * 8 + l / 4;
          const index_t m = row + w.index() / 2 * 32 + i % 16 / 4 * 8 + l % 4 * 2 + i % 2;
          if (m >= c.rows || n >= c.cols) continue;
          C& to = c.data[m + (part * c.cols + n) * c.stride];
          to = C(add ? fmaf(alpha, sum(w, l, i), float(to)) : alpha * sum(w, l, i));
        }
      });
    });
  }

 private:
  /// The numbers (first + i, k0 + e) of one operand, i < tile, e < depth, those from k on as 0: column-major
  /// with k in its columns if k_contiguous, else in its rows. In shared memory the same one lies side by
  /// side.
  template <class U>
  struct operand {
    matrix<const U> m;
    bool k_contiguous;
    index_t first, end, k;

    UNROLL_HD bool whole() const {
      const index_t contiguous = k_contiguous ? k : end;
      return std::same_as<U, bf16> && contiguous % 8 == 0 && m.stride % 8 == 0 &&
             reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0;
    }
    template <class Context>
    UNROLL_HD void fetch(Context& x, int t, index_t k0, bf16* s) const {
      const bool asynchronous = whole();
      for (index_t chunk = t; chunk < tile * depth / 8; chunk += threads) {
        const index_t in_row = k_contiguous ? depth / 8 : tile / 8;
        const index_t outer = chunk / in_row, inner = chunk % in_row * 8;
        bf16* const to = s + outer * (k_contiguous ? k_stride : i_stride) + inner;
        const index_t i = first + (k_contiguous ? outer : inner), e = k0 + (k_contiguous ? inner : outer);
        if (i >= end || e >= ceil_div(k, 16) * 16) continue;  // behind the ends: in no number of c
        const index_t at = k_contiguous ? e + i * m.stride : i + e * m.stride;
        if (asynchronous) {
          const bool inside = i < end && e < k;
          x.copy_async(to, inside ? m.data + at : m.data, 16, inside);
        } else {
          for (index_t j = 0; j < 8; ++j) {
            const bool inside = k_contiguous ? i < end && e + j < k : i + j < end && e < k;
            to[j] = bf16(inside ? float(m.data[at + j]) : 0.f);
          }
        }
      }
    }
  };

  /// A tile of an operand in shared memory: `end` rows of it count, and it lies as operand has it.
  struct staged {
    const bf16* at;
    bool k_contiguous;
    int end;
  };
  /// What lies behind the ends and behind depth `e_end` is left out by pieces of 16.
  template <class Warp, class Sum>
  UNROLL_HD static void multiply(const Warp& w, Sum& sum, const staged& rows, const staged& columns,
                                 int e_end) {
    const int n0 = w.index() % 2 * 32, m0 = w.index() / 2 * 32;
    UNROLL_UNROLLED
    for (int e = 0; e < int(depth); e += 16) {
      if (e >= e_end) continue;
      auto u = w.template fragment<word, 8>();  // 2 x (16 x 16)
      auto v = w.template fragment<word, 8>();  // 4 x (16 x 8)
      UNROLL_UNROLLED
      for (int half = 0; half < 2; ++half) {
        const int n = n0 + 16 * half, m = m0 + 16 * half;
        const auto to_u = u.template part<4>(4 * half);
        const auto to_v = v.template part<4>(4 * half);
        if (rows.k_contiguous)
          w.ldmatrix_x4(
              to_u, [&](int l) { return rows.at + (n + l % 8 + l / 8 % 2 * 8) * k_stride + e + l / 16 * 8; });
        else
          w.ldmatrix_x4_transposed(
              to_u, [&](int l) { return rows.at + (e + l % 8 + l / 16 * 8) * i_stride + n + l / 8 % 2 * 8; });
        if (columns.k_contiguous)
          w.ldmatrix_x4(to_v, [&](int l) {
            return columns.at + (m + l % 8 + l / 16 * 8) * k_stride + e + l / 8 % 2 * 8;
          });
        else
          w.ldmatrix_x4_transposed(to_v, [&](int l) {
            return columns.at + (e + l % 8 + l / 8 % 2 * 8) * i_stride + m + l / 16 * 8;
          });
      }
      UNROLL_UNROLLED
      for (int i = 0; i < 8; ++i)
        if (n0 + i / 4 * 16 < rows.end && m0 + i % 4 / 2 * 16 < columns.end)
          w.mma(sum.template part<4>(w, 4 * i), u.template part<4>(i / 4 * 4), v.template part<2>(i % 4 * 2));
    }
  }
};

}  // namespace unroll::kernels
