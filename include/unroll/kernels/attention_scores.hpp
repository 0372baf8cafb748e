#pragma once

#include <cmath>
#include <limits>

#include "unroll/core/linalg.hpp"
#include "unroll/kernels/attention_shape.hpp"

// What attention does to the scores of a block of queries of one head, between the matrix products. Scores
// lie with a query in each lane, those of a key side by side, so that nothing is summed within a vector and
// what a query gets does not depend on the others of its block.
namespace unroll::kernels::detail {

/// Lanes of so many queries: whole vectors of every instruction set.
inline index_t lanes_of(index_t queries) { return (queries + 15) / 16 * 16; }

/// x . y, of n numbers.
template <class Isa, class T>
UNROLL_INLINE inline T dot_on(const T* x, const T* y, index_t n) {
  return T(simd::sum_on<Isa, T>([](const auto& u, const auto& v) UNROLL_INLINE { return u * v; }, n, x, y));
}

/// Query c of the block is query first + c of its sequence and sees the first before + mask.visible(first +
/// c) keys, and, a memory token, its own key and value besides.
template <class T>
struct query_block_of_head {
  attention_mask mask;
  index_t first, before;
  T root;                           // 1 / sqrt(head_dim)
  matrix<const T> q, own_k, own_v;  // head_dim x queries each

  index_t queries() const { return q.cols; }
  index_t lanes() const { return lanes_of(q.cols); }
  /// The first memory token; from there on there is no other.
  index_t first_memory() const {
    const index_t c = mask.ordinals - mask.first - first;
    return mask.ordinals < 0 || c > q.cols ? q.cols : c < 0 ? 0 : c;
  }
  index_t visible(index_t c) const { return before + mask.visible(first + c); }
};

inline constexpr index_t lane_group = 32;    // lanes that take part in the same products
inline constexpr index_t most_queries = 80;  // of a block

/// How many keys each lane sees; lanes behind the last query see what it sees.
template <class T>
struct visible_lanes {
  const T* counts;
  index_t reach[(most_queries + lane_group - 1) / lane_group + 1];  // keys that lanes in front of a group see

  visible_lanes(const query_block_of_head<T>& b, T* to) : counts(to), reach{} {
    index_t most = b.before, n = 0;
    for (index_t c = 0; c < b.lanes(); ++c) {
      if (c < b.queries()) n = b.visible(c);
      to[c] = T(n);
      most = n > most ? n : most;
      reach[c / lane_group + 1] = most;
    }
  }
  index_t groups(index_t lanes) const { return (lanes + lane_group - 1) / lane_group; }
  /// The least and the largest count of N lanes.
  template <int N>
  UNROLL_INLINE void bounds(index_t lane, index_t& least, index_t& most) const {
    T low = counts[lane], high = low;
    for (int i = 1; i < N; ++i) {
      low = counts[lane + i] < low ? counts[lane + i] : low;
      high = counts[lane + i] > high ? counts[lane + i] : high;
    }
    least = index_t(low);
    most = index_t(high);
  }
};

/// The columns of m, head_dim x queries, a lane each: m', zeros in the lanes behind the last.
template <class T>
void to_lanes(const matrix<const T>& m, const matrix<T>& lanes) {
  for (index_t d = 0; d < lanes.cols; ++d)
    std::fill(lanes.data + d * lanes.stride + m.cols, lanes.data + d * lanes.stride + lanes.rows, T(0));
  linalg::transpose<T>(m, rows_of(lanes, 0, m.cols));
}

/// s, lanes x keys, from the scores k . q to exp((s - largest) root), 0 where a key is not seen. self: the
/// same of a memory token's own key, 0 of other lanes; share: 1 over the sum of both; each one a lane.
/// lse[c * lse_stride] for each query, unless lse is null.
template <class T>
struct softmax_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const query_block_of_head<T>& b, const visible_lanes<T>& seen,
                                const matrix<T>& s, T* self, T* share, T* lse, index_t lse_stride) {
    constexpr int N = simd::width<Isa, T>;
    using vec = simd::vec<T, N>;
    constexpr T lowest = std::numeric_limits<T>::lowest();
    const index_t memory = b.first_memory();
    for (index_t c = 0; c < s.rows; ++c)
      self[c] = c < memory || c >= b.queries()
                    ? lowest
                    : dot_on<Isa>(b.q.data + c * b.q.stride, b.own_k.data + c * b.own_k.stride, b.q.rows);
    for (index_t l = 0; l < s.rows; l += N) {
      T* const column = s.data + l;
      const vec count = simd::load<N>(seen.counts + l);
      const auto score = [&](index_t t) UNROLL_INLINE { return simd::load<N>(column + t * s.stride); };
      const auto seen_score = [&](index_t t) UNROLL_INLINE {
        return simd::where_greater(count, simd::splat<N>(T(t)), score(t), simd::splat<N>(lowest));
      };
      vec most[4];
      for (vec& m : most) m = simd::load<N>(self + l);
      index_t t = 0, all, some;
      seen.template bounds<N>(l, all, some);
      for (; t + 4 <= all; t += 4) {
        UNROLL_FULLY
        for (int u = 0; u < 4; ++u) most[u] = larger(score(t + u), most[u]);
      }
      for (; t < some; ++t) {
        const vec v = seen_score(t);
        simd::store(v, column + t * s.stride);
        most[0] = larger(v, most[0]);
      }
      const vec largest = larger(larger(most[0], most[1]), larger(most[2], most[3]));
      const auto exponential = [&](const vec& v) UNROLL_INLINE { return simd::exp((v - largest) * b.root); };
      const vec own = exponential(simd::load<N>(self + l));
      vec sum = own;
      for (index_t block = 0; block < some; block += 256) {
        const index_t end = block + 256 < some ? block + 256 : some;
        vec part{};
        for (t = block; t < end; ++t) {
          const vec e = exponential(score(t));
          simd::store(e, column + t * s.stride);
          part += e;
        }
        sum += part;
      }
      for (t = some; t < s.cols; ++t) simd::store(vec{}, column + t * s.stride);
      simd::store(own, self + l);
      simd::store(T(1) / sum, share + l);
      if (!lse) continue;
      T sums[std::size_t(N)], base[std::size_t(N)];
      simd::store(sum, sums);
      simd::store(largest * b.root, base);
      for (index_t c = l; c < l + N && c < b.queries(); ++c)
        lse[c * lse_stride] = base[c - l] + std::log(sums[c - l]);
    }
  }

 private:
  template <int N>
  UNROLL_INLINE static simd::vec<T, N> larger(const simd::vec<T, N>& u, const simd::vec<T, N>& v) {
    return simd::where_greater(u, v, u, v);
  }
};

/// Column c of o, head_dim x queries, times share[c], one a query.
template <class T>
struct share_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const matrix<T>& o, const T* share) {
    for (index_t c = 0; c < o.cols; ++c)
      simd::map_on<Isa>([factor = share[c]](const auto& u) UNROLL_INLINE { return u * factor; }, o.rows,
                        o.data + c * o.stride, o.data + c * o.stride);
  }
};

struct scaled_columns_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(const T* factor, const matrix<const T>& x, const matrix<T>& y) {
    for (index_t c = 0; c < x.cols; ++c)
      linalg::detail::axpy_on<Isa>(factor[c], x.data + c * x.stride, y.data + c * y.stride, x.rows);
  }
};
/// Column c of y += factor[c] times that of x; x and y have one shape, factor a number for each column.
template <class T>
void add_scaled_columns(const T* factor, const matrix<const T>& x, const matrix<T>& y) {
  simd::dispatch<scaled_columns_kernel, const T*, const matrix<const T>&, const matrix<T>&>(factor, x, y);
}

/// Numbers of a block's queries and the keys that they may see.
template <class T>
struct block_scores {
  matrix<T> keys;  // lanes x keys
  T* own;          // one a lane: of a memory token and its own key
};

/// From the scores to p and from v . dout to ds, both 0 where a key is not seen. dout: head_dim x queries;
/// lse and along, out . dout: one a lane.
template <class T>
struct softmax_vjp_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const query_block_of_head<T>& b, const visible_lanes<T>& seen,
                                const matrix<const T>& dout, const T* lse, const T* along,
                                const block_scores<T>& probabilities, const block_scores<T>& adjoints) {
    const matrix<T>&p = probabilities.keys, &ds = adjoints.keys;
    T *const self = probabilities.own, *const dself = adjoints.own;
    constexpr int N = simd::width<Isa, T>;
    using vec = simd::vec<T, N>;
    const T root = b.root;
    for (index_t l = 0; l < p.rows; l += N) {
      T *const pl = p.data + l, *const dl = ds.data + l;
      const vec count = simd::load<N>(seen.counts + l), sums = simd::load<N>(lse + l);
      const vec mean = simd::load<N>(along + l), none{};
      const auto at = [&](index_t t, vec& u, vec& du) UNROLL_INLINE {
        u = simd::exp(simd::load<N>(pl + t * p.stride) * root - sums);
        du = u * (simd::load<N>(dl + t * ds.stride) - mean) * root;
      };
      vec u, du;
      index_t t = 0, all, some;
      seen.template bounds<N>(l, all, some);
      for (; t < all; ++t) {
        at(t, u, du);
        simd::store(u, pl + t * p.stride);
        simd::store(du, dl + t * ds.stride);
      }
      for (; t < some; ++t) {
        at(t, u, du);
        const vec key = simd::splat<N>(T(t));
        simd::store(simd::where_greater(count, key, u, none), pl + t * p.stride);
        simd::store(simd::where_greater(count, key, du, none), dl + t * ds.stride);
      }
      for (; t < p.cols; ++t) {
        simd::store(none, pl + t * p.stride);
        simd::store(none, dl + t * ds.stride);
      }
    }
    for (index_t c = b.first_memory(); c < b.queries(); ++c) {
      const index_t n = b.q.rows;
      self[c] = std::exp(dot_on<Isa>(b.q.data + c * b.q.stride, b.own_k.data + c * b.own_k.stride, n) * root -
                         lse[c]);
      dself[c] = self[c] *
                 (dot_on<Isa>(dout.data + c * dout.stride, b.own_v.data + c * b.own_v.stride, n) - along[c]) *
                 root;
    }
  }
};

/// along[c] = x_c . y_c for each column of x and y.
struct column_dots_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(const matrix<const T>& x, const matrix<const T>& y, T* along) {
    for (index_t c = 0; c < x.cols; ++c)
      along[c] = dot_on<Isa>(x.data + c * x.stride, y.data + c * y.stride, x.rows);
  }
};

}  // namespace unroll::kernels::detail
