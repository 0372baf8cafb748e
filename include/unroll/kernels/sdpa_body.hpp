#pragma once

#include "unroll/kernels/flash_attention_parts.hpp"

// What stands around a library's attention: its operands gathered, its results checked and dealt out.
namespace unroll::kernels {

/// The keys and values that one sequence sees, side by side: those of the prefix, its own, and zeros.
struct pack_keys_body {
  device_prefix before;     ///< `all` is what the sequence sees
  matrix<const bf16> k, v;  ///< kv_width x tokens
  matrix<bf16> to_k, to_v;  ///< kv_width x keys

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {to_k.rows, 2 * to_k.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      const bool values = j >= to_k.cols;
      const index_t t = values ? j - to_k.cols : j, seen = before.all.blocks * before.all.keys;
      const matrix<const bf16>& own = values ? v : k;
      float x[8] = {};
      if (t < seen) {
        const bf16* const block = before.blocks[before.all.first + t / before.all.keys];
        const index_t offset = values ? before.value_offset : before.key_offset;
        load_eight(block + offset + i + t % before.all.keys * to_k.rows, n, x);
      } else if (t - seen < own.cols) {
        load_eight(own.data + i + (t - seen) * own.stride, n, x);
      }
      store_eight(x, n, (values ? to_v.data : to_k.data) + i + t * to_k.rows);
    });
  }
};

/// Adjoints of the prefix' part of packed keys and values, added where the blocks' adjoints lie.
struct add_packed_body {
  matrix<const bf16> dk, dv;        ///< kv_width x keys, packed as pack_keys_body packs them
  float* const* dbefore = nullptr;  ///< one a block, laid out as the blocks; null: not wanted
  index_t key_offset = 0, value_offset = 0;
  prefix_range seen;  ///< of the blocks

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD by_numbers grid() const { return {dk.rows, 2 * seen.blocks * seen.keys}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, index_t j) {
      const index_t all = seen.blocks * seen.keys, t = j % all;
      float* const block = dbefore[seen.first + t / seen.keys];
      if (!block) return;
      const matrix<const bf16>& from = j < all ? dk : dv;
      block[(j < all ? key_offset : value_offset) + i + t % seen.keys * dk.rows] +=
          float(from.data[i + t * from.stride]);
    });
  }
};

/// y += x, rows x cols, rounded.
struct add_columns_body {
  matrix<const bf16> x;
  matrix<bf16> y;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {x.rows, x.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      float a[8], b[8];
      load_eight(x.data + i + j * x.stride, n, a);
      load_eight(y.data + i + j * y.stride, n, b);
      UNROLL_UNROLLED
      for (int e = 0; e < 8; ++e) b[e] += a[e];
      store_eight(b, n, y.data + i + j * y.stride);
    });
  }
};

/// to = from', rows x cols of `to`.
struct transpose_body {
  matrix<const float> from;
  matrix<float> to;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD by_numbers grid() const { return {to.rows, to.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, index_t j) { to.data[i + j * to.stride] = from.data[j + i * from.stride]; });
  }
};

/// flags[1] += flags[0], then flags[0] = 0: a call begins.
struct begin_check_body {
  float* flags;
  static constexpr int threads = 32;
  UNROLL_HD index_t blocks() const { return 1; }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int thread) {
      if (thread == 0) flags[1] += flags[0], flags[0] = 0;
    });
  }
};
/// flags[0] = 1 where one of the numbers is not finite.
template <class U>
struct check_finite_body {
  matrix<const U> x;
  float* flags;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {x.rows, x.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    grid().run(c, [&](index_t i, int n, index_t j) {
      float a[8];
      load_eight(x.data + i + j * x.stride, n, a);
      bool finite = true;
      UNROLL_UNROLLED
      for (int e = 0; e < 8; ++e) finite = finite && (a[e] - a[e] == 0);
      if (!finite) flags[0] = 1;
    });
  }
};

/// A body that runs where *flag has a value, and else does nothing.
template <class Body>
struct only_where_body {
  const float* flag;
  float value;
  Body body;

  static constexpr int threads = Body::threads;
  UNROLL_HD index_t blocks() const { return body.blocks(); }
  index_t shared_bytes() const { return shared_bytes_of(body); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    if (*flag == value) body(c);
  }
};

}  // namespace unroll::kernels
