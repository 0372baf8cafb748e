#pragma once

#include <cmath>
#include <limits>

#include "unroll/core/linalg.hpp"
#include "unroll/kernels/attention_shape.hpp"

// What attention does to the scores of a block of queries of one head, between the matrix products: one call
// for all columns, whole vectors of each. Columns lie score_stride apart, so that a last vector may reach
// beyond the keys.
namespace unroll::kernels::detail {

/// Distance between two columns of scores: an odd number of cache lines, so that they spread over the cache.
inline index_t score_stride(index_t keys) { return ((keys + 15) / 16 | 1) * 16; }

/// Query c of the block is query first + c of its sequence and sees the first before + mask.visible(first +
/// c) of `keys` keys, and, a memory token, its own key and value besides.
template <class T>
struct query_block_of_head {
  attention_mask mask;
  index_t first, before, keys;
  T root;  // 1 / sqrt(head)
  matrix<const T> q, own_k, own_v;

  bool memory() const { return mask.memory_token(first); }
  index_t visible(index_t c) const { return before + mask.visible(first + c); }
};

template <class Isa, class T>
UNROLL_INLINE inline T dot_on(const T* x, const T* y, index_t n) {
  return T(simd::sum_on<Isa, T>([](const auto& u, const auto& v) UNROLL_INLINE { return u * v; }, n, x, y));
}

/// y = 0 from element n on, which is in or in front of the vector at `from`, to element `end`, in whole
/// vectors.
template <int N, class T>
UNROLL_INLINE inline void clear_vectors(T* y, index_t from, index_t end) {
  for (index_t i = from; i < end; i += N) simd::store(simd::vec<T, N>{}, y + i);
}

/// s <- exp((s - most) root) for the first n elements, 0 behind them in the last vector; returns the sum, in
/// the order of simd::sum_on.
template <class Isa, class T>
UNROLL_INLINE inline T exponentials_on(T* s, index_t n, T most, T root) {
  constexpr int N = simd::width<Isa, T>;
  using vec = simd::vec<T, N>;
  const auto at = [&](index_t i) UNROLL_INLINE { return simd::exp((simd::load<N>(s + i) - most) * root); };
  double total = 0;
  for (index_t block = 0; block < n; block += 4096) {
    const index_t end = block + 4096 < n ? block + 4096 : n;
    vec part[4] = {};
    index_t i = block;
    for (; i + 4 * N <= end; i += 4 * N) {
      UNROLL_FULLY
      for (int u = 0; u < 4; ++u) {
        const vec e = at(i + u * N);
        simd::store(e, s + i + u * N);
        part[u] += e;
      }
    }
    for (; i + N <= end; i += N) {
      const vec e = at(i);
      simd::store(e, s + i);
      part[0] += e;
    }
    if (i < end) {
      const vec e = simd::keep_first(at(i), end - i, T(0));
      simd::store(e, s + i);
      part[1] += e;
    }
    total += double(simd::reduce((part[0] + part[1]) + (part[2] + part[3])));
  }
  return T(total);
}

/// Column c of s, the scores k . q: exp((s - largest) / sqrt(head)), 0 where a key is not seen; share[c] is 1
/// over their sum with self[c], the same of a memory token's own key. lse[c * lse_stride], unless lse is
/// null.
template <class T>
struct softmax_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const query_block_of_head<T>& b, const matrix<T>& s, T* self, T* share,
                                T* lse, index_t lse_stride) {
    constexpr int N = simd::width<Isa, T>;
    const bool memory = b.memory();
    for (index_t c = 0; c < s.cols; ++c) {
      T* const column = s.data + c * s.stride;
      const index_t n = b.visible(c), whole = n / N * N;
      T most = std::numeric_limits<T>::lowest();
      if (memory)
        most = self[c] = dot_on<Isa>(b.q.data + c * b.q.stride, b.own_k.data + c * b.own_k.stride, b.q.rows);
      if (whole < n)
        simd::store(simd::keep_first(simd::load<N>(column + whole), n - whole, most), column + whole);
      most = simd::largest_on<Isa>(column, (n + N - 1) / N * N, most);
      T sum = exponentials_on<Isa>(column, n, most, b.root);
      clear_vectors<N>(column, (n + N - 1) / N * N, b.keys);
      if (memory) sum += self[c] = std::exp((self[c] - most) * b.root);
      share[c] = 1 / sum;
      if (lse) lse[c * lse_stride] = most * b.root + std::log(sum);
    }
  }
};

/// Column c of o, the sum of exponentials times values: with a memory token's own, times share[c].
template <class T>
struct share_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const query_block_of_head<T>& b, const T* self, const T* share,
                                const matrix<T>& o) {
    const bool memory = b.memory();
    for (index_t c = 0; c < o.cols; ++c) {
      T* const column = o.data + c * o.stride;
      if (memory) linalg::detail::axpy_on<Isa>(self[c], b.own_v.data + c * b.own_v.stride, column, o.rows);
      simd::map_on<Isa>([factor = share[c]](const auto& u) UNROLL_INLINE { return u * factor; }, o.rows,
                        column, column);
    }
  }
};

struct scaled_columns_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(const T* factor, const matrix<const T>& x, const matrix<T>& y) {
    for (index_t c = 0; c < x.cols; ++c)
      linalg::detail::axpy_on<Isa>(factor[c], x.data + c * x.stride, y.data + c * y.stride, x.rows);
  }
};
/// Column c of y += factor[c] times that of x.
template <class T>
void add_scaled_columns(const T* factor, const matrix<const T>& x, const matrix<T>& y) {
  simd::dispatch<scaled_columns_kernel, const T*, const matrix<const T>&, const matrix<T>&>(factor, x, y);
}

/// From the scores to p and from v . dout to ds, both 0 where a key is not seen, and the same of a memory
/// token's own key in self and dself.
template <class T>
struct softmax_vjp_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const query_block_of_head<T>& b, const matrix<const T>& out,
                                const matrix<const T>& dout, const T* lse, index_t lse_stride,
                                const matrix<T>& p, const matrix<T>& ds, T* self, T* dself) {
    constexpr int N = simd::width<Isa, T>;
    using vec = simd::vec<T, N>;
    const bool memory = b.memory();
    for (index_t c = 0; c < p.cols; ++c) {
      T *const pc = p.data + c * p.stride, *const dsc = ds.data + c * ds.stride;
      const T* const dc = dout.data + c * dout.stride;
      const index_t n = b.visible(c);
      const T l = lse[c * lse_stride], root = b.root;
      const T along = dot_on<Isa>(out.data + c * out.stride, dc, out.rows);
      const auto at = [&](index_t i, vec& u, vec& du) UNROLL_INLINE {
        u = simd::exp(simd::load<N>(pc + i) * root - l);
        du = u * (simd::load<N>(dsc + i) - along) * root;
      };
      vec u, du;
      index_t i = 0;
      for (; i + N <= n; i += N) {
        at(i, u, du);
        simd::store(u, pc + i);
        simd::store(du, dsc + i);
      }
      if (i < n) {
        at(i, u, du);
        simd::store(simd::keep_first(u, n - i, T(0)), pc + i);
        simd::store(simd::keep_first(du, n - i, T(0)), dsc + i);
        i += N;
      }
      clear_vectors<N>(pc, i, b.keys);
      clear_vectors<N>(dsc, i, b.keys);
      if (!memory) continue;
      const index_t head = b.q.rows;
      self[c] = std::exp(
          dot_on<Isa>(b.q.data + c * b.q.stride, b.own_k.data + c * b.own_k.stride, head) * root - l);
      dself[c] = self[c] * (dot_on<Isa>(dc, b.own_v.data + c * b.own_v.stride, head) - along) * root;
    }
  }
};

}  // namespace unroll::kernels::detail
