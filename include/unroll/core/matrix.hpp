#pragma once

#include <concepts>

#include "unroll/core/config.hpp"

namespace unroll {

/// A column-major rows x cols matrix somewhere in memory.
template <class T>
struct matrix {
  T* data = nullptr;
  index_t rows = 0;    ///< in a column
  index_t cols = 0;    ///< number of columns
  index_t stride = 0;  ///< from a column to the next, at least rows

  matrix() = default;
  UNROLL_HD matrix(T* data_, index_t rows_, index_t cols_) : matrix(data_, rows_, cols_, rows_) {}
  UNROLL_HD matrix(T* data_, index_t rows_, index_t cols_, index_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  template <class U>
  requires std::same_as<const U, T> UNROLL_HD matrix(const matrix<U>& m)
      : matrix(m.data, m.rows, m.cols, m.stride) {}
};

/// How a product takes a matrix.
enum class op { none, transpose };

/// Rows [row, row + rows) of the columns [col, col + cols) of m; null stays null.
template <class T>
UNROLL_HD matrix<T> part(const matrix<T>& m, index_t row, index_t rows, index_t col, index_t cols) {
  return {m.data ? m.data + row + col * m.stride : nullptr, rows, cols, m.stride};
}
/// Rows [row, row + rows) of m, all columns.
template <class T>
UNROLL_HD matrix<T> rows_of(const matrix<T>& m, index_t row, index_t rows) {
  return part(m, row, rows, 0, m.cols);
}
/// Columns [col, col + cols) of m, m.rows x cols.
template <class T>
UNROLL_HD matrix<T> columns_of(const matrix<T>& m, index_t col, index_t cols) {
  return part(m, 0, m.rows, col, cols);
}

}  // namespace unroll
