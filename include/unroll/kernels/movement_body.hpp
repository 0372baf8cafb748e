#pragma once

#include "unroll/kernels/body.hpp"

// Numbers that move, between kinds with one rounding. Matrices are column-major.
namespace unroll::kernels {

/// x = value, rows x cols.
template <class U>
struct fill_body {
  matrix<U> x;
  float value;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {x.rows, x.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      float values[8];
      UNROLL_UNROLLED
      for (int e = 0; e < 8; ++e) values[e] = value;
      store_eight(values, n, x.data + i + j * x.stride);
    });
  }
};

/// to = from, rows x cols. Where the columns of `to` stand in front of those of `from` in one matrix,
/// `in_order`: a thread moves its rows one column after another.
template <class U, class V>
struct copy_body {
  matrix<const U> from;
  matrix<V> to;
  bool in_order = false;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {from.rows, in_order && from.cols > 0 ? 1 : from.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      float x[8];
      for (const index_t end = in_order ? from.cols : j + 1; j < end; ++j) {
        load_eight(from.data + i + j * from.stride, n, x);
        store_eight(x, n, to.data + i + j * to.stride);
      }
    });
  }
};

/// to_j = from_ids[j]: to is rows x n, ids n numbers.
template <class U, class V>
struct gather_columns_body {
  matrix<const U> from;
  const std::int32_t* ids;
  matrix<V> to;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {to.rows, to.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      float x[8];
      load_eight(from.data + i + index_t(ids[j]) * from.stride, n, x);
      store_eight(x, n, to.data + i + j * to.stride);
    });
  }
};

/// to_ids[j] += from_j, j in order: from is rows x n. The first column with an id adds all that have it.
template <class U, class P>
struct scatter_add_columns_body {
  matrix<const U> from;
  const std::int32_t* ids;
  matrix<P> to;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD by_numbers grid() const { return {from.rows, from.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, index_t j) {
      for (index_t k = 0; k < j; ++k)
        if (ids[k] == ids[j]) return;
      P& sum = to.data[i + index_t(ids[j]) * to.stride];
      for (index_t k = j; k < from.cols; ++k)
        if (ids[k] == ids[j]) sum = P(float(sum) + float(from.data[i + k * from.stride]));
    });
  }
};

}  // namespace unroll::kernels
