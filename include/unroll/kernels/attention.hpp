#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "unroll/core/arena.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/kernels/attention_scores.hpp"
#include "unroll/kernels/softmax.hpp"

namespace unroll::kernels {

namespace detail {

/// Queries of a head that are worked on together: so many that their scores stay in the second cache.
inline index_t query_block(index_t queries, index_t keys) {
  return keys > 512 ? 32 : queries > most_queries || keys > 400 ? 64 : most_queries;
}
/// Numbers that a block of so many lanes takes: scores, their adjoints, two matrices of queries, five numbers
/// a query.
inline index_t block_numbers(index_t lanes, index_t head, index_t keys) {
  return lanes * (2 * keys + 2 * head + 5);
}
/// Distance between the scores of two heads: an odd number of cache lines, so that they spread over the
/// cache.
inline index_t score_stride(index_t keys) { return ((keys + 15) / 16 | 1) * 16; }
inline constexpr index_t packed_from = 8;  // queries from which copying neighbouring blocks side by side pays

/// What the queries of one key-value head look at: the rows of that head of every block of keys.
template <class T>
struct visible_keys {
  index_t head = 0;
  std::span<const key_block<T>> before = {};
  std::span<const key_block_adjoint<T>> dbefore = {};
  index_t before_row = 0;  // the head's first row in `before`
  key_block<T> own = {};
  key_block_adjoint<T> down = {};
  index_t own_row = 0;  // and in `own`

  /// The head's rows, from row `row` of m on, of `count` columns of m.
  template <class U>
  matrix<U> of_head(const matrix<U>& m, index_t row, index_t from, index_t count) const {
    return part(m, row, head, from, count);
  }
  /// f(at, lane, k, v) for every block of keys, whose scores are those from number `at` on, and of whose keys
  /// `lane` is the first to see any: the blocks in front, then the sequence's own keys, of which there may be
  /// none.
  template <class F>
  void for_each(const visible_lanes<T>& visible, index_t lanes, F&& f) const {
    index_t at = 0;
    for (const key_block<T>& b : before) {
      f(at, index_t{0}, of_head(b.k, before_row, 0, b.k.cols), of_head(b.v, before_row, 0, b.k.cols));
      at += b.k.cols;
    }
    for_own(visible, lanes, at, [&](index_t lane, index_t from, index_t count) {
      f(at + from, lane, of_head(own.k, own_row, from, count), of_head(own.v, own_row, from, count));
    });
  }
  /// f(at, lane, dk, dv) for every block whose adjoints are wanted, with `at` and `lane` as in for_each.
  template <class F>
  void for_each_adjoint(const visible_lanes<T>& visible, index_t lanes, F&& f) const {
    index_t at = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      const index_t count = before[i].k.cols;
      if (!dbefore.empty())
        f(at, index_t{0}, of_head(dbefore[i].dk, before_row, 0, count),
          of_head(dbefore[i].dv, before_row, 0, count));
      at += count;
    }
    for_own(visible, lanes, at, [&](index_t lane, index_t from, index_t count) {
      f(at + from, lane, of_head(down.dk, own_row, from, count), of_head(down.dv, own_row, from, count));
    });
  }

 private:
  // The own keys that lanes in front of a group do not see, group by group.
  template <class F>
  static void for_own(const visible_lanes<T>& visible, index_t lanes, index_t in_front, F&& f) {
    for (index_t g = 0, from = 0; g < visible.groups(lanes); ++g) {
      const index_t end = visible.reach[g + 1] - in_front;
      if (g == 0 || end > from) f(g * lane_group, from, end - from);
      from = end;
    }
  }
};

/// The blocks in front of the queries; where there are several, copied side by side for one key-value head at
/// a time.
template <class T>
struct packed_prefix {
  std::span<const key_block<T>> blocks;
  index_t keys = 0, head = 0;
  bool packed = false;
  key_block<T> copy = {};
  key_block_adjoint<T> dcopy = {};

  packed_prefix(std::span<const key_block<T>> blocks_, index_t head_, index_t queries)
      : blocks(blocks_), head(head_) {
    index_t most = 0;
    for (const key_block<T>& b : blocks) {
      keys += b.k.cols;
      most = std::max(most, b.k.cols);
    }
    packed = most < keys && queries >= packed_from;
  }
  /// Numbers of the workspace that one copy takes.
  index_t size() const { return packed ? 2 * head * keys : 0; }

  /// Makes `seen` look at head g of the blocks; workspace: size() numbers.
  void load(index_t g, T* workspace, visible_keys<T>& seen) {
    seen.before_row = g * head;
    seen.before = blocks;
    if (!packed) return;
    simd::dispatch<copy_kernel, const packed_prefix&>(*this, g * head, workspace);
    copy = {{workspace, head, keys}, {workspace + keys * head, head, keys}};
    seen.before = {&copy, 1};
    seen.before_row = 0;
  }
  /// The same for their adjoints, which start at 0 and are added to `to` by add().
  void load_adjoint(T* workspace, std::span<const key_block_adjoint<T>> to, visible_keys<T>& seen) {
    seen.dbefore = to;
    if (!packed || to.empty()) return;
    std::fill_n(workspace, size(), T(0));
    dcopy = {{workspace, head, keys}, {workspace + keys * head, head, keys}};
    seen.dbefore = {&dcopy, 1};
  }
  void add(index_t g, std::span<const key_block_adjoint<T>> to) const {
    if (!packed || to.empty()) return;
    simd::dispatch<add_kernel, const packed_prefix&>(*this, g * head, to);
  }

 private:
  struct copy_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const packed_prefix& p, index_t row, T* to) {
      const auto copy = [&](const matrix<const T>& m) UNROLL_INLINE {
        for (index_t t = 0; t < m.cols; ++t, to += p.head)
          simd::map_on<Isa>([](const auto& u) UNROLL_INLINE { return u; }, p.head, to,
                            m.data + row + t * m.stride);
      };
      for (const key_block<T>& b : p.blocks) copy(b.k);
      for (const key_block<T>& b : p.blocks) copy(b.v);
    }
  };
  struct add_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const packed_prefix& p, index_t row,
                                  std::span<const key_block_adjoint<T>> to) {
      const T *dk = p.dcopy.dk.data, *dv = p.dcopy.dv.data;
      for (std::size_t i = 0; i < p.blocks.size(); ++i) {
        const index_t count = p.blocks[i].k.cols;
        const auto add = [&](const T* from, const matrix<T>& m) UNROLL_INLINE {
          if (!m.data) return;
          for (index_t t = 0; t < count; ++t)
            linalg::detail::axpy_on<Isa>(T(1), from + t * p.head, m.data + row + t * m.stride, p.head);
        };
        add(dk, to[i].dk);
        add(dv, to[i].dv);
        dk += count * p.head;
        dv += count * p.head;
      }
    }
  };
};

/// Asks for all of m into the first or the second cache.
template <int cache, class T>
void ask_for(const matrix<const T>& m) {
  for (index_t c = 0; c < m.cols; ++c)
    for (index_t i = 0; i < m.rows; i += 64 / index_t(sizeof(T)))
      simd::prefetch<cache>(m.data + i + c * m.stride);
}

/// x . y of few elements, n each.
template <class Isa, class T>
UNROLL_INLINE inline T short_dot(const T* x, const T* y, index_t n) {
  constexpr int N = simd::width<Isa, T>;
  simd::vec<T, N> sum{};
  index_t i = 0;
  for (; i + N <= n; i += N) sum += simd::load<N>(x + i) * simd::load<N>(y + i);
  if (i < n) sum += simd::load_first<N>(x + i, n - i) * simd::load_first<N>(y + i, n - i);
  return simd::reduce(sum);
}

/// Attention of a single query, which sees all keys: bounded by reading these, so they are read once, in the
/// order in which they lie. 1.7 times as fast as products with one head after another where they come from
/// memory, 0.9 times in a cache. out: query_width numbers, lse: one a head, or null, scores:
/// score_stride(keys) a head.
template <class T>
struct attention_of_one {
  template <class Isa>
  UNROLL_INLINE static void run(const attention_inputs<T>& in, T* out, T* lse, T* scores, index_t keys) {
    const attention_shape& shape = in.shape;
    const index_t head = shape.head_dim, group = shape.heads / shape.kv_heads, stride = score_stride(keys);
    const T root = T(1 / std::sqrt(double(head)));
    // f(rows of a key-value head, query head, its score) for every key or value
    const auto for_each = [&](const matrix<const T>& m, index_t at, const auto& f) UNROLL_INLINE {
      for (index_t t = 0; t < m.cols; ++t)
        for (index_t g = 0, j = 0; g < shape.kv_heads; ++g)
          for (index_t end = j + group; j < end; ++j)
            f(m.data + g * head + t * m.stride, j, scores[at + t + j * stride]);
    };
    const auto score = [&](const T* k, index_t j, T& s)
                           UNROLL_INLINE { s = short_dot<Isa>(k, in.q.data + j * head, head); };
    const auto accumulate = [&](const T* v, index_t j, T& p)
                                UNROLL_INLINE { linalg::detail::axpy_on<Isa>(p, v, out + j * head, head); };
    index_t at = 0;
    for (const key_block<T>& b : in.before) {
      for_each(b.k, at, score);
      at += b.k.cols;
    }
    for_each(in.own.k, at, score);
    for (index_t j = 0; j < shape.heads; ++j) {
      T* const s = scores + j * stride;
      const T most = simd::largest_on<Isa>(s, keys, std::numeric_limits<T>::lowest());
      const T sum = exponentials_on<Isa>(s, keys, most, root, s), share = 1 / sum;
      simd::map_on<Isa>([share](const auto& u) UNROLL_INLINE { return u * share; }, keys, s, s);
      if (lse) lse[j] = most * root + std::log(sum);
    }
    std::fill_n(out, shape.heads * head, T(0));
    at = 0;
    for (const key_block<T>& b : in.before) {
      for_each(b.v, at, accumulate);
      at += b.v.cols;
    }
    for_each(in.own.v, at, accumulate);
  }
};

}  // namespace detail

/// Numbers of workspace that attention and attention_vjp need: scores and their adjoints for one block of
/// queries of one head, or scores of all heads for a single query, and copies of one head's keys and values
/// in front with their adjoints, if they are in several blocks. tokens: of the sequence, those in front of
/// its first query included. Fewer tokens never need more.
inline index_t attention_workspace(const attention_shape& shape, index_t tokens, index_t keys_before,
                                   index_t largest_block) {
  const index_t keys = keys_before + tokens, lanes = detail::lanes_of(tokens);
  const auto of = [&](index_t most, index_t up_to) {
    return detail::block_numbers(std::min(lanes, most), shape.head_dim, std::min(keys, up_to));
  };
  const index_t copies =
      largest_block < keys_before && tokens >= detail::packed_from ? 4 * shape.head_dim * keys_before : 0;
  return std::max({of(32, keys), of(64, 512), of(80, 400), detail::score_stride(keys) * shape.heads}) +
         copies;
}

/// Attention of the n queries of one sequence over all keys of the blocks `before` and, under the mask, over
/// the keys of their own sequence, in every head j:
///   out_i = sum_t p_ti v_t,   p_ti = exp(k_t . q_i / sqrt(head_dim) - log_sum_i).
/// out is query_width x n; log_sum is heads x n and may be null. Scores are alive for one block of queries
/// only. The workspace has at least attention_workspace numbers. out overlaps none of the inputs. Values
/// that a query does not see must be finite, where one of the 32 queries beside it sees them. 4 head_dim
/// multiplications and additions for every head and every visible pair.
template <class T>
void attention(const attention_inputs<T>& in, matrix<T> out, std::type_identity_t<T>* log_sum,
               std::type_identity_t<view<T>> workspace) {
  const attention_shape& shape = in.shape;
  const attention_mask& mask = in.mask;
  const matrix<const T>& q = in.q;
  const key_block<T>& own = in.own;
  const index_t head = shape.head_dim, n = q.cols, group = shape.heads / shape.kv_heads;
  const T root = T(1 / std::sqrt(double(head)));
  const index_t tokens = mask.first + n;
  UNROLL_ASSERT(own.k.cols == tokens && own.v.cols == tokens && out.cols == n && out.rows == q.rows);
  detail::packed_prefix<T> prefix(in.before, head, n);
  if (tokens == 1)
    return simd::dispatch<detail::attention_of_one<T>, const attention_inputs<T>&>(
        in, out.data, log_sum, workspace.data(), prefix.keys + 1);
  detail::visible_keys<T> seen{head};
  seen.own = own;
  const index_t keys = prefix.keys + tokens, block = std::min(n, detail::query_block(n, keys)),
                lanes = detail::lanes_of(block);
  T* const scores = workspace.data();
  T* const queries = scores + lanes * keys;
  T* const counts = queries + lanes * head;
  T* const self = counts + lanes;  // of memory tokens: their own score
  T* const share = self + lanes;   // 1 / sum of the exponentials
  T* const panel = share + lanes;
  UNROLL_ASSERT(workspace.size() >= panel - scores + prefix.size());
  for (index_t g = 0; g < shape.kv_heads; ++g) {
    prefix.load(g, panel, seen);
    seen.own_row = g * head;
    for (index_t j = g * group; j < (g + 1) * group; ++j)
      for (index_t i = 0, count = 0; i < n; i += count) {
        count = std::min(block, n - i);
        const matrix<const T> Q(q.data + j * head + i * q.stride, head, count, q.stride);
        const matrix<T> O(out.data + j * head + i * out.stride, head, count, out.stride);
        const auto own_columns = [&](const auto& m) {
          return part(m, g * head, head, mask.first + i, count);
        };
        const detail::query_block_of_head<T> of_head{
            mask, i, prefix.keys, root, Q, own_columns(own.k), own_columns(own.v)};
        const detail::visible_lanes<T> visible(of_head, counts);
        const index_t L = of_head.lanes();
        const matrix<T> S(scores, L, visible.reach[visible.groups(L)]), Qt(queries, L, head);
        detail::to_lanes<T>(Q, Qt);
        seen.for_each(visible, L, [&](index_t at, index_t lane, matrix<const T> k, matrix<const T>) {
          linalg::gemm<T>(op::none, rows_of(Qt, lane, L - lane), op::none, k, false,
                          part(S, lane, L - lane, at, k.cols));
        });
        simd::dispatch<detail::softmax_kernel<T>, const detail::query_block_of_head<T>&,
                       const detail::visible_lanes<T>&, const matrix<T>&>(
            of_head, visible, S, self, share, log_sum ? log_sum + j + i * shape.heads : nullptr, shape.heads);
        seen.for_each(visible, L, [&](index_t at, index_t lane, matrix<const T>, matrix<const T> v) {
          linalg::gemm<T>(op::none, v, op::transpose, part(S, lane, count - lane, at, v.cols), at > 0,
                          columns_of(O, lane, count - lane));
        });
        simd::dispatch<detail::share_kernel<T>, const matrix<T>&, const T*>(O, share);
        const index_t m = of_head.first_memory();
        for (index_t c = m; c < count; ++c) self[c] *= share[c];
        detail::add_scaled_columns<T>(self + m, columns_of(of_head.own_v, m, count - m),
                                      columns_of(O, m, count - m));
      }
  }
}

/// The vjp of attention from its outputs `out` and `log_sum`: scores are computed once more. With
/// dp_ti = v_t . dout_i and ds_ti = p_ti (dp_ti - out_i . dout_i) / sqrt(head_dim),
///   dv_t += sum_i p_ti dout_i,   dk_t += sum_i ds_ti q_i,   dq_i = sum_t ds_ti k_t.
/// WRITES dq; ADDS to the adjoints of keys and values, where their data is not null. dq may be the memory of
/// q or of dout, else nothing overlaps; workspace: attention_workspace() numbers. 10 head_dim multiplications
/// and additions for every head and every visible pair.
template <class T>
void attention_vjp(const attention_inputs<T>& in, const attention_cotangents<T>& given,
                   const attention_adjoints<T>& to, std::type_identity_t<view<T>> workspace) {
  const attention_shape& shape = in.shape;
  const attention_mask& mask = in.mask;
  const matrix<const T>&q = in.q, &out = given.out, &dout = given.dout;
  const matrix<T>& dq = to.dq;
  const key_block_adjoint<T>& down = to.own;
  const index_t head = shape.head_dim, n = q.cols, tokens = mask.first + n,
                group = shape.heads / shape.kv_heads;
  const T root = T(1 / std::sqrt(double(head)));
  UNROLL_ASSERT(to.dbefore.empty() || to.dbefore.size() == in.before.size());
  detail::packed_prefix<T> prefix(in.before, head, n);
  detail::visible_keys<T> seen{head};
  seen.own = in.own;
  seen.down = down;
  const index_t keys = prefix.keys + tokens, block = std::min(n, detail::query_block(n, keys)),
                lanes = detail::lanes_of(block);
  T* const scores = workspace.data();
  T* const dscores = scores + lanes * keys;
  T* const queries = dscores + lanes * keys;
  T* const doutputs = queries + lanes * head;
  T* const counts = doutputs + lanes * head;
  T* const self = counts + lanes;
  T* const dself = self + lanes;
  T* const log_sums = dself + lanes;
  T* const along = log_sums + lanes;  // out . dout
  T* const panel = along + lanes;
  UNROLL_ASSERT(workspace.size() >= panel - scores + 2 * prefix.size());
  // All that a tape holds, before the heads take parts of its columns.
  for (const matrix<const T>& m : {q, in.own.k, in.own.v, out}) detail::ask_for<2>(m);
  for (index_t g = 0; g < shape.kv_heads; ++g) {
    prefix.load(g, panel, seen);
    prefix.load_adjoint(panel + prefix.size(), to.dbefore, seen);
    seen.own_row = g * head;
    for (index_t j = g * group; j < (g + 1) * group; ++j)
      for (index_t i = 0, count = 0; i < n; i += count) {
        count = std::min(block, n - i);
        const matrix<const T> Q(q.data + j * head + i * q.stride, head, count, q.stride);
        const matrix<const T> O(out.data + j * head + i * out.stride, head, count, out.stride);
        const matrix<const T> dO(dout.data + j * head + i * dout.stride, head, count, dout.stride);
        const matrix<T> dQ(dq.data + j * head + i * dq.stride, head, count, dq.stride);
        const auto own_columns = [&](const auto& m) {
          return part(m, g * head, head, mask.first + i, count);
        };
        const detail::query_block_of_head<T> of_head{
            mask, i, prefix.keys, root, Q, own_columns(in.own.k), own_columns(in.own.v)};
        // Keys and values that no block of this head has read yet. Their columns lie far apart, and products
        // of few terms do not wait for them side by side.
        for (const matrix<const T>& m : {of_head.own_k, of_head.own_v}) detail::ask_for<1>(m);
        const detail::visible_lanes<T> visible(of_head, counts);
        const index_t L = of_head.lanes();
        const matrix<T> P(scores, L, visible.reach[visible.groups(L)]), dS(dscores, L, P.cols),
            Qt(queries, L, head), dOt(doutputs, L, head);
        detail::to_lanes<T>(Q, Qt);
        detail::to_lanes<T>(dO, dOt);
        simd::dispatch<detail::column_dots_kernel, const matrix<const T>&, const matrix<const T>&>(O, dO,
                                                                                                   along);
        for (index_t c = 0; c < P.rows; ++c)
          log_sums[c] = given.log_sum[j + (i + std::min(c, count - 1)) * shape.heads];
        std::fill(along + count, along + P.rows, T(0));
        seen.for_each(visible, L, [&](index_t at, index_t lane, matrix<const T> k, matrix<const T> v) {
          linalg::gemm<T>(op::none, rows_of(Qt, lane, L - lane), op::none, k, false,
                          part(P, lane, L - lane, at, k.cols));
          linalg::gemm<T>(op::none, rows_of(dOt, lane, L - lane), op::none, v, false,
                          part(dS, lane, L - lane, at, k.cols));
        });
        simd::dispatch<detail::softmax_vjp_kernel<T>, const detail::query_block_of_head<T>&,
                       const detail::visible_lanes<T>&, const matrix<const T>&, const T*, const T*,
                       const detail::block_scores<T>&, const detail::block_scores<T>&>(
            of_head, visible, dO, log_sums, along, {P, self}, {dS, dself});
        seen.for_each_adjoint(visible, L, [&](index_t at, index_t lane, matrix<T> dk, matrix<T> dv) {
          const index_t some = count - lane;
          if (dv.data)
            linalg::gemm<T>(op::none, columns_of(dO, lane, some), op::none, part(P, lane, some, at, dv.cols),
                            true, dv);
          if (dk.data)
            linalg::gemm<T>(op::none, columns_of(Q, lane, some), op::none, part(dS, lane, some, at, dk.cols),
                            true, dk);
        });
        const index_t m = of_head.first_memory();
        const auto memory = [&](const auto& x) { return columns_of(x, m, count - m); };
        if (down.dv.data) detail::add_scaled_columns<T>(self + m, memory(dO), memory(own_columns(down.dv)));
        if (down.dk.data) detail::add_scaled_columns<T>(dself + m, memory(Q), memory(own_columns(down.dk)));
        seen.for_each(visible, L, [&](index_t at, index_t lane, matrix<const T> k, matrix<const T>) {
          linalg::gemm<T>(op::none, k, op::transpose, part(dS, lane, count - lane, at, k.cols), at > 0,
                          columns_of(dQ, lane, count - lane));
        });
        detail::add_scaled_columns<T>(dself + m, memory(of_head.own_k), memory(dQ));
      }
    prefix.add(g, to.dbefore);
  }
}

#if defined(UNROLL_INSTANCE)
#define UNROLL_ATTENTION_OF(T)                                                                      \
  UNROLL_INSTANCE void attention<T>(const attention_inputs<T>&, matrix<T>, T*, view<T>);            \
  UNROLL_INSTANCE void attention_vjp<T>(const attention_inputs<T>&, const attention_cotangents<T>&, \
                                        const attention_adjoints<T>&, view<T>);
UNROLL_ATTENTION_OF(float)
UNROLL_ATTENTION_OF(double)
#undef UNROLL_ATTENTION_OF
#endif

}  // namespace unroll::kernels
