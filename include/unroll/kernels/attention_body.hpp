#pragma once

#include "unroll/kernels/attention_shape.hpp"
#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

// Attention without tensor cores, for any head of up to 32 E numbers: a warp has one query of one head, or
// one key of one key-value head; lane l has the numbers l, l + 32, ... of a head. All sums are float and in a
// fixed order.
namespace unroll::kernels {

/// The arguments that forward and vjp have in common: `sequences` sequences of k.cols / sequences tokens, one
/// behind the other in the columns; the queries are those of their tokens from mask.first on. All pointers
/// lie at the device's place.
template <class T>
struct attention_operands {
  attention_shape shape;
  attention_mask mask;
  index_t sequences;
  matrix<const T> q;       ///< query_width x queries
  matrix<const T> k, v;    ///< kv_width x tokens
  const T* const* blocks;  ///< of the prefix, see key_prefix
  index_t key_offset, value_offset;
  const prefix_range* ranges;  ///< one a sequence; null: every sequence sees `all`
  prefix_range all;

  UNROLL_HD index_t length() const { return k.cols / sequences; }
  UNROLL_HD index_t queries() const { return q.cols / sequences; }
  UNROLL_HD prefix_range range(index_t sequence) const { return ranges ? ranges[sequence] : all; }
  UNROLL_HD index_t group() const { return shape.heads / shape.kv_heads; }
  UNROLL_HD float root() const { return 1.f / sqrtf(float(shape.head_dim)); }

  /// f(k, v) of key-value head g for every key that query i of the sequence sees.
  template <class F>
  UNROLL_HD void for_keys(index_t sequence, index_t i, index_t g, F&& f) const {
    const prefix_range seen = range(sequence);
    for (index_t b = seen.first; b < seen.first + seen.blocks; ++b)
      for (index_t t = 0; t < seen.keys; ++t) {
        const T* const at = blocks[b] + t * shape.kv_width() + g * shape.head_dim;
        f(at + key_offset, at + value_offset);
      }
    const auto own = [&](index_t t) {
      const index_t column = sequence * length() + t;
      f(k.data + g * shape.head_dim + column * k.stride, v.data + g * shape.head_dim + column * v.stride);
    };
    const index_t visible = mask.visible(i);
    for (index_t t = 0; t < visible; ++t) own(t);
    if (mask.memory_token(i)) own(mask.first + i);
  }
};

/// out_i = sum_t p_ti v_t,  p_ti = exp(s_ti - log_sum_i),  s_ti = k_t . q_i / sqrt(head_dim), by the online
/// softmax. out: query_width x queries; log_sum: heads x queries, may be null.
template <class T, int E>
struct attention_body {
  attention_operands<T> on;
  matrix<T> out;
  float* log_sum;

  static constexpr int threads = 128;
  UNROLL_HD index_t blocks() const { return ceil_div(on.shape.heads * on.q.cols, threads / 32); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.warps([&](const auto& w) {
      const index_t task = c.block() * (threads / 32) + w.index();
      if (task >= on.shape.heads * on.q.cols) return;
      const index_t j = task % on.shape.heads, column = task / on.shape.heads, head = on.shape.head_dim;
      auto q = w.template fragment<float, E>();
      auto sum = w.template fragment<float, E>();
      auto score = w.template fragment<float, 1>();
      auto most = w.template fragment<float, 1>();
      auto mass = w.template fragment<float, 1>();
      const float root = on.root();
      w.lanes([&](int l) {
        UNROLL_UNROLLED
        for (int e = 0; e < E; ++e) {
          const index_t r = l + 32 * e;
          q(l, e) = r < head ? float(on.q.data[j * head + r + column * on.q.stride]) * root : 0.f;
          sum(l, e) = 0;
        }
        most(l, 0) = -INFINITY;
        mass(l, 0) = 0;
      });
      on.for_keys(column / on.queries(), column % on.queries(), j / on.group(), [&](const T* k, const T* v) {
        w.lanes([&](int l) {
          float s = 0;
          UNROLL_UNROLLED
          for (int e = 0; e < E; ++e)
            if (l + 32 * e < head) s = fmaf(q(l, e), float(k[l + 32 * e]), s);
          score(l, 0) = s;
        });
        w.sum(score);
        w.lanes([&](int l) {
          const float s = score(l, 0), largest = most(l, 0) < s ? s : most(l, 0);
          const float kept = math::exp(most(l, 0) - largest), p = math::exp(s - largest);
          most(l, 0) = largest;
          mass(l, 0) = fmaf(mass(l, 0), kept, p);
          UNROLL_UNROLLED
          for (int e = 0; e < E; ++e)
            if (l + 32 * e < head) sum(l, e) = fmaf(sum(l, e), kept, p * float(v[l + 32 * e]));
        });
      });
      w.lanes([&](int l) {
        const float share = 1.f / mass(l, 0);
        UNROLL_UNROLLED
        for (int e = 0; e < E; ++e)
          if (l + 32 * e < head) out.data[j * head + l + 32 * e + column * out.stride] = T(sum(l, e) * share);
        if (l == 0 && log_sum) log_sum[j + column * on.shape.heads] = most(l, 0) + math::log(mass(l, 0));
      });
    });
  }
};

namespace detail {

/// Head j of a query, which is a column: its numbers, and what the vjp is given of it.
template <class T>
struct query_of_head {
  const T *q, *out, *dout;
  const float* log_sum;

  UNROLL_HD query_of_head(const attention_operands<T>& on, const attention_cotangents<T, float>& d, index_t j,
                          index_t column)
      : q(on.q.data + j * on.shape.head_dim + column * on.q.stride),
        out(d.out.data + j * on.shape.head_dim + column * d.out.stride),
        dout(d.dout.data + j * on.shape.head_dim + column * d.dout.stride),
        log_sum(d.log_sum + j + column * on.shape.heads) {}
};

/// For key (k, v) and a query: p, and ds = p (v . dout - out . dout) / sqrt(head_dim), in all lanes.
template <class T, int E, class Warp, class Fragment>
UNROLL_HD void probability(const Warp& w, const attention_operands<T>& on, const query_of_head<T>& query,
                           const T* k, const T* v, Fragment& p) {
  w.lanes([&](int l) {
    float s = 0, dp = 0;
    UNROLL_UNROLLED
    for (int e = 0; e < E; ++e) {
      const index_t r = l + 32 * e;
      if (r >= on.shape.head_dim) continue;
      s = fmaf(float(query.q[r]), float(k[r]), s);
      dp = fmaf(float(query.dout[r]), float(v[r]) - float(query.out[r]), dp);
    }
    p(l, 0) = s;
    p(l, 1) = dp;
  });
  w.sum(p);
  w.lanes([&](int l) {
    const float root = on.root();
    p(l, 0) = math::exp(fmaf(p(l, 0), root, -*query.log_sum));
    p(l, 1) = p(l, 0) * p(l, 1) * root;
  });
}

}  // namespace detail

/// dq_i = sum_t ds_ti k_t; may be the memory of q or of dout where nothing else needs these any more.
template <class T, int E>
struct attention_dq_body {
  attention_operands<T> on;
  attention_cotangents<T, float> d;
  matrix<T> dq;

  static constexpr int threads = 128;
  UNROLL_HD index_t blocks() const { return ceil_div(on.shape.heads * on.q.cols, threads / 32); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.warps([&](const auto& w) {
      const index_t task = c.block() * (threads / 32) + w.index();
      if (task >= on.shape.heads * on.q.cols) return;
      const index_t j = task % on.shape.heads, column = task / on.shape.heads, head = on.shape.head_dim;
      auto sum = w.template fragment<float, E>();
      auto p = w.template fragment<float, 2>();
      w.lanes([&](int l) {
        UNROLL_UNROLLED
        for (int e = 0; e < E; ++e) sum(l, e) = 0;
      });
      const detail::query_of_head<T> query(on, d, j, column);
      on.for_keys(column / on.queries(), column % on.queries(), j / on.group(), [&](const T* k, const T* v) {
        detail::probability<T, E>(w, on, query, k, v, p);
        w.lanes([&](int l) {
          UNROLL_UNROLLED
          for (int e = 0; e < E; ++e)
            if (l + 32 * e < head) sum(l, e) = fmaf(p(l, 1), float(k[l + 32 * e]), sum(l, e));
        });
      });
      w.lanes([&](int l) {
        UNROLL_UNROLLED
        for (int e = 0; e < E; ++e)
          if (l + 32 * e < head) dq.data[j * head + l + 32 * e + column * dq.stride] = T(sum(l, e));
      });
    });
  }
};

namespace detail {

/// A key of key-value head g and its value, with the first query of its sequence that may see it.
template <class T>
struct key_of_head {
  index_t sequence, g, first;
  const T *k, *v;
};

/// Adds, over the query heads of key.g and the queries from key.first on for which see(i), in order, p dout
/// to dv and ds q to dk.
template <class T, int E, class Warp, class Fragment, class See>
UNROLL_HD void key_adjoint(const Warp& w, const attention_operands<T>& on,
                           const attention_cotangents<T, float>& d, const key_of_head<T>& key, Fragment& dk,
                           Fragment& dv, See&& see) {
  auto p = w.template fragment<float, 2>();
  w.lanes([&](int l) {
    UNROLL_UNROLLED
    for (int e = 0; e < E; ++e) dk(l, e) = dv(l, e) = 0;
  });
  for (index_t j = key.g * on.group(); j < (key.g + 1) * on.group(); ++j)
    for (index_t i = key.first; i < on.queries(); ++i) {
      if (!see(i)) continue;
      const query_of_head<T> query(on, d, j, key.sequence * on.queries() + i);
      probability<T, E>(w, on, query, key.k, key.v, p);
      w.lanes([&](int l) {
        UNROLL_UNROLLED
        for (int e = 0; e < E; ++e) {
          const index_t r = l + 32 * e;
          if (r >= on.shape.head_dim) continue;
          dk(l, e) = fmaf(p(l, 1), float(query.q[r]), dk(l, e));
          dv(l, e) = fmaf(p(l, 0), float(query.dout[r]), dv(l, e));
        }
      });
    }
}

}  // namespace detail

/// dk_t = sum_i ds_ti q_i and dv_t = sum_i p_ti dout_i of the sequences' own keys: kv_width x tokens each.
template <class T, int E>
struct attention_dkv_body {
  attention_operands<T> on;
  attention_cotangents<T, float> d;
  matrix<T> dk, dv;

  static constexpr int threads = 128;
  UNROLL_HD index_t blocks() const { return ceil_div(on.shape.kv_heads * on.k.cols, threads / 32); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.warps([&](const auto& w) {
      const index_t task = c.block() * (threads / 32) + w.index();
      if (task >= on.shape.kv_heads * on.k.cols) return;
      const index_t g = task % on.shape.kv_heads, column = task / on.shape.kv_heads, head = on.shape.head_dim;
      const index_t t = column % on.length();
      auto sum_k = w.template fragment<float, E>();
      auto sum_v = w.template fragment<float, E>();
      const detail::key_of_head<T> key{.sequence = column / on.length(),
                                       .g = g,
                                       .first = larger(0, t - on.mask.first),
                                       .k = on.k.data + g * head + column * on.k.stride,
                                       .v = on.v.data + g * head + column * on.v.stride};
      detail::key_adjoint<T, E>(w, on, d, key, sum_k, sum_v,
                                [&](index_t i) { return on.mask.first + i == t || t < on.mask.visible(i); });
      w.lanes([&](int l) {
        UNROLL_UNROLLED
        for (int e = 0; e < E; ++e) {
          const index_t r = l + 32 * e;
          if (r >= head) continue;
          dk.data[g * head + r + column * dk.stride] = T(sum_k(l, e));
          dv.data[g * head + r + column * dv.stride] = T(sum_v(l, e));
        }
      });
    });
  }
};

/// The same of the keys of the prefix, ADDED to dbefore (one address a block, laid out as the blocks; null:
/// not wanted), sequence by sequence. `keys`: columns of a block.
template <class T, int E, class P>
struct attention_prefix_vjp_body {
  attention_operands<T> on;
  attention_cotangents<T, float> d;
  P* const* dbefore;
  index_t prefix_blocks, keys;

  static constexpr int threads = 128;
  UNROLL_HD index_t tasks() const { return prefix_blocks * keys * on.shape.kv_heads; }
  UNROLL_HD index_t blocks() const { return ceil_div(tasks(), threads / 32); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.warps([&](const auto& w) {
      const index_t task = c.block() * (threads / 32) + w.index();
      if (task >= tasks()) return;
      const index_t g = task % on.shape.kv_heads, t = task / on.shape.kv_heads % keys;
      const index_t b = task / on.shape.kv_heads / keys, head = on.shape.head_dim;
      P* const to = dbefore[b];
      if (!to) return;
      const index_t at = t * on.shape.kv_width() + g * head;
      auto sum_k = w.template fragment<float, E>();
      auto sum_v = w.template fragment<float, E>();
      for (index_t s = 0; s < on.sequences; ++s) {
        const prefix_range seen = on.range(s);
        if (b < seen.first || b >= seen.first + seen.blocks || t >= seen.keys) continue;
        const detail::key_of_head<T> key{.sequence = s,
                                         .g = g,
                                         .first = 0,
                                         .k = on.blocks[b] + on.key_offset + at,
                                         .v = on.blocks[b] + on.value_offset + at};
        detail::key_adjoint<T, E>(w, on, d, key, sum_k, sum_v, [](index_t) { return true; });
        w.lanes([&](int l) {
          UNROLL_UNROLLED
          for (int e = 0; e < E; ++e) {
            const index_t r = l + 32 * e;
            if (r >= head) continue;
            to[on.key_offset + at + r] += sum_k(l, e);
            to[on.value_offset + at + r] += sum_v(l, e);
          }
        });
      }
    });
  }
};

}  // namespace unroll::kernels
