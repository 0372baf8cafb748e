#pragma once

#include <array>

#include "unroll/core/arena.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/llama/pass.hpp"

// The memory of a pass: what a tape and a workspace hold, and how large they are. Sizes need no weights.
namespace unroll::llama {

/// What a layer computes and its vjp needs, beside the layer's input. n tokens have keys and values, m of
/// them queries and outputs: all, but in the last layer of a pass with outputs_from.
template <class A, class P>
struct layer_activations {
  matrix<P> rstd;      ///< of the attention's norm, n
  matrix<A> q, kv;     ///< rotated queries, query_width x m; rotated keys over values, 2 kv_width x n
  matrix<A> mixed;     ///< the attention's output, query_width x m
  matrix<P> log_sum;   ///< of its softmax, heads x m
  matrix<A> mid;       ///< h, the input of the second norm, hidden x m
  matrix<P> rstd_mid;  ///< of the second norm, m
  matrix<A> gated;     ///< gate over up, 2 intermediate_size x m
};

/// The same, to be read only.
template <class A, class P>
layer_activations<const A, const P> constant(const layer_activations<A, P>& s) {
  return {s.rstd, s.q, s.kv, s.mixed, s.log_sum, s.mid, s.rstd_mid, s.gated};
}

/// The workspace of a forward pass and of its vjp.
template <class A, class P>
struct pass_workspace {
  matrix<A> normed, hidden;    ///< hidden x tokens, intermediate_size x tokens
  matrix<A> picked, tail;      ///< hidden x outputs: columns of wanted outputs; null where no copy is needed
  view<A> adapter, attention;  ///< workspaces of these operations
  P* rstd = nullptr;           ///< one a token
  matrix<A> dnormed, dqkv, dmixed, dgated, dpicked;  ///< of the vjp, shaped as what they are cotangents of
  std::array<matrix<A>, 2> before;   ///< a layer each of blocks on the host, 2 kv_width keys x blocks
  std::array<matrix<P>, 2> dbefore;  ///< of the vjp: their adjoints
};

/// Sizes of tapes and workspaces of a transformer<E>, in numbers of its activations.
template <class E>
class transformer_sizes {
  using A = typename E::numbers::activation;
  using P = typename E::numbers::accumulator;

 public:
  explicit transformer_sizes(const config& c) : shape_(c) {}

  const config& shape() const { return shape_; }
  /// Of attention.
  kernels::attention_shape heads() const { return {shape_.heads, shape_.kv_heads, shape_.head_dim}; }
  /// Numbers of queries, keys and values of a token.
  index_t qkv_width() const { return shape_.query_width() + 2 * shape_.kv_width(); }

  /// Numbers that a tape of this pass holds.
  index_t tape_size(const pass_size& p) const {
    const index_t layers =
        p.layers == 0 ? 0 : (p.layers - 1) * layer_tape(p, 0) + layer_tape(p, p.layers - 1);
    return layers + (p.layers < shape_.layers ? arena<A>::rounded(shape_.hidden * p.outputs()) : 0);
  }
  /// Numbers that forward needs to work in, and, if `with_vjp`, vjp.
  index_t workspace_size(const pass_size& p, bool with_vjp = true) const {
    arena<A> forward, backward;
    cut_workspace(forward, p, false);
    cut_activations(forward, p, 0);
    if (!with_vjp) return forward.used();
    cut_workspace(backward, p, true);
    if (p.keep == saved::inputs) cut_activations(backward, p, 0);
    return std::max(forward.used(), backward.used());
  }

  /// Where the tape of a layer, or of what is behind the last, begins.
  index_t tape_start(const pass_size& p, index_t layer) const {
    return layer == p.layers && layer > 0 ? (layer - 1) * layer_tape(p, 0) + layer_tape(p, layer - 1)
                                          : layer * layer_tape(p, 0);
  }
  /// Numbers of a layer's tape.
  index_t layer_tape(const pass_size& p, index_t layer) const {
    arena<A> c;
    c.cut(shape_.hidden, p.tokens());
    if (p.keep == saved::activations) cut_activations(c, p, layer);
    return c.used();
  }

  /// `U` is A, or const A where a tape is read.
  template <class U>
  auto cut_activations(arena<U>& c, const pass_size& p, index_t layer) const {
    using S = std::conditional_t<std::is_const_v<U>, const P, P>;
    const bool part = p.outputs_from > 0 && layer == p.layers - 1;
    const index_t n = p.tokens(), m = part ? p.outputs() : n, q = shape_.query_width();
    layer_activations<U, S> s;
    s.rstd = c.template cut_as<S>(n);
    if (part) {
      s.q = c.cut(q, m);
      s.kv = c.cut(qkv_width() - q, n);
    } else {  // one matrix, the result of one product
      const matrix<U> qkv = c.cut(qkv_width(), n);
      s.q = rows_of(qkv, 0, q);
      s.kv = rows_of(qkv, q, qkv_width() - q);
    }
    s.mixed = c.cut(q, m);
    s.log_sum = c.template cut_as<S>(shape_.heads, m);
    s.mid = c.cut(shape_.hidden, m);
    s.rstd_mid = c.template cut_as<S>(m);
    s.gated = c.cut(2 * shape_.intermediate_size, m);
    return s;
  }
  /// The workspace of a forward pass, with `vjp` also of its vjp.
  pass_workspace<A, P> cut_workspace(arena<A>& c, const pass_size& p, bool vjp) const {
    const index_t n = p.tokens();
    pass_workspace<A, P> t;
    t.normed = c.cut(shape_.hidden, n);
    t.hidden = c.cut(shape_.intermediate_size, n);
    if (p.sequences > 1 && p.outputs_from > 0) {
      t.picked = c.cut(shape_.hidden, p.outputs());
      t.tail = c.cut(shape_.hidden, p.outputs());
    }
    t.adapter = c.cut_flat(std::max({E::adapter_workspace(adapted_width(), n, vjp),
                                     E::adapters_workspace(shape_.hidden, adapted_output(), n, vjp)}));
    t.rstd = c.template cut_as<P>(n).data;
    t.attention = c.cut_flat(E::attention_workspace(heads(), {p.sequences, p.length, p.blocks, p.keys, vjp}));
    const index_t block = p.blocks_on_host ? 2 * shape_.kv_width() * p.keys : 0;
    for (auto& w : t.before) w = c.cut(block, p.blocks);
    if (!vjp) return t;
    for (auto& w : t.dbefore) w = c.template cut_as<P>(block, p.blocks);
    t.dnormed = c.cut(shape_.hidden, n);
    t.dqkv = c.cut(qkv_width(), n);
    t.dmixed = c.cut(shape_.query_width(), n);
    t.dgated = c.cut(2 * shape_.intermediate_size, n);
    if (t.picked.cols > 0) t.dpicked = c.cut(shape_.hidden, p.outputs());
    return t;
  }

 private:
  /// Inputs and outputs of the widest matrix that an adapter can sit on.
  index_t adapted_width() const {
    return shape_.hidden + std::max({shape_.intermediate_size, shape_.query_width(), shape_.kv_width()});
  }

  /// Outputs of the widest matrix among those that take the same inputs.
  index_t adapted_output() const {
    return std::max({shape_.intermediate_size, shape_.query_width(), shape_.kv_width()});
  }

  config shape_;
};

}  // namespace unroll::llama
