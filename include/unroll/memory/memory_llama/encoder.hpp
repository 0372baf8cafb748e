#pragma once

#include "unroll/llama/embedding.hpp"
#include "unroll/llama/transformer.hpp"
#include "unroll/memory/memory_llama/tables.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll::llama {

/// What writes the memories of a memory_llama: m_s = (K_0, V_0, ..., K_{L-1}, V_{L-1}), and in the vjp
/// A_s dm_s/dtheta of the gradient (UIO-LLMs, arXiv 2406.18173, equation 5, with A_s = sum_{t>s} dJ_t/dm_s).
///
/// The frozen Llama with adapters runs its layers 0 .. L-2 over [the l tokens of a segment | M `<mem>`]. A
/// hook takes h_i, the normed input of the attention of layer i at the `<mem>` tokens, hidden x M, and sends
/// it through the transfer head as soon as it is there. n segments s .. s + n - 1 are one pass of n
/// sequences, of which sequence b is segment s + n - 1 - b, so that gradients are added in the order of one
/// by one.
///
/// A view of all it needs, made for one call.
template <class X>
class memory_encoder {
  using E = exec::of<X>;
  using numbers = typename E::numbers;
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

 public:
  const transformer<X>& stack;
  const memory_tables<E>& tables;  ///< sizes and positions
  const W* weights;                ///< stack.map().size() numbers

  /// The pass that writes the segments s .. s + n - 1; past: what recurrent memories are written behind.
  pass<M> pass_of(index_t s, index_t n, prefix<M> past) const {
    pass<M> p;
    p.sequences = n;
    p.length = options().segment + memory_tokens();
    p.layers = stack.shape().layers - 1;
    p.positions = tables.encoder_positions_of(s);
    if (options().mask == memory_mask::coverage) p.mask = {options().segment, options().ratio};
    if (options().recurrent) p.before = past;
    p.keep = options().encoder_tape;
    p.outputs_from = sizes().outputs_from();
    return p;
  }

  /// WRITES the n memories to m, one after another, sizes().memory() numbers each, and to the tape, n times
  /// sizes().tape(), unless it is empty. theta: all trainable parameters; workspace:
  /// sizes().encoder_workspace().
  void write(std::span<const segment> xs, index_t s, params<const P> theta, prefix<M> past, view<M> m,
             view<A> tape, view<A> workspace) const {
    const index_t n = index_t(xs.size());
    check(xs, s, theta.size(), past);
    for (const segment& x : xs) check_tokens("memory_llama::write", "tokens", stack.shape(), x.tokens);
    check_size("memory_llama::write", "m", m.size(), n * sizes().memory());
    if (!tape.empty()) check_size("memory_llama::write", "tape", tape.size(), n * sizes().tape());
    const pass<M> p = pass_of(s, n, past);
    sizes().check_workspace("memory_llama::write", workspace.size(), sizes().encoder_workspace(p, false), n);
    arena<A> space(workspace), saving(tape);
    const matrix<A> x = space.cut(stack.shape().hidden, p.tokens());
    const view<A> transfer = space.cut_flat(sizes().transfer_workspace(n));
    const view<A> inputs = saving.cut_flat(sizes().kept(n));
    embed_segments(xs, theta.data() + trainable().memory_offset(), x);
    stack.forward(
        weights, adapters_of(theta), p, x, saving.rest(), space.rest(),
        write_hook{{}, *this, s, n, transfer_head_at(theta.data()), m.data(), inputs.data(), transfer});
  }

  /// As memory_model says; to.dpast: one address a block of `past`.
  void write_vjp(std::span<const segment> xs, index_t s, params<const P> theta, prefix<M> past,
                 write_graphs<numbers> graphs, memory_gradients<numbers> to, view<A> workspace) const {
    const auto [tape, dm] = graphs;
    const auto dpast = to.dpast;
    const auto dtheta = to.dtheta;
    const index_t n = index_t(xs.size());
    check(xs, s, theta.size(), past);
    check_size("memory_llama::write_vjp", "tape", tape.size(), n * sizes().tape());
    check_size("memory_llama::write_vjp", "dm", dm.size(), n * sizes().memory());
    if (!dtheta.empty()) check_size("memory_llama::write_vjp", "dtheta", dtheta.size(), trainable().size());
    const pass<M> p = pass_of(s, n, past);
    sizes().check_workspace("memory_llama::write_vjp", workspace.size(), sizes().encoder_workspace(p, true),
                            n);
    arena<A> space(workspace);
    arena<const A> saved_by_write(tape);
    const matrix<A> dx = space.cut(stack.shape().hidden, p.tokens());
    const view<A> transfer = space.cut_flat(sizes().transfer_workspace(n));
    const view<const A> inputs = saved_by_write.cut_flat(sizes().kept(n));
    stack.executor().fill(dx, 0);  // nothing reads the encoder's outputs themselves
    P* const g = dtheta.data();
    const wanted_gradients<P> want{.before = options().recurrent ? dpast : std::span<P* const>{},
                                   .adapters = g,
                                   .inputs = g != nullptr,
                                   .inputs_from = sizes().outputs_from()};
    stack.vjp(weights, adapters_of(theta), p, saved_by_write.rest(), dx, want, space.rest(),
              write_vjp_hook{{},
                             *this,
                             s,
                             n,
                             transfer_head_at(theta.data()),
                             inputs.data(),
                             dm.data(),
                             transfer_head_at(g),
                             transfer});
    if (!g) return;
    P* const learned = g + trainable().memory_offset();
    for (index_t b = 0; b < n; ++b) {
      const matrix<const A> dmem = memory_columns(matrix<const A>(dx), b, n);
      if (options().separate_tokens)
        stack.executor().axpy(1, dmem.data, learned, dmem.rows * dmem.cols);
      else
        stack.executor().sum_columns(dmem, learned);
    }
  }

 private:
  // Writes each layer's keys and values as soon as its normed input is there, and keeps that input.
  struct write_hook : no_hook {
    const memory_encoder& encoder;
    index_t s, n;
    const P* theta;  // adapters of the transfer head
    M* m;            // n memories
    A* inputs;       // L x n times hidden x M; null: not kept
    view<A> workspace;

    // all: hidden x tokens.
    void normed(index_t layer, matrix<const A> all) {
      encoder.for_groups(n, [&](index_t b, index_t count) {
        const matrix<const A> h = encoder.memory_columns(all, b, n, count);
        if (inputs) encoder.stack.executor().copy(h, encoder.kept_input(inputs, layer, b, n, count));
        encoder.transfer(theta).forward(layer, h, encoder.positions_of(s, n, b, count),
                                        encoder.memories_of(m, layer, b, n, count), workspace);
      });
    }
  };
  // Sends the adjoint of each layer's keys and values to its normed input and to the transfer head.
  struct write_vjp_hook : no_hook {
    const memory_encoder& encoder;
    index_t s, n;
    const P* theta;   // adapters of the transfer head
    const A* inputs;  // what write kept
    const P* dm;      // adjoints of n memories
    P* dtheta;        // gradient of the transfer head's adapters; null: not wanted
    view<A> workspace;

    // all: hidden x tokens.
    void dnormed(index_t layer, matrix<A> all) {
      encoder.for_groups(n, [&](index_t b, index_t count) {
        encoder.transfer(theta).vjp(layer, encoder.kept_input(inputs, layer, b, n, count),
                                    encoder.positions_of(s, n, b, count),
                                    encoder.memories_of(dm, layer, b, n, count),
                                    encoder.memory_columns(all, b, n, count), dtheta, workspace);
      });
    }
  };

  const memory_sizes<E>& sizes() const { return tables.sizes; }
  const memory_options& options() const { return sizes().options(); }
  const memory_map& trainable() const { return sizes().trainable(); }
  index_t memory_tokens() const { return sizes().memory_tokens(); }

  adapters<P> adapters_of(params<const P> theta) const { return {&trainable().encoder(), theta.data()}; }
  /// The part of theta, or of its gradient, that is the transfer head's.
  template <class U>
  U* transfer_head_at(U* theta) const {
    return theta ? theta + trainable().transfer_head_offset() : nullptr;
  }
  transfer_head<E> transfer(const P* theta) const {
    return {stack.executor(), stack.map(), weights, {&trainable().transfer_head(), theta}, stack.table()};
  }

  /// f(first sequence, sequences) for those that go through the transfer head together: all, but where each
  /// memory is one column, since a product with one column has other bits.
  template <class F>
  void for_groups(index_t n, F&& f) const {
    const index_t count = memory_tokens() == 1 ? 1 : n;
    for (index_t b = 0; b < n; b += count) f(b, count);
  }
  /// The memory tokens of the sequences b .. b + count - 1 of n, hidden x count M: the last columns of each.
  /// x: all tokens, or the encoder's wanted outputs, which are nothing else where there are several
  /// sequences.
  template <class U>
  matrix<U> memory_columns(matrix<U> x, index_t b, index_t n, index_t count = 1) const {
    const index_t length = x.cols / n, m = memory_tokens();
    UNROLL_ASSERT(count == 1 || length == m);
    return columns_of(x, (b + 1) * length - m, count * m);
  }
  /// The same of the normed inputs, layers x n of hidden x M, that the tape begins with.
  template <class U>
  matrix<U> kept_input(U* inputs, index_t layer, index_t b, index_t n, index_t count) const {
    const index_t hidden = stack.shape().hidden, m = memory_tokens();
    return {inputs + (layer * n + b) * m * hidden, hidden, count * m};
  }
  std::span<const index_t> positions_of(index_t s, index_t n, index_t b, index_t count) const {
    return tables.memory_positions_of(s + n - b - count, count);
  }
  /// A layer of the memories of those sequences in m, n memories; those of later segments are behind.
  template <class U>
  layer_memories<U> memories_of(U* m, index_t layer, index_t b, index_t n, index_t count) const {
    const index_t size = sizes().memory();
    return {m + (n - 1 - b) * size + 2 * layer * stack.shape().kv_width() * memory_tokens(), -size, count};
  }

  /// x, hidden x tokens: the embeddings of each segment, and behind them the learned `<mem>`, hidden x 1 or
  /// hidden x M.
  void embed_segments(std::span<const segment> xs, const P* learned, matrix<A> x) const {
    const index_t n = index_t(xs.size()), length = x.cols / n;
    for (index_t b = 0; b < n; ++b) {
      const matrix<A> mem = memory_columns(x, b, n);
      embed(stack.executor(), stack.map(), weights, xs[std::size_t(n - 1 - b)].tokens,
            columns_of(x, b * length, options().segment));
      if (options().separate_tokens)
        stack.executor().copy(matrix(learned, mem.rows, mem.cols), mem);
      else
        stack.executor().gather_columns(matrix(learned, mem.rows, 1), tables.first_columns, mem);
    }
  }

  void check(std::span<const segment> xs, index_t s, index_t theta, prefix<M> past) const {
    const index_t n = index_t(xs.size()), last = s + n - 1;
    check_at_least("memory_llama::write", "xs", n, 1);
    if (n > 1 && options().recurrent)
      fail("memory_llama::write", "xs",
           "are " + std::to_string(n) + " segments, recurrent memories are written one by one");
    for (const segment& x : xs)
      check_size("memory_llama::write", "x.tokens", index_t(x.tokens.size()), options().segment);
    check_at_least("memory_llama::write", "s", s, 0);
    check_size("memory_llama::write", "theta", theta, trainable().size());
    sizes().check_positions("memory_llama::write", last, sizes().write_end(last) - last * memory_tokens());
    if (options().recurrent) check_size("memory_llama::write", "past", past.total(), s * memory_tokens());
  }
};

}  // namespace unroll::llama
