#pragma once

#include "unroll/kernels/body.hpp"

// Matrices of bfloat16 in shared memory and products of them by warps, 16 rows each. Where four warps
// multiply together (wgmma), they run the same products in the same order of sums. There a product is only
// started, and its operands and sum are not to be touched before `finish`.
namespace unroll::kernels {

/// Whether bodies multiply by four warps together: in programs for sm_90a alone, all of whose files are
/// compiled with UNROLL_WGMMA. Their tiles need more shared memory than many other devices have.
#if defined(UNROLL_WGMMA)
constexpr bool multiply_in_groups = true;
#else
constexpr bool multiply_in_groups = false;
#endif

/// Rows x Columns bfloat16 in panels of 64 columns: rows of 128 bytes, one behind the other, whose pieces of
/// 16 bytes are exchanged within the row, so that the eight rows of one matrix of ldmatrix lie in different
/// banks. Aligned to 1024 bytes.
template <int Rows, int Columns>
struct panels {
  static_assert(Rows % 8 == 0 && Columns % 64 == 0);
  /// Numbers, pieces of a row, bytes from a panel to the next.
  static constexpr int size = Rows * Columns, pieces = Columns / 8, panel_bytes = 128 * Rows;
  bf16* at;  ///< the first panel
  /// Piece p of a row, 8 numbers.
  UNROLL_HD static constexpr int offset(int row, int p) {
    return p / 8 * (64 * Rows) + row * 64 + ((p ^ row) & 7) * 8;
  }
  /// Piece p of a row, 8 numbers.
  UNROLL_HD bf16* piece(int row, int p) const { return at + offset(row, p); }
};

/// s = a b' over the Columns numbers of a row: a the 16 rows of this warp, b all N rows. s: N / 8 tiles of
/// mma.
template <bool Together, class Warp, class Sum, int Rows, int N, int Columns>
UNROLL_HD void multiply_rows(const Warp& w, Sum& s, const panels<Rows, Columns>& a,
                             const panels<N, Columns>& b) {
  if constexpr (Together && Warp::in_groups) {
    w.template multiply_rows<Columns / 16, N>(s, a, b);
  } else {
    const int row0 = 16 * w.index();
    w.lanes([&](int lane) {
      UNROLL_UNROLLED
      for (int i = 0; i < N / 2; ++i) s(lane, i) = 0;
    });
    UNROLL_UNROLLED
    for (int kk = 0; kk < Columns / 16; ++kk) {
      auto x = w.template fragment<word, 4>();
      w.ldmatrix_x4(x, a.at, [&](int lane) { return a.offset(row0 + lane % 16, 2 * kk + lane / 16); });
      UNROLL_UNROLLED
      for (int t = 0; t < N / 16; ++t) {
        auto y = w.template fragment<word, 4>();
        w.ldmatrix_x4(y, b.at, [&](int lane) {
          return b.offset(16 * t + lane % 8 + lane / 16 * 8, 2 * kk + lane / 8 % 2);
        });
        UNROLL_UNROLLED
        for (int i = 0; i < 2; ++i)
          w.mma(s.template part<4>((2 * t + i) * 4), x, y.template part<2>(i % 2 * 2));
      }
    }
  }
}

/// acc += p b: p Rows / 16 operands of mma, acc Columns / 8 tiles of it.
template <bool Together, class Warp, class Sum, class Operand, int Rows, int Columns>
UNROLL_HD void multiply_columns(const Warp& w, Sum& acc, Operand& p, const panels<Rows, Columns>& b) {
  if constexpr (Together && Warp::in_groups) {
    w.template multiply_columns<Rows / 16, Columns>(acc.of(w), p, b);
  } else {
    UNROLL_UNROLLED
    for (int kk = 0; kk < Rows / 16; ++kk) {
      UNROLL_UNROLLED
      for (int t = 0; t < Columns / 16; ++t) {
        auto y = w.template fragment<word, 4>();
        w.ldmatrix_x4_transposed(y, b.at,
                                 [&](int lane) { return b.offset(16 * kk + lane % 16, 2 * t + lane / 16); });
        UNROLL_UNROLLED
        for (int i = 0; i < 2; ++i)
          w.mma(acc.template part<4>(w, (2 * t + i) * 4), p.template part<4>(kk * 4),
                y.template part<2>(i * 2));
      }
    }
  }
}

/// All products but the newest Left are finished, s among them.
template <int Left, bool Together, class Warp, class Sum>
UNROLL_HD void finish(const Warp& w, Sum&& s) {
  if constexpr (Together && Warp::in_groups) w.template finish<Left>(s);
}

/// The word of an operand into which the pair of numbers of `tile` of a sum goes, in rows g or (half) g + 8,
/// when the sum's columns are the next product's summed index: tiles 2 u and 2 u + 1 become operand u.
UNROLL_HD constexpr int operand_word(int tile, int half) { return tile / 2 * 4 + tile % 2 * 2 + half; }

}  // namespace unroll::kernels
