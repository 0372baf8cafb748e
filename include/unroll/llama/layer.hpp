#pragma once

#include "unroll/llama/layered_prefix.hpp"
#include "unroll/llama/lora_product.hpp"
#include "unroll/llama/transformer_sizes.hpp"
#include "unroll/llama/weights.hpp"

namespace unroll::llama {

/// Where the vjp of a pass adds gradients; null: not wanted.
template <class P>
struct wanted_gradients {
  std::span<P* const> before = {};  ///< of the prefix: one a block, laid out as the block; empty: of none
  P* weights = nullptr;             ///< of the frozen model, as weight_map lays it out
  P* adapters = nullptr;            ///< of the adapters, as their lora_map lays them out
  bool inputs = false;              ///< whether the cotangent of the pass's inputs is wanted
  index_t inputs_from = 0;  ///< first token of a sequence of which it is; without gradients of weights only
};

/// Layer i of a pass and its vjp: the equations of transformer.hpp, as operations of the executor. A view of
/// all it needs, made for one call. x, h and their cotangents are hidden x tokens.
template <class E>
class layer {
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;
  using activations = layer_activations<A, P>;
  using saved_activations = layer_activations<const A, const P>;

 public:
  const E& e;                         ///< whose operations it takes
  const transformer_sizes<E>& sizes;  ///< sizes
  const weight_map& map;
  const kernels::rotary_table<P>& table;  ///< cosines and sines of the positions
  const W* w;                             ///< weights, map.size() numbers
  adapters<P> a;
  const pass<M>& p;                 ///< of which tokens, at which positions
  const pass_workspace<A, P>& t;    ///< where temporaries lie
  const layered_prefix<E>& before;  ///< what attention sees in front of the tokens
  index_t i;                        ///< number of the layer

  /// The columns of wanted outputs of m, hidden x tokens, side by side: m itself, a part of it, or a copy in
  /// `to`, hidden x outputs.
  matrix<A> outputs(matrix<A> m, matrix<A> to) const {
    if (p.outputs_from == 0) return m;
    const index_t n = p.length - p.outputs_from;
    if (p.sequences == 1) return columns_of(m, p.outputs_from, n);
    for (index_t b = 0; b < p.sequences; ++b)
      e.copy(columns_of(m, b * p.length + p.outputs_from, n), columns_of(to, b * n, n));
    return to;
  }
  /// The inverse: `from`, hidden x outputs, back into the columns of m, hidden x tokens, where it is a copy.
  void put_outputs(matrix<A> from, matrix<A> m) const {
    if (p.outputs_from == 0 || p.sequences == 1) return;
    const index_t n = p.length - p.outputs_from;
    for (index_t b = 0; b < p.sequences; ++b)
      e.copy(columns_of(from, b * n, n), columns_of(m, b * p.length + p.outputs_from, n));
  }

  /// From x, the layer's inputs, hidden x tokens, the queries, keys and values, and the attention's output.
  template <class Hook>
  void attend(matrix<const A> x, const activations& s, Hook& hook) const {
    norm(at().attention_norm, x, t.normed, s.rstd.data);
    const bool pick = hooked<Hook> || part();
    const matrix<A> normed = pick ? outputs(t.normed, t.picked) : t.normed;
    if (part()) {
      product(op::transpose, at().q, hidden(), q_width(), normed, false, s.q);
      product(op::transpose, at().k, hidden(), 2 * kv_width(), t.normed, false, s.kv);
    } else {
      product(op::transpose, at().q, hidden(), sizes.qkv_width(), t.normed, false, all(s.q));
    }
    hook.normed(i, matrix<const A>(normed));  // here, since it may use the weights that were just read
    const std::pair k(layer_matrix::k, keys(s.kv)), v(layer_matrix::v, values(s.kv));
    if (part()) {
      adapt(layer_matrix::q, normed, s.q);
      lora().add_all(std::array{k, v}, t.normed);
    } else {
      lora().add_all(std::array{std::pair(layer_matrix::q, s.q), k, v}, t.normed);
    }
    rotate(kernels::turn::forward, s.q, s.kv);
    hook.keys(i, matrix<const A>(keys(s.kv)), matrix<const A>(values(s.kv)));
    e.attention(call(s), s.mixed, s.log_sum.data, t.attention);
  }
  /// h += W_O' mixed; h: on entry the inputs at the tokens whose outputs are computed, hidden x outputs.
  void project(const activations& s, matrix<A> h) const {
    product(op::transpose, at().o, q_width(), hidden(), s.mixed, true, h);
    adapt(layer_matrix::o, s.mixed, h);
  }
  /// The second norm of h, hidden x outputs, and gate over up.
  void gate(matrix<const A> h, const activations& s) const {
    const matrix<A> normed = columns_of(t.normed, 0, h.cols);
    norm(at().mlp_norm, h, normed, s.rstd_mid.data);
    product(op::transpose, at().gate, hidden(), 2 * intermediate_size(), normed, false, s.gated);
    lora().add_all(
        std::array{std::pair(layer_matrix::gate, rows_of(s.gated, 0, intermediate_size())),
                   std::pair(layer_matrix::up, rows_of(s.gated, intermediate_size(), intermediate_size()))},
        normed);
  }
  /// h, hidden x outputs, += W_D' (up silu(gate)).
  void feed(const activations& s, matrix<A> h) const {
    const matrix<A> active = columns_of(t.hidden, 0, h.cols);
    e.swiglu(matrix<const A>(s.gated), active);
    product(op::transpose, at().down, intermediate_size(), hidden(), active, true, h);
    adapt(layer_matrix::down, active, h);
  }

  /// dh, hidden x outputs: on entry the cotangent of the layer's outputs, on return that of h.
  void mlp_vjp(const saved_activations& s, matrix<A> dh, const wanted_gradients<P>& want) const {
    P* const dw = want.weights;
    const index_t n = dh.cols;
    const matrix<A> active = columns_of(t.hidden, 0, n), normed = columns_of(t.normed, 0, n);
    const matrix<A> dnormed = columns_of(t.dnormed, 0, n), dgated = columns_of(t.dgated, 0, n);
    const matrix<A> dactive = rows_of(dgated, intermediate_size(), intermediate_size());
    if (dw || adapted(layer_matrix::down, want)) e.swiglu(s.gated, active);
    if (dw) outer(active, dh, dw + at().down);
    product(op::none, at().down, intermediate_size(), hidden(), dh, false, dactive);
    adapt_vjp(layer_matrix::down, active, dh, dactive, want);
    e.swiglu_vjp(s.gated, matrix<const A>(dactive), dgated);
    if (dw || adapted(layer_matrix::gate, want) || adapted(layer_matrix::up, want))
      norm(at().mlp_norm, s.mid, normed, t.rstd);
    if (dw) outer(normed, dgated, dw + at().gate);
    product(op::none, at().gate, hidden(), 2 * intermediate_size(), dgated, false, dnormed);
    adapt_all_vjp(std::array{adjoint_of(layer_matrix::gate, rows_of(dgated, 0, intermediate_size())),
                             adjoint_of(layer_matrix::up, dactive)},
                  normed, dnormed, want);
    e.rmsnorm_vjp(s.mid, w + at().mlp_norm, s.rstd_mid.data, matrix<const A>(dnormed), dh,
                  dw ? dw + at().mlp_norm : nullptr);
  }

  /// dh, hidden x outputs: the cotangent of h. dx, hidden x tokens, of which dh may be a part: on return the
  /// cotangent of x at the tokens [from, length) of every sequence. Where from is not 0 no weights are wanted
  /// and all outputs are; where it is length, nothing below this layer is wanted.
  template <class Hook>
  void attention_vjp(matrix<const A> x, const saved_activations& s, matrix<A> dx, matrix<A> dh,
                     const wanted_gradients<P>& want, index_t from, Hook& hook) const {
    const bool below = from < p.length;
    P* const dw = want.weights;
    const matrix<A> dmixed = columns_of(t.dmixed, 0, dh.cols);
    if (dw) outer(s.mixed, dh, dw + at().o);
    product(op::none, at().o, q_width(), hidden(), dh, false, dmixed);
    adapt_vjp(layer_matrix::o, s.mixed, dh, dmixed, want);

    const matrix<A> dq = part() ? matrix<A>(t.dqkv.data, q_width(), dh.cols) : rows_of(t.dqkv, 0, q_width());
    const matrix<A> dkv = part() ? matrix<A>(t.dqkv.data + q_width() * dh.cols, 2 * kv_width(), x.cols)
                                 : rows_of(t.dqkv, q_width(), 2 * kv_width());
    kernels::attention_cut cut = p.cut;
    cut.draws = fold(cut.draws, std::uint64_t(i));
    e.attention_vjp(call(s),
                    {s.mixed, s.log_sum.data, dmixed, dq, keys(dkv), values(dkv), before.adjoints(i), cut},
                    t.attention);
    rotate(kernels::turn::back, dq, dkv);

    if (dw || want.adapters) norm(at().attention_norm, x, t.normed, t.rstd);
    const matrix<A> normed = part() && (dw || want.adapters) ? outputs(t.normed, t.picked) : t.normed;
    if (dw && part()) {
      outer(normed, dq, dw + at().q);
      outer(t.normed, dkv, dw + at().k);
    } else if (dw) {
      outer(t.normed, t.dqkv, dw + at().q);
    }
    const matrix<A> dnormed = below ? t.dnormed : matrix<A>();
    if (below && part())
      product(op::none, at().k, hidden(), 2 * kv_width(), dkv, false, dnormed);
    else
      for_tokens(from, [&](index_t first, index_t n) {
        product(op::none, at().q, hidden(), sizes.qkv_width(), columns_of(t.dqkv, first, n), false,
                columns_of(dnormed, first, n));
      });
    const auto dk = adjoint_of(layer_matrix::k, keys(dkv)), dv = adjoint_of(layer_matrix::v, values(dkv));
    if (part()) {
      query_vjp(normed, dq, dnormed, want);
      adapt_all_vjp(std::array{dk, dv}, t.normed, dnormed, want, from);
    } else {
      adapt_all_vjp(std::array{adjoint_of(layer_matrix::q, dq), dk, dv}, normed, dnormed, want, from);
    }
    if (!below) return;
    if constexpr (hooked<Hook>) {
      const matrix<A> seen = outputs(dnormed, t.picked);
      hook.dnormed(i, seen);
      put_outputs(seen, dnormed);
    }
    if (part()) {
      put_outputs(dh, dx);
      for (index_t b = 0; b < p.sequences; ++b) e.fill(columns_of(dx, b * p.length, p.outputs_from), 0);
    }
    for_tokens(from, [&](index_t first, index_t n) {
      const auto own = [&](const auto& m) { return columns_of(m, first, n); };
      e.rmsnorm_vjp(own(x), w + at().attention_norm, s.rstd.data + first, matrix<const A>(own(dnormed)),
                    own(dx), dw ? dw + at().attention_norm : nullptr);
    });
  }

  /// Whether the hook does anything.
  template <class Hook>
  static constexpr bool hooked = !std::is_same_v<std::remove_cvref_t<Hook>, no_hook>;
  /// y = rmsnorm(x), both hidden x tokens; gain: offset of the gains; rstd: one a token, or null.
  void norm(index_t gain, matrix<const A> x, matrix<A> y, P* rstd) const {
    e.rmsnorm(x, w + gain, sizes.shape().norm_epsilon, y, rstd);
  }

 private:
  const weight_map::layer& at() const { return map[i]; }
  bool part() const { return p.outputs_from > 0 && i == p.layers - 1; }
  index_t hidden() const { return sizes.shape().hidden; }
  index_t intermediate_size() const { return sizes.shape().intermediate_size; }
  index_t q_width() const { return sizes.shape().query_width(); }
  index_t kv_width() const { return sizes.shape().kv_width(); }
  /// The halves of kv, 2 kv_width x tokens.
  template <class U>
  matrix<U> keys(matrix<U> kv) const {
    return rows_of(kv, 0, kv_width());
  }
  template <class U>
  matrix<U> values(matrix<U> kv) const {
    return rows_of(kv, kv_width(), kv_width());
  }
  /// The matrix, qkv_width rows, whose first rows the queries q are, query_width x tokens.
  matrix<A> all(matrix<A> q) const { return {q.data, sizes.qkv_width(), q.cols, q.stride}; }

  /// y = [y +] op(W) x, with W, in x out, at the offset `weight`.
  void product(op o, index_t weight, index_t in, index_t out, matrix<const A> x, bool add,
               matrix<A> y) const {
    e.gemm(o, matrix<const W>(w + weight, in, out), op::none, x, add, y);
  }
  /// The gradient of a weight, in x out: d += x dy', with x in x tokens and dy out x tokens.
  void outer(matrix<const A> x, matrix<const A> dy, P* d) const {
    e.gemm(op::none, x, op::transpose, dy, true, matrix<P>(d, x.rows, dy.rows));
  }

  template <class U, class V>
  exec::attention_call<typename E::numbers> call(const layer_activations<U, V>& s) const {
    kernels::attention_mask mask = p.mask;
    if (part()) mask.first = p.outputs_from;
    return {sizes.heads(), mask, p.sequences, s.q, keys(s.kv), values(s.kv), before.at(i)};
  }
  /// Turns q, query_width x outputs, and the keys of kv, 2 kv_width x tokens.
  void rotate(kernels::turn way, matrix<A> q, matrix<A> kv) const {
    if (!part()) return e.rotary(way, table, p.positions, rows_of(all(q), 0, q_width() + kv_width()));
    e.rotary(way, table, p.positions, keys(kv));
    const bool shared = index_t(p.positions.size()) == p.length;
    const index_t n = p.length - p.outputs_from;
    for (index_t b = 0; b < (shared ? 1 : p.sequences); ++b)
      e.rotary(way, table, p.positions.subspan(std::size_t(b * p.length + p.outputs_from), std::size_t(n)),
               shared ? q : columns_of(q, b * n, n));
  }
  /// dnormed, hidden x tokens, += W_Q dq at the tokens that have queries, and what the adapter adds. normed:
  /// hidden x outputs, dq: query_width x outputs.
  void query_vjp(matrix<A> normed, matrix<A> dq, matrix<A> dnormed, const wanted_gradients<P>& want) const {
    const matrix<A> seen = dnormed.data ? outputs(dnormed, t.dpicked) : matrix<A>();
    if (seen.data) product(op::none, at().q, hidden(), q_width(), dq, true, seen);
    adapt_vjp(layer_matrix::q, normed, dq, seen, want);
    if (seen.data) put_outputs(seen, dnormed);
  }

  bool adapted(layer_matrix m, const wanted_gradients<P>& want) const {
    return want.adapters && lora().has(m);
  }
  lora_product<E> lora() const { return {e, a, i, t.adapter}; }
  /// What the adapter of m, in x out, adds; x, dx: in x tokens, y, dy: out x tokens.
  void adapt(layer_matrix m, matrix<const A> x, matrix<A> y) const { lora().add(m, x, y); }
  void adapt_vjp(layer_matrix m, matrix<const A> x, matrix<const A> dy, matrix<A> dx,
                 const wanted_gradients<P>& want) const {
    lora().add_vjp(m, x, dy, dx, want.adapters, p.sequences);
  }
  /// A matrix and the cotangent of what its adapter adds to, out x tokens.
  static std::pair<layer_matrix, matrix<const A>> adjoint_of(layer_matrix m, matrix<const A> dy) {
    return {m, dy};
  }
  /// The same of matrices with one x. dx is that of the tokens [from, length) of every sequence.
  template <std::size_t n>
  void adapt_all_vjp(std::array<std::pair<layer_matrix, matrix<const A>>, n> of, matrix<const A> x,
                     matrix<A> dx, const wanted_gradients<P>& want, index_t from = 0) const {
    lora().add_all_vjp(of, x, from == 0 ? dx : matrix<A>(), want.adapters, p.sequences);
    if (from > 0)
      for_tokens(from, [&](index_t first, index_t count) {
        auto part = of;
        for (auto& [m, dy] : part) dy = columns_of(dy, first, count);
        lora().add_all_vjp(part, columns_of(x, first, count), columns_of(dx, first, count), nullptr, 1);
      });
  }
  /// f(first column, columns) for the tokens [from, length) of every sequence, all at once where from is 0.
  template <class F>
  void for_tokens(index_t from, F&& f) const {
    if (from == 0) return f(index_t{0}, p.tokens());
    for (index_t b = 0; from < p.length && b < p.sequences; ++b) f(b * p.length + from, p.length - from);
  }
};

}  // namespace unroll::llama
