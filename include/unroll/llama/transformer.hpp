#pragma once

#include <memory>

#include "unroll/exec/of.hpp"
#include "unroll/llama/layer.hpp"
#include "unroll/llama/positions.hpp"

namespace unroll::llama {

/// The layers of a Llama (Touvron et al. 2023, arXiv 2302.13971), without embedding and output layer. x is
/// hidden x tokens. Layer i, with g its gains and without the adapters:
///
///   a = rmsnorm(x, g_1)    q, k, v = W_Q' a, W_K' a, W_V' a; q and k rotated by their positions
///   h = x + W_O' attention(q; keys and values before, k, v)
///   b = rmsnorm(h, g_2)    x <- h + W_D' (up * silu(gate)),   gate, up = W_G' b, W_U' b
///
/// The vjp is exact, also to adapters, to the prefix and to what hooks see. A product is over all tokens at
/// once; q, k, v are one product, and so are gate and up. With P weights in its layers, a pass takes 2 P
/// flops a token, its vjp 2 P, or 4 P with the gradients of the weights, and attention comes on top; with
/// saved::inputs the vjp takes another pass. Nothing allocates: the caller brings a tape of tape_size numbers
/// and a workspace of workspace_size.
///
/// X: an executor, or what exec::of makes one of (float, double, numbers<...>). Weights, tapes and all else
/// live at the executor's place. Gradients of adapters are added sequence by sequence: a pass over several
/// has the bits of as many passes. A copy shares everything.
template <class X>
class transformer final {
 public:
  using executor_type = exec::of<X>;
  using kinds = typename executor_type::numbers;  ///< of the numbers
  using W = typename kinds::weight;
  using A = typename kinds::activation;
  using M = typename kinds::memory;
  using P = typename kinds::parameter;

  explicit transformer(const config& c, executor_type e = executor_type{})
      : executor_(std::move(e)), parts_(std::make_shared<const parts>(c, executor_)) {}

  const executor_type& executor() const { return executor_; }
  const config& shape() const { return parts_->map.shape(); }
  const weight_map& map() const { return parts_->map; }
  const kernels::rotary<P>& rotary() const { return parts_->rotary; }  ///< cosines and sines, on the host
  /// The same at the executor's place.
  const kernels::rotary_table<P>& table() const { return parts_->table; }
  /// The positions first, first + 1, ..., n of them; valid while a copy of this lives. Throws unroll::error
  /// where one of them is outside the configuration's.
  std::span<const index_t> positions(index_t first, index_t n) const {
    const index_t all = shape().positions();
    if (first < 0 || n < 0 || first > all || n > all - first)
      fail("transformer::positions", "first",
           "is " + std::to_string(first) + " of " + std::to_string(n) + " tokens, there are " +
               std::to_string(all) + " positions");
    return parts_->consecutive.part(first, n);
  }
  /// All layers over one sequence of n tokens at the positions first, first + 1, ...
  pass<M> pass_over(index_t first, index_t n, prefix<M> before = {}) const {
    pass<M> p;
    p.length = n;
    p.layers = shape().layers;
    p.positions = positions(first, n);
    p.before = before;
    return p;
  }

  /// Sizes alone; no weights, no tables.
  const transformer_sizes<executor_type>& sizes() const { return parts_->sizes; }
  /// Activations that a tape of this pass holds.
  index_t tape_size(const pass_size& p) const { return sizes().tape_size(p); }
  /// Activations that a pass works in.
  index_t workspace_size(const pass_size& p, bool with_vjp = true) const {
    return sizes().workspace_size(p, with_vjp);
  }

  /// x, hidden x tokens: on entry the inputs of layer 0, on return the outputs of layer p.layers - 1 in the
  /// columns of wanted outputs. weights: map().size() numbers; workspace: workspace_size(p, false); tape:
  /// tape_size(p), or empty, which saves nothing and gives the same bits. Throws unroll::error on wrong sizes
  /// and on positions outside the table.
  template <class Hook = no_hook>
  void forward(const W* weights, adapters<P> a, const pass<M>& p, matrix<A> x, view<A> tape,
               view<A> workspace, Hook&& hook = {}) const {
    check_pass("transformer::forward", p, x, workspace.size(), workspace_size(p, false));
    if (!tape.empty()) check_at_least("transformer::forward", "tape", tape.size(), tape_size(p));
    arena<A> space(workspace);
    const auto t = sizes().cut_workspace(space, p, false);
    const bool all = !tape.empty() && p.keep == saved::activations;
    layered_prefix<executor_type> before(executor_, p.before, shape().kv_width(), {}, t, 0, p.layers - 1);
    for (index_t i = 0; i < p.layers; ++i) {
      before.enter(i);
      const auto l = layer_of(i, weights, a, p, t, before);
      arena<A> kept;
      if (!tape.empty()) {
        kept = arena<A>(tape.part(sizes().tape_start(p, i), sizes().layer_tape(p, i)));
        executor_.copy(x, kept.cut(x.rows, x.cols));
      }
      if (!all) kept = arena<A>(space.rest());
      const auto s = sizes().cut_activations(kept, p, i);
      l.attend(x, s, hook);
      const matrix<A> h = i == p.layers - 1 ? l.outputs(x, t.tail) : x;
      l.project(s, h);
      if (all) executor_.copy(h, s.mid);
      l.gate(h, s);
      l.feed(s, h);
      if (i == p.layers - 1) l.put_outputs(h, x);
    }
    if (p.layers == shape().layers) return;
    const auto top = layer_of(p.layers, weights, a, p, t, before);
    const matrix<A> h = top.outputs(x, t.tail);
    if (!tape.empty()) {
      arena<A> kept(rest(tape, sizes().tape_start(p, p.layers)));
      executor_.copy(h, kept.cut(h.rows, h.cols));
    }
    if constexpr (layer<executor_type>::template hooked<Hook>) {
      const matrix<A> normed = columns_of(t.normed, 0, h.cols);
      top.norm(map()[p.layers].attention_norm, h, normed, t.rstd);
      hook.normed(p.layers, matrix<const A>(normed));
    }
  }

  /// dx, hidden x tokens: on entry the cotangent of the outputs, of which the columns of wanted outputs are
  /// read; on return, if want.inputs, the cotangent of the inputs from token want.inputs_from of every
  /// sequence on, else nothing of use. ADDS to the gradients in `want`. The tape is that of a forward pass
  /// with the same arguments. Layers below the lowest one of which anything is wanted do not run, and their
  /// hooks are not called. weights: map().size() numbers; workspace: workspace_size(p).
  template <class Hook = no_hook>
  void vjp(const W* weights, adapters<P> a, const pass<M>& p, view<const A> tape, matrix<A> dx,
           wanted_gradients<P> want, view<A> workspace, Hook&& hook = {}) const {
    check_pass("transformer::vjp", p, dx, workspace.size(), workspace_size(p));
    check_at_least("transformer::vjp", "tape", tape.size(), tape_size(p));
    if (!want.before.empty())
      check_size("transformer::vjp", "want.before", index_t(want.before.size()),
                 index_t(p.before.blocks.size()));
    if (!a.map) want.adapters = nullptr;
    const index_t lowest = lowest_layer(a, p, want);
    if (lowest == p.layers && !want.inputs) return;
    arena<A> space(workspace);
    const auto t = sizes().cut_workspace(space, p, true);
    layered_prefix<executor_type> before(executor_, p.before, shape().kv_width(), want.before, t,
                                         p.layers - 1, lowest);
    const auto top = layer_of(p.layers, weights, a, p, t, before);
    const matrix<A> dh = top.outputs(dx, t.tail);
    if constexpr (layer<executor_type>::template hooked<Hook>)
      if (p.layers < shape().layers) {
        arena<const A> from(rest(tape, sizes().tape_start(p, p.layers)));
        const matrix<const A> h = from.cut(dh.rows, dh.cols);
        const index_t gain = map()[p.layers].attention_norm;
        const matrix<A> normed = columns_of(t.normed, 0, h.cols), dnormed = columns_of(t.dnormed, 0, h.cols);
        executor_.fill(dnormed, 0);
        hook.dnormed(p.layers, dnormed);
        top.norm(gain, h, normed, t.rstd);
        executor_.rmsnorm_vjp(h, weights + gain, t.rstd, matrix<const A>(dnormed), dh,
                              want.weights ? want.weights + gain : nullptr);
      }
    for (index_t i = p.layers - 1; i >= lowest; --i) {
      before.enter(i);
      const auto l = layer_of(i, weights, a, p, t, before);
      arena<const A> from(tape.part(sizes().tape_start(p, i), sizes().layer_tape(p, i)));
      const matrix<const A> x = from.cut(shape().hidden, p.tokens());
      layer_activations<const A, const P> s;
      if (p.keep == saved::activations)
        s = sizes().cut_activations(from, p, i);
      else
        s = constant(run_again(l, x, space.rest()));
      const matrix<A> d = i == p.layers - 1 ? dh : dx;
      l.mlp_vjp(s, d, want);
      const bool all_below = i > lowest || want.weights, part = i == p.layers - 1 && p.outputs_from > 0;
      const index_t first = !all_below && !want.inputs ? p.length : all_below || part ? 0 : want.inputs_from;
      l.attention_vjp(x, s, dx, d, want, first, hook);
    }
    before.leave();
  }

 private:
  struct parts {
    weight_map map;
    transformer_sizes<executor_type> sizes;
    kernels::rotary<P> rotary;
    typename executor_type::template block<P> uploaded;  // the table, at another place than the host
    kernels::rotary_table<P> table;
    consecutive_positions consecutive;

    parts(const config& c, const executor_type& e)
        : map(c), sizes(c), rotary(make_rotary<P>(c)), consecutive(c.positions()) {
      table = rotary.table();
      if constexpr (executor_type::where != place::host) {
        uploaded = e.template allocate<P>(table.positions * table.head_dim);
        e.upload(table.data, uploaded.size(), uploaded.data());
        e.synchronise();
        table.data = uploaded.data();
      }
    }
  };

  template <class U>
  static view<U> rest(view<U> v, index_t used) {
    return v.part(used, v.size() - used);
  }
  layer<executor_type> layer_of(index_t i, const W* weights, adapters<P> a, const pass<M>& p,
                                const pass_workspace<A, P>& t,
                                const layered_prefix<executor_type>& before) const {
    return {executor_, sizes(), map(), table(), weights, a, p, t, before, i};
  }
  /// The activations of a layer, computed again from its inputs x, hidden x tokens, in what is left of the
  /// workspace.
  layer_activations<A, P> run_again(const layer<executor_type>& l, matrix<const A> x,
                                    view<A> workspace) const {
    arena<A> space(workspace);
    const auto s = sizes().cut_activations(space, l.p, l.i);
    no_hook none;
    l.attend(x, s, none);
    const index_t skipped = s.mid.cols == x.cols ? 0 : l.p.outputs_from, n = l.p.length - skipped;
    for (index_t b = 0; b < l.p.sequences; ++b)
      executor_.copy(columns_of(x, b * l.p.length + skipped, n), columns_of(s.mid, b * n, n));
    l.project(s, s.mid);
    l.gate(s.mid, s);
    return s;
  }

  void check_pass(const char* function, const pass<M>& p, matrix<const A> x, index_t got,
                  index_t need) const {
    check_at_least(function, "sequences", p.sequences, 1);
    check_at_least(function, "layers", p.layers, 0);
    if (p.layers > shape().layers)
      fail(function, "layers",
           "are " + std::to_string(p.layers) + ", the model has " + std::to_string(shape().layers));
    if (index_t(p.positions.size()) != p.tokens())
      check_size(function, "positions", index_t(p.positions.size()), p.length);
    rotary().check_positions(function, p.positions);
    check_size(function, "x (rows)", x.rows, shape().hidden);
    check_size(function, "x (columns)", x.cols, p.tokens());
    if (p.outputs_from < 0 || (p.outputs_from > 0 && (p.outputs_from >= p.length || p.layers == 0)))
      fail(function, "outputs_from",
           "is " + std::to_string(p.outputs_from) + ", a sequence has " + std::to_string(p.length) +
               " tokens and the pass " + std::to_string(p.layers) + " layers");
    if (p.mask.first != 0) fail(function, "mask", "begins at " + std::to_string(p.mask.first));
    if (p.before.keys > p.before.capacity) fail(function, "before", "has more keys than its capacity");
    exec::check_offloading<executor_type>(function, p.before.on_host);
    if (p.before.on_host && p.before.keys != p.before.capacity)
      fail(function, "before",
           "has " + std::to_string(p.before.keys) + " keys and room for " +
               std::to_string(p.before.capacity) + ": blocks in memory of the host are full");
    if (!p.before.ranges.empty())
      check_size(function, "before.ranges", index_t(p.before.ranges.size()), p.sequences);
    for (const kernels::prefix_range& r : p.before.ranges)
      if (r.first < 0 || r.blocks < 0 || r.keys < 0 || r.keys > p.before.keys ||
          r.first + r.blocks > index_t(p.before.blocks.size()))
        fail(function, "before.ranges",
             "has blocks " + std::to_string(r.first) + " to " + std::to_string(r.first + r.blocks) +
                 " with " + std::to_string(r.keys) + " keys, there are " +
                 std::to_string(p.before.blocks.size()) + " with " + std::to_string(p.before.keys));
    check_at_least(function, "workspace", got, need);
  }

  index_t lowest_layer(adapters<P> a, const pass<M>& p, const wanted_gradients<P>& want) const {
    if (want.weights || want.inputs) return 0;
    for (P* d : want.before)
      if (d) return 0;
    if (want.adapters)
      for (index_t i = 0; i < p.layers; ++i)
        for (std::size_t m = 0; m < layer_matrix_names.size(); ++m)
          if (a.map->at(i, layer_matrix(m)).a >= 0) return i;
    return p.layers;
  }

  executor_type executor_;
  std::shared_ptr<const parts> parts_;
};

}  // namespace unroll::llama
