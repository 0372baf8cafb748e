#pragma once

#include <memory>

#include "unroll/llama/transformer.hpp"
#include "unroll/memory/memory_llama/tables.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll::llama {

/// A frozen Llama that reads a text segment by segment beside the memories of the earlier ones (UIO-LLMs,
/// arXiv 2406.18173, section 3; where its released code differs, memory_options chooses). A memory_model:
///
///   write   the encoder, the Llama with adapters, runs its layers 0 .. L-2 over [the l tokens of segment s |
///           M `<mem>` tokens]; h_i, the normed input of layer i's attention at the `<mem>` tokens, goes
///           through the transfer head (transfer_head.hpp) to
///             m_s = (K_0, V_0, ..., K_{L-1}, V_{L-1}),  each kv_width x M,
///           the keys rotated to the positions s M .. s M + M - 1 once and for all: a prefix block of the
///           decoder
///   read    the decoder, the Llama without adapters, over segment t behind m_0 .. m_{t-1}, positions from
///           t M; J_t is the sum of -log p over the scored targets, in nats
///
/// theta = [encoder adapters | `<mem>` | head adapters], see memory_map. The decoder has no parameters of its
/// own: read_vjp only sends adjoints to the memories, and the loss of a first segment has no gradient. With
/// `recurrent` the encoder of segment s also stands behind m_0 .. m_{s-1} (as in RMT and AutoCompressors).
///
/// Positions end at config::positions(): read throws beyond t M + tokens, see segments() and longest_text().
/// Cost, with P the numbers of the layers' matrices: write 2 P (l + M) (L - 1) / L flops and attention (less
/// what its last layer does not compute for the l tokens), its vjp the same again (frozen weights have no
/// gradient), read 2 P l and the output matrix, read_vjp twice that. Copies share the frozen weights and all
/// tables. X: see transformer; weights, memories, theta and adjoints live at the executor's place.
template <class X>
class memory_llama final {
 public:
  using executor_type = exec::of<X>;
  using numbers = typename executor_type::numbers;
  using W = typename numbers::weight;
  using A = typename numbers::activation;
  using M = typename numbers::memory;
  using P = typename numbers::parameter;
  using weights_type = typename executor_type::template block<W, param_space>;
  using scalar = P;
  using input = segment;

  /// `weights`: the one frozen copy, laid out by weight_map(c). Throws unroll::error on options that do not
  /// fit and where not even one segment has positions enough.
  memory_llama(const config& c, std::shared_ptr<const weights_type> weights, memory_options o,
               executor_type e = executor_type{})
      : stack_(c, std::move(e)), parts_(std::make_shared<const parts>(c, o)), weights_(std::move(weights)) {
    if (!weights_) fail("memory_llama", "weights", "are null");
    check_size("memory_llama", "weights", weights_->size(), stack_.map().size());
  }
  template <class Block>
  requires(!std::convertible_to<std::shared_ptr<Block>, std::shared_ptr<const weights_type>>)
      memory_llama(const config& c, std::shared_ptr<Block>, memory_options o,
                   executor_type e = executor_type{})
      : memory_llama(c, std::shared_ptr<const weights_type>(), o, e) {
    static_assert(sizeof(Block) == 0,
                  "the weights of a memory_llama are of the kind and at the place of its executor: a "
                  "shared_ptr to memory_llama::weights_type");
  }

  const executor_type& executor() const { return stack_.executor(); }
  const memory_options& options() const { return sizes().options(); }
  const config& shape() const { return stack_.shape(); }
  const transformer<X>& stack() const { return stack_; }
  params<const W> weights() const { return *weights_; }                     ///< the frozen model's
  index_t memory_tokens() const { return sizes().memory_tokens(); }         ///< M
  index_t segments() const { return sizes().segments(); }                   ///< most that a text may have
  index_t longest_text() const { return options().longest_text(shape()); }  ///< tokens
  const memory_map& trainable() const& { return sizes().trainable(); }      ///< theta
  const memory_map& trainable() && = delete;
  const layout& names() const& { return trainable().names(); }
  const layout& names() && = delete;
  /// Sizes alone.
  const memory_workspace<executor_type>& sizes() const { return parts_->sizes; }
  memory_dims size() const { return {trainable().size(), sizes().memory(), sizes().tape()}; }
  bool independent() const { return !options().recurrent; }
  std::string identity() const { return identity_of(options()); }
  bool reads_params() const { return false; }  ///< the decoder has none
  index_t scored(const input& x) const { return x.scored(); }
  index_t workspace(index_t earlier, index_t n = 1) const { return sizes().workspace(earlier, n); }
  index_t write_workspace(index_t earlier, index_t n = 1) const {
    return sizes().write_workspace(earlier, n);
  }
  /// Whether there are positions to write the memory of segment s.
  bool can_write(index_t s) const { return sizes().can_write(s); }
  /// Numbers that one encode behind `past`, or a write of `batch` segments, needs; only sizes are looked at.
  index_t encode_workspace(prefix<M> past, index_t batch = 1) const {
    return sizes().encoder_workspace(encoder_pass(0, batch, past), false);
  }

  /// The calls of memory_model. A batch of several is one pass of as many sequences, segment s + n - 1 in
  /// front, so that gradients are added in the order of one by one. Throws unroll::error unless the segments
  /// are whole, their tokens are in the vocabulary and, in a recurrent model, there is one and `past` holds s
  /// memories; and where positions end.
  void write(std::span<const segment> xs, index_t s, params<const P> theta, std::span<const M* const> past,
             view<M> m, view<A> tape, view<A> workspace) const {
    encode(xs, s, theta, options().recurrent ? memories(past) : prefix<M>{}, m, tape, workspace);
  }
  /// Of one segment; the earlier memories may lie in blocks of any shape. s: their number.
  void encode(std::span<const token> tokens, index_t s, params<const P> theta, prefix<M> past, view<M> m,
              view<A> tape, view<A> workspace) const {
    const segment x{tokens};
    encode({&x, 1}, s, theta, past, m, tape, workspace);
  }

  /// Empty dtheta: not wanted.
  void write_vjp(std::span<const segment> xs, index_t s, params<const P> theta,
                 std::span<const M* const> past, view<const A> tape, view<const P> dm,
                 std::span<P* const> dpast, dparams<P> dtheta, view<A> workspace) const {
    const prefix<M> before = options().recurrent ? memories(past) : prefix<M>{};
    const index_t n = index_t(xs.size());
    check_write(xs, s, theta.size(), before);
    check_size("memory_llama::write_vjp", "tape", tape.size(), n * sizes().tape());
    check_size("memory_llama::write_vjp", "dm", dm.size(), n * sizes().memory());
    if (!dtheta.empty()) check_size("memory_llama::write_vjp", "dtheta", dtheta.size(), trainable().size());
    const pass<M> p = encoder_pass(s, n, before);
    check_workspace("memory_llama::write_vjp", workspace.size(), sizes().encoder_workspace(p, true), n);
    const executor_type& e = executor();
    arena<A> space(workspace);
    const matrix<A> dx = space.cut(shape().hidden, p.tokens());
    const view<A> transfer = space.cut_flat(sizes().transfer_workspace(n));
    e.fill(dx, 0);  // nothing reads the encoder's outputs themselves
    P* const g = dtheta.data();
    stack_.vjp(weights().data(), encoder_adapters_at(theta), p, rest(tape, sizes().kept(n)), dx,
               options().recurrent ? dpast : std::span<P* const>{}, nullptr, g, g != nullptr,
               rest(workspace, space.used()),
               writing_vjp{{},
                           this,
                           s,
                           n,
                           theta.data() + trainable().transfer_head_offset(),
                           tape.data(),
                           dm.data(),
                           g ? g + trainable().transfer_head_offset() : nullptr,
                           transfer});
    if (!g) return;
    P* const learned = g + trainable().memory_offset();
    for (index_t b = 0; b < n; ++b) {
      const matrix<const A> dmem = memory_columns(matrix<const A>(dx), b, n);
      if (options().separate_tokens)
        e.axpy(1, dmem.data, learned, dmem.rows * dmem.cols);
      else
        e.sum_columns(dmem, learned);
    }
  }

  /// Throws unroll::error unless every segment has 1 to l tokens and positions left, tokens and targets are
  /// in the vocabulary and `past` holds t + n - 1 memories. Segments of equal length make one pass; one
  /// without a scored target costs nothing.
  void read(std::span<const segment> xs, index_t t, params<const P> theta, std::span<const M* const> past,
            P* losses, view<A> workspace) const {
    read_all(xs, t, theta, past, losses, workspace);
  }
  /// Leaves dtheta alone. Where no adjoint is wanted it costs what read costs.
  void read_vjp(std::span<const segment> xs, index_t t, params<const P> theta, std::span<const M* const> past,
                std::span<P* const> dpast, P* losses, dparams<P>, view<A> workspace) const {
    read_vjp_all(xs, t, theta, past, dpast, losses, workspace);
  }

  // Of one segment. read and read_vjp return the loss, so that they wait for it.
  void write(const segment& x, index_t s, params<const P> theta, std::span<const M* const> past, view<M> m,
             view<A> tape, view<A> workspace) const {
    write(std::span(&x, 1), s, theta, past, m, tape, workspace);
  }
  void write_vjp(const segment& x, index_t s, params<const P> theta, std::span<const M* const> past,
                 view<const A> tape, view<const P> dm, std::span<P* const> dpast, dparams<P> dtheta,
                 view<A> workspace) const {
    write_vjp(std::span(&x, 1), s, theta, past, tape, dm, dpast, dtheta, workspace);
  }
  P read(const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
         view<A> workspace) const {
    return loss_at(read_all({&x, 1}, t, theta, past, nullptr, workspace));
  }
  P read_vjp(const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
             std::span<P* const> dpast, dparams<P>, view<A> workspace) const {
    return loss_at(read_vjp_all({&x, 1}, t, theta, past, dpast, nullptr, workspace));
  }

 private:
  using parts = memory_tables<executor_type>;

  void encode(std::span<const segment> xs, index_t s, params<const P> theta, prefix<M> past, view<M> m,
              view<A> tape, view<A> workspace) const {
    const index_t n = index_t(xs.size());
    check_write(xs, s, theta.size(), past);
    for (const segment& x : xs) check_tokens("memory_llama::write", "tokens", shape(), x.tokens);
    check_size("memory_llama::write", "m", m.size(), n * sizes().memory());
    if (!tape.empty()) check_size("memory_llama::write", "tape", tape.size(), n * sizes().tape());
    const pass<M> p = encoder_pass(s, n, past);
    check_workspace("memory_llama::write", workspace.size(), sizes().encoder_workspace(p, false), n);
    const executor_type& e = executor();
    arena<A> space(workspace);
    const matrix<A> x = space.cut(shape().hidden, p.tokens());
    const view<A> transfer = space.cut_flat(sizes().transfer_workspace(n));
    const P* const learned = theta.data() + trainable().memory_offset();
    for (index_t b = 0; b < n; ++b) {
      const matrix<A> mem = memory_columns(x, b, n);
      embed(e, stack_.map(), weights().data(), xs[std::size_t(n - 1 - b)].tokens,
            columns_of(x, b * p.length, options().segment));
      if (options().separate_tokens)
        e.copy(matrix(learned, mem.rows, mem.cols), mem);
      else
        e.gather_columns(matrix(learned, mem.rows, 1), parts_->first_columns, mem);
    }
    const view<A> kept = tape.empty() ? view<A>{} : tape.part(0, sizes().kept(n));
    stack_.forward(weights().data(), encoder_adapters_at(theta), p, x, rest(tape, kept.size()),
                   rest(workspace, space.used()),
                   writing{{},
                           this,
                           s,
                           n,
                           theta.data() + trainable().transfer_head_offset(),
                           m.data(),
                           kept.data(),
                           transfer});
  }

  // Memories of a pass over n segments that go through the transfer head together: all, but where each is one
  // column, since a product with one column has other bits.
  index_t together(index_t n) const { return memory_tokens() == 1 ? 1 : n; }

  // Writes each layer's keys and values as soon as its normed input is there, and keeps that input. Sequence
  // b is segment s + n - 1 - b.
  struct writing : no_hook {
    const memory_llama* model;
    index_t s, n;
    const P* head;
    M* m;
    A* kept;
    view<A> workspace;
    void normed(index_t layer, matrix<const A> all) {
      const index_t size = model->sizes().memory(), some = model->together(n);
      for (index_t b = 0; b < n; b += some) {
        const matrix<const A> h = model->memory_columns(all, b, n, some);
        if (kept)
          model->executor().copy(
              h, matrix<A>(kept + (layer * n + b) * model->memory_tokens() * h.rows, h.rows, h.cols));
        model->transfer().forward(layer, head, h, model->parts_->memory_positions_of(s + n - b - some, some),
                                  model->in_memory(m + (n - 1 - b) * size, layer), -size, some, workspace);
      }
    }
  };
  // Sends the adjoint of each layer's keys and values to the normed input and to the head.
  struct writing_vjp : no_hook {
    const memory_llama* model;
    index_t s, n;
    const P* head;
    const A* kept;
    const P* dm;
    P* dhead;
    view<A> workspace;
    void dnormed(index_t layer, matrix<A> all) {
      const index_t size = model->sizes().memory(), some = model->together(n);
      for (index_t b = 0; b < n; b += some) {
        const matrix<A> dh = model->memory_columns(all, b, n, some);
        const matrix<const A> h(kept + (layer * n + b) * model->memory_tokens() * dh.rows, dh.rows, dh.cols);
        model->transfer().vjp(layer, head, h, model->parts_->memory_positions_of(s + n - b - some, some),
                              model->in_memory(dm + (n - 1 - b) * size, layer), -size, some, dh, dhead,
                              workspace);
      }
    }
  };

  transfer_head<executor_type> transfer() const {
    return {executor(), stack_.map(), weights().data(), trainable().transfer_head(), stack_.table()};
  }
  adapters<P> encoder_adapters_at(params<const P> theta) const {
    return {&trainable().encoder(), theta.data()};
  }
  /// The memory tokens of the sequences b .. b + some - 1 of n, the last columns of each; x: all tokens, or
  /// the encoder's wanted outputs. Several sequences have nothing else.
  template <class U>
  matrix<U> memory_columns(matrix<U> x, index_t b, index_t n, index_t some = 1) const {
    const index_t length = x.cols / n, m = memory_tokens();
    UNROLL_ASSERT(some == 1 || length == m);
    return columns_of(x, (b + 1) * length - m, some * m);
  }
  template <class U>
  U* in_memory(U* m, index_t layer) const {
    return m + 2 * layer * shape().kv_width() * memory_tokens();
  }
  template <class U>
  static view<U> rest(view<U> v, index_t used) {
    return v.empty() ? v : v.part(used, v.size() - used);
  }
  prefix<M> memories(std::span<const M* const> past) const {
    return {past, memory_tokens(), memory_tokens()};
  }
  pass<M> encoder_pass(index_t s, index_t n, prefix<M> past) const {
    pass<M> p;
    p.sequences = n;
    p.length = options().segment + memory_tokens();
    p.layers = shape().layers - 1;
    p.positions = parts_->encoder_positions_of(s);
    if (options().mask == memory_mask::coverage) p.mask = {options().segment, options().ratio};
    if (options().recurrent) p.before = past;
    p.keep = options().encoder_tape;
    p.outputs_from = sizes().outputs_from();
    return p;
  }
  pass<M> decoder_pass(index_t t, std::span<const segment> xs, std::span<const M* const> past) const {
    const index_t n = index_t(xs.size()), length = index_t(xs.front().tokens.size());
    pass<M> p;
    p.sequences = n;
    p.length = length;
    p.layers = shape().layers;
    p.before = memories(past.first(std::size_t(t + n - 1)));
    p.positions = n > 1 ? parts_->segment_positions_of(t, n) : parts_->token_positions_of(t, length);
    if (n > 1) p.before.ranges = parts_->seen_by(t, n);
    p.keep = options().decoder_tape;
    return p;
  }

  // WRITES the losses; null, of one segment: to the workspace. Returns where the last one is, null: it is 0,
  // nothing is scored.
  const P* read_all(std::span<const segment> xs, index_t t, params<const P> theta,
                    std::span<const M* const> past, P* losses, view<A> workspace) const {
    return for_passes(xs, t, theta, past, losses, [&](auto part, index_t u, P* to) {
      const pass<M> p = decoder_pass(u, part, past);
      check_workspace("memory_llama::read", workspace.size(), sizes().decoder_workspace(p, false),
                      p.sequences);
      arena<A> space(workspace);
      const matrix<A> h = space.cut(shape().hidden, p.tokens());
      P* const of_tokens = space.template cut_as<P>(p.tokens()).data;
      P* const total = space.template cut_as<P>(1).data;
      const view<A> left = rest(workspace, space.used());
      embed_segments(part, h);
      stack_.forward(weights().data(), {}, p, h, view<A>{}, left);
      for_heads(part, [&](index_t first, std::span<const token> targets) {
        lm_head_losses(executor(), stack_.map(), weights().data(),
                       matrix<const A>(columns_of(h, first, index_t(targets.size()))), targets,
                       of_tokens + first, total, left);
      });
      return sum_losses(of_tokens, p, to ? to : total);
    });
  }
  const P* read_vjp_all(std::span<const segment> xs, index_t t, params<const P> theta,
                        std::span<const M* const> past, std::span<P* const> dpast, P* losses,
                        view<A> workspace) const {
    if (std::all_of(dpast.begin(), dpast.end(), [](const P* d) { return !d; }))
      return read_all(xs, t, theta, past, losses, workspace);
    check_size("memory_llama::read_vjp", "dpast", index_t(dpast.size()), index_t(past.size()));
    return for_passes(xs, t, theta, past, losses, [&](auto part, index_t u, P* to) {
      const pass<M> p = decoder_pass(u, part, past);
      check_workspace("memory_llama::read_vjp", workspace.size(), sizes().decoder_workspace(p, true),
                      p.sequences);
      arena<A> space(workspace);
      const matrix<A> h = space.cut(shape().hidden, p.tokens()), dh = space.cut(shape().hidden, p.tokens());
      P* const of_tokens = space.template cut_as<P>(p.tokens()).data;
      P* const total = space.template cut_as<P>(1).data;
      const view<A> tape = space.cut_flat(stack_.tape_size(p)), left = rest(workspace, space.used());
      embed_segments(part, h);
      stack_.forward(weights().data(), {}, p, h, tape, left);
      for_heads(part, [&](index_t first, std::span<const token> targets) {
        const auto own = [&](const auto& m) { return columns_of(m, first, index_t(targets.size())); };
        lm_head_losses_vjp(executor(), stack_.map(), weights().data(), matrix<const A>(own(h)), targets, 1,
                           own(dh), static_cast<P*>(nullptr), of_tokens + first, total, left);
      });
      stack_.vjp(weights().data(), {}, p, tape, dh, dpast.first(std::size_t(u + p.sequences - 1)), nullptr,
                 nullptr, false, left);
      return sum_losses(of_tokens, p, to ? to : total);
    });
  }
  const P* sum_losses(const P* of_tokens, const pass<M>& p, P* to) const {
    for (index_t b = 0; b < p.sequences; ++b) executor().sum(of_tokens + b * p.length, p.length, to + b);
    return to + p.sequences - 1;
  }
  P loss_at(const P* loss) const { return loss ? exec::value(executor(), loss) : P(0); }

  /// f(segments, the first one's number, their losses) for segments that make one pass, after all have been
  /// checked. Only whole segments go together.
  template <class F>
  const P* for_passes(std::span<const segment> xs, index_t t, params<const P> theta,
                      std::span<const M* const> past, P* losses, F&& f) const {
    check_at_least("memory_llama::read", "t", t, 0);
    check_size("memory_llama::read", "theta", theta.size(), trainable().size());
    check_size("memory_llama::read", "past", index_t(past.size()), t + index_t(xs.size()) - 1);
    for (std::size_t i = 0; i < xs.size(); ++i) check_read(xs[i], t + index_t(i));
    const auto whole = [&](const segment& x) {
      return x.scored() > 0 && index_t(x.tokens.size()) == options().segment && x.tokens.size() > 1;
    };
    const P* last = nullptr;
    for (std::size_t i = 0, n = 1; i < xs.size(); i += n) {
      n = 1;
      P* const to = losses ? losses + i : nullptr;
      last = to;
      if (xs[i].scored() == 0) {
        if (to) executor().fill(matrix<P>(to, 1, 1), 0);
        continue;
      }
      while (i + n < xs.size() && whole(xs[i]) && whole(xs[i + n])) ++n;
      last = f(xs.subspan(i, n), t + index_t(i), to);
    }
    return last;
  }
  void embed_segments(std::span<const segment> xs, matrix<A> h) const {
    const index_t length = h.cols / index_t(xs.size());
    for (std::size_t b = 0; b < xs.size(); ++b)
      embed(executor(), stack_.map(), weights().data(), xs[b].tokens,
            columns_of(h, index_t(b) * length, length));
  }
  /// f(first token, targets) for as many segments as go through the head together.
  template <class F>
  void for_heads(std::span<const segment> xs, F&& f) const {
    const index_t length = index_t(xs.front().tokens.size());
    for (std::size_t b = 0; b < xs.size(); ++b) f(index_t(b) * length, xs[b].targets);
  }

  void check_workspace(std::string_view function, index_t got, index_t needed, index_t n) const {
    if (n == 1) return check_at_least(function, "workspace", got, needed);
    if (got < needed)
      fail(function, "workspace",
           "has " + std::to_string(got) + " numbers, a batch of " + std::to_string(n) + " segments needs " +
               std::to_string(needed) + ": workspace() is asked with the largest batch");
  }
  void check_write(std::span<const segment> xs, index_t s, index_t theta, prefix<M> past) const {
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
  void check_read(const segment& x, index_t t) const {
    const index_t n = index_t(x.tokens.size());
    check_at_least("memory_llama::read", "x.tokens", n, 1);
    if (n > options().segment)
      fail("memory_llama::read", "x.tokens",
           "are " + std::to_string(n) + ", a segment has " + std::to_string(options().segment));
    if (!x.targets.empty()) check_size("memory_llama::read", "x.targets", index_t(x.targets.size()), n);
    check_tokens("memory_llama::read", "tokens", shape(), x.tokens);
    check_tokens("memory_llama::read", "targets", shape(), x.targets, true);
    sizes().check_positions("memory_llama::read", t, n);
  }

  transformer<X> stack_;
  std::shared_ptr<const parts> parts_;
  std::shared_ptr<const weights_type> weights_;
};

}  // namespace unroll::llama
