#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "unroll/core/arena.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/kernels/attention_scores.hpp"

namespace unroll::kernels {

namespace detail {

inline constexpr index_t query_block = 48;  // queries of a head that are worked on together
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
  index_t own_row = 0;    // and in `own`
  index_t own_count = 0;  // the keys of `own` that any query of the block sees

  template <class U>
  matrix<U> of_head(const matrix<U>& m, index_t row, index_t count) const {
    return part(m, row, head, 0, count);
  }
  /// f(first score, k, v) for every block; the own keys come last, also where they are none.
  template <class F>
  void for_each(F&& f) const {
    index_t at = 0;
    for (const key_block<T>& b : before) {
      f(at, of_head(b.k, before_row, b.k.cols), of_head(b.v, before_row, b.k.cols));
      at += b.k.cols;
    }
    f(at, of_head(own.k, own_row, own_count), of_head(own.v, own_row, own_count));
  }
  /// f(first score, dk, dv) for every block whose adjoints are wanted.
  template <class F>
  void for_each_adjoint(F&& f) const {
    index_t at = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      const index_t count = before[i].k.cols;
      if (!dbefore.empty())
        f(at, of_head(dbefore[i].dk, before_row, count), of_head(dbefore[i].dv, before_row, count));
      at += count;
    }
    f(at, of_head(down.dk, own_row, own_count), of_head(down.dv, own_row, own_count));
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
  /// Numbers of `work` that one copy needs.
  index_t size() const { return packed ? 2 * head * keys : 0; }

  /// Makes `seen` look at head g of the blocks.
  void load(index_t g, T* work, visible_keys<T>& seen) {
    seen.before_row = g * head;
    seen.before = blocks;
    if (!packed) return;
    simd::dispatch<copy_kernel, const packed_prefix&>(*this, g * head, work);
    copy = {{work, head, keys}, {work + keys * head, head, keys}};
    seen.before = {&copy, 1};
    seen.before_row = 0;
  }
  /// The same for their adjoints, which start at 0 and are added to `to` by add().
  void load_adjoint(T* work, std::span<const key_block_adjoint<T>> to, visible_keys<T>& seen) {
    seen.dbefore = to;
    if (!packed || to.empty()) return;
    std::fill_n(work, size(), T(0));
    dcopy = {{work, head, keys}, {work + keys * head, head, keys}};
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

/// The next queries [first, first + count), all tokens or all memory tokens.
struct query_range {
  index_t first = 0, count = 0;
  static query_range from(index_t first, index_t queries, const attention_mask& mask) {
    index_t end = std::min(first + query_block, queries);
    if (mask.ordinals > mask.first + first) end = std::min(end, mask.ordinals - mask.first);
    return {first, end - first};
  }
};

/// x . y of few elements.
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
/// memory, 0.9 times in a cache.
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
      const T sum = linalg::detail::shifted_exp_on<Isa>(s, keys, most, root, s), share = 1 / sum;
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
/// in front with their adjoints, if they are in several blocks. Fewer queries never need more.
inline index_t attention_workspace(const attention_shape& shape, index_t tokens, index_t keys_before,
                                   index_t largest_block) {
  const index_t block = std::min(tokens, detail::query_block);
  const index_t copies =
      largest_block < keys_before && tokens >= detail::packed_from ? 4 * shape.head_dim * keys_before : 0;
  return (detail::score_stride(keys_before + tokens) + 1) * std::max(2 * block, shape.heads) + copies;
}

/// Attention of the n queries of one sequence over all keys of the blocks `before` and, under the mask, over
/// the keys of their own sequence, in every head j:
///   out_i = sum_t p_ti v_t,   p_ti = exp(k_t . q_i / sqrt(head_dim) - log_sum_i).
/// out is query_width x n; log_sum is heads x n and may be null. Scores are alive for one block of queries
/// only. The workspace has at least attention_workspace numbers. out overlaps none of the inputs. 4 head_dim
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
  const index_t block = std::min(n, detail::query_block), stride = detail::score_stride(prefix.keys + tokens);
  T* const scores = workspace.data();
  T* const self = scores + stride * block;  // of memory tokens: their own score, behind all others
  T* const share = self + block;            // 1 / sum of the exponentials
  T* const panel = share + block;
  UNROLL_ASSERT(workspace.size() >= (stride + 2) * block + prefix.size());
  for (index_t g = 0; g < shape.kv_heads; ++g) {
    prefix.load(g, panel, seen);
    seen.own_row = g * head;
    for (index_t j = g * group; j < (g + 1) * group; ++j)
      for (index_t i = 0; i < n;) {
        const index_t count = detail::query_range::from(i, n, mask).count;
        seen.own_count = mask.visible(i + count - 1);
        const index_t keys = prefix.keys + seen.own_count;
        const matrix<T> S(scores, keys, count, stride);
        const matrix<const T> Q(q.data + j * head + i * q.stride, head, count, q.stride);
        const matrix<T> O(out.data + j * head + i * out.stride, head, count, out.stride);
        const auto own_columns = [&](const auto& m) {
          return part(m, g * head, head, mask.first + i, count);
        };
        const detail::query_block_of_head<T> of_head{mask, i, prefix.keys,        keys,
                                                     root, Q, own_columns(own.k), own_columns(own.v)};
        seen.for_each([&](index_t at, matrix<const T> k, matrix<const T>) {
          linalg::gemm<T>(op::transpose, k, op::none, Q, false, rows_of(S, at, k.cols));
        });
        simd::dispatch<detail::softmax_kernel<T>, const detail::query_block_of_head<T>&, const matrix<T>&>(
            of_head, S, self, share, log_sum ? log_sum + j + i * shape.heads : nullptr, shape.heads);
        seen.for_each([&](index_t at, matrix<const T>, matrix<const T> v) {
          linalg::gemm<T>(op::none, v, op::none, rows_of(S, at, v.cols), at > 0, O);
        });
        simd::dispatch<detail::share_kernel<T>, const detail::query_block_of_head<T>&, const T*, const T*,
                       const matrix<T>&>(of_head, self, share, O);
        i += count;
      }
  }
}

/// The vjp of attention from its outputs `out` and `log_sum`: scores are computed once more. With
/// dp_ti = v_t . dout_i and ds_ti = p_ti (dp_ti - out_i . dout_i) / sqrt(head_dim),
///   dv_t += sum_i p_ti dout_i,   dk_t += sum_i ds_ti q_i,   dq_i = sum_t ds_ti k_t.
/// WRITES dq; ADDS to the adjoints of keys and values, where their data is not null. dq may be the memory of
/// q or of dout, else nothing overlaps. 10 head_dim multiplications and additions for every head and every
/// visible pair.
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
  const index_t block = std::min(n, detail::query_block), stride = detail::score_stride(prefix.keys + tokens);
  T* const scores = workspace.data();
  T* const dscores = scores + stride * block;
  T* const self = dscores + stride * block;
  T* const dself = self + block;
  T* const panel = dself + block;
  UNROLL_ASSERT(workspace.size() >= 2 * (stride + 1) * block + 2 * prefix.size());
  for (index_t g = 0; g < shape.kv_heads; ++g) {
    prefix.load(g, panel, seen);
    prefix.load_adjoint(panel + prefix.size(), to.dbefore, seen);
    seen.own_row = g * head;
    for (index_t j = g * group; j < (g + 1) * group; ++j)
      for (index_t i = 0; i < n;) {
        const index_t count = detail::query_range::from(i, n, mask).count;
        seen.own_count = mask.visible(i + count - 1);
        const index_t keys = prefix.keys + seen.own_count;
        const matrix<T> P(scores, keys, count, stride), dS(dscores, keys, count, stride);
        const matrix<const T> Q(q.data + j * head + i * q.stride, head, count, q.stride);
        const matrix<const T> O(out.data + j * head + i * out.stride, head, count, out.stride);
        const matrix<const T> dO(dout.data + j * head + i * dout.stride, head, count, dout.stride);
        const matrix<T> dQ(dq.data + j * head + i * dq.stride, head, count, dq.stride);
        const auto own_columns = [&](const auto& m) {
          return part(m, g * head, head, mask.first + i, count);
        };
        const detail::query_block_of_head<T> of_head{mask, i, prefix.keys,           keys,
                                                     root, Q, own_columns(in.own.k), own_columns(in.own.v)};
        seen.for_each([&](index_t at, matrix<const T> k, matrix<const T> v) {
          linalg::gemm<T>(op::transpose, k, op::none, Q, false, rows_of(P, at, k.cols));
          linalg::gemm<T>(op::transpose, v, op::none, dO, false, rows_of(dS, at, k.cols));
        });
        simd::dispatch<detail::softmax_vjp_kernel<T>, const detail::query_block_of_head<T>&,
                       const matrix<const T>&, const matrix<const T>&, const T*, index_t, const matrix<T>&,
                       const matrix<T>&>(of_head, O, dO, given.log_sum + j + i * shape.heads, shape.heads, P,
                                         dS, self, dself);
        seen.for_each_adjoint([&](index_t at, matrix<T> dk, matrix<T> dv) {
          if (dv.data) linalg::gemm<T>(op::none, dO, op::transpose, rows_of(P, at, dv.cols), true, dv);
          if (dk.data) linalg::gemm<T>(op::none, Q, op::transpose, rows_of(dS, at, dk.cols), true, dk);
        });
        const bool memory = of_head.memory();
        if (memory && down.dv.data) detail::add_scaled_columns<T>(self, dO, own_columns(down.dv));
        if (memory && down.dk.data) detail::add_scaled_columns<T>(dself, Q, own_columns(down.dk));
        seen.for_each([&](index_t at, matrix<const T> k, matrix<const T>) {
          linalg::gemm<T>(op::none, k, op::none, rows_of(dS, at, k.cols), at > 0, dQ);
        });
        if (memory) detail::add_scaled_columns<T>(dself, of_head.own_k, dQ);
        i += count;
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
