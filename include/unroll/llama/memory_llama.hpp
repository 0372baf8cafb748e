#pragma once

#include <memory>

#include "unroll/llama/memory_room.hpp"
#include "unroll/llama/transformer.hpp"
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
  params<const W> weights() const { return *weights_; }
  index_t memory_tokens() const { return sizes().memory_tokens(); }  ///< M

  index_t segments() const { return sizes().segments(); }  ///< most that a text may have
  index_t longest_text() const { return options().longest_text(shape()); }

  const memory_map& trainable() const& { return sizes().trainable(); }  ///< theta
  const memory_map& trainable() && = delete;
  const layout& names() const& { return trainable().names(); }
  const layout& names() && = delete;

  /// Sizes alone.
  const memory_room<executor_type>& sizes() const { return parts_->room; }
  memory_dims size() const { return {trainable().size(), sizes().memory(), sizes().tape()}; }
  bool independent() const { return !options().recurrent; }
  bool reads_params() const { return false; }  ///< the decoder has none
  index_t scored(const input& x) const { return x.scored(); }
  index_t workspace(index_t earlier, index_t = 1) const { return sizes().workspace(earlier); }

  /// Whether there are positions to write the memory of segment s.
  bool can_write(index_t s) const { return sizes().can_write(s); }

  /// Numbers that one encode behind `past` needs; only sizes are looked at.
  index_t encode_work(prefix<M> past) const { return sizes().write_work(encoder_pass(0, past), false); }

  /// Throws unroll::error unless the segment is whole, its tokens are in the vocabulary and, in a recurrent
  /// model, `past` holds s memories and the positions reach.
  void write(const segment& x, index_t s, params<const P> theta, std::span<const M* const> past, view<M> m,
             view<A> tape, view<A> work) const {
    encode(x.tokens, s, theta, options().recurrent ? memories(past) : prefix<M>{}, m, tape, work);
  }

  /// The same; the earlier memories may lie in blocks of any shape. s: their number.
  void encode(std::span<const token> tokens, index_t s, params<const P> theta, prefix<M> past, view<M> m,
              view<A> tape, view<A> work) const {
    check_write(index_t(tokens.size()), s, theta.size(), past);
    check_tokens("memory_llama::write", "tokens", shape(), tokens);
    check_size("memory_llama::write", "m", m.size(), sizes().memory());
    if (!tape.empty()) check_size("memory_llama::write", "tape", tape.size(), sizes().tape());
    const pass<M> p = encoder_pass(s, past);
    check_at_least("memory_llama::write", "work", work.size(), sizes().write_work(p, false));
    const executor_type& e = executor();
    arena<A> room(work);
    const matrix<A> x = room.cut(shape().hidden, p.tokens());
    const view<A> transfer = room.cut_flat(sizes().transfer_work());
    embed(e, stack_.map(), weights().data(), tokens, columns_of(x, 0, options().segment));
    const matrix<A> mem = at_memory_tokens(x);
    const P* const learned = theta.data() + trainable().memory_offset();
    if (options().separate_tokens)
      e.copy(matrix(learned, mem.rows, mem.cols), mem);
    else
      e.gather_columns(matrix(learned, mem.rows, 1), parts_->first_columns, mem);
    const view<A> kept = tape.empty() ? view<A>{} : tape.part(0, sizes().kept());
    stack_.forward(
        weights().data(), encoder_adapters_at(theta), p, x, rest(tape, kept.size()), rest(work, room.used()),
        writing{{}, this, s, theta.data() + trainable().head_offset(), m.data(), kept.data(), transfer});
  }

  /// Throws as write does. Empty dtheta: not wanted.
  void write_vjp(const segment& x, index_t s, params<const P> theta, std::span<const M* const> past,
                 view<const A> tape, view<const P> dm, std::span<P* const> dpast, dparams<P> dtheta,
                 view<A> work) const {
    const prefix<M> before = options().recurrent ? memories(past) : prefix<M>{};
    check_write(index_t(x.tokens.size()), s, theta.size(), before);
    check_size("memory_llama::write_vjp", "tape", tape.size(), sizes().tape());
    check_size("memory_llama::write_vjp", "dm", dm.size(), sizes().memory());
    if (!dtheta.empty()) check_size("memory_llama::write_vjp", "dtheta", dtheta.size(), trainable().size());
    const pass<M> p = encoder_pass(s, before);
    check_at_least("memory_llama::write_vjp", "work", work.size(), sizes().write_work(p, true));
    const executor_type& e = executor();
    arena<A> room(work);
    const matrix<A> dx = room.cut(shape().hidden, p.tokens());
    const view<A> transfer = room.cut_flat(sizes().transfer_work());
    e.fill(dx, 0);  // nothing reads the encoder's outputs themselves
    P* const g = dtheta.data();
    stack_.vjp(weights().data(), encoder_adapters_at(theta), p, rest(tape, sizes().kept()), dx,
               options().recurrent ? dpast : std::span<P* const>{}, nullptr, g, g != nullptr,
               rest(work, room.used()),
               writing_vjp{{},
                           this,
                           s,
                           theta.data() + trainable().head_offset(),
                           tape.data(),
                           dm.data(),
                           g ? g + trainable().head_offset() : nullptr,
                           transfer});
    if (!g) return;
    const matrix<const A> dmem = at_memory_tokens(matrix<const A>(dx));
    P* const learned = g + trainable().memory_offset();
    if (options().separate_tokens)
      e.axpy(1, dmem.data, learned, dmem.rows * dmem.cols);
    else
      e.sum_columns(dmem, learned);
  }

  /// Throws unroll::error unless the segment has 1 to l tokens and positions left, tokens and targets are in
  /// the vocabulary and `past` holds t memories. A segment without a scored target costs nothing.
  P read(const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
         view<A> work) const {
    const P* const loss = read_to(nullptr, x, t, theta, past, work);
    return loss ? exec::value(executor(), loss) : P(0);
  }

  /// Throws as read does. Leaves dtheta alone. Where no adjoint is wanted it costs what read costs.
  P read_vjp(const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
             std::span<P* const> dpast, dparams<P>, view<A> work) const {
    const P* const loss = read_vjp_to(nullptr, x, t, theta, past, dpast, work);
    return loss ? exec::value(executor(), loss) : P(0);
  }

  /// The calls of memory_model, for several segments.
  void write(std::span<const segment> xs, index_t s, params<const P> theta, std::span<const M* const> past,
             view<M> m, view<A> tape, view<A> work) const {
    const memory_dims d = size();
    for (index_t i = 0; i < index_t(xs.size()); ++i)
      write(xs[std::size_t(i)], s + i, theta, past, m.part(i * d.memory, d.memory),
            tape.empty() ? tape : tape.part(i * d.tape, d.tape), work);
  }
  void write_vjp(std::span<const segment> xs, index_t s, params<const P> theta,
                 std::span<const M* const> past, view<const A> tape, view<const P> dm,
                 std::span<P* const> dpast, dparams<P> dtheta, view<A> work) const {
    const memory_dims d = size();
    for (index_t i = index_t(xs.size()) - 1; i >= 0; --i)
      write_vjp(xs[std::size_t(i)], s + i, theta, past, tape.part(i * d.tape, d.tape),
                dm.part(i * d.memory, d.memory), dpast, dtheta, work);
  }
  void read(std::span<const segment> xs, index_t t, params<const P> theta, std::span<const M* const> past,
            P* losses, view<A> work) const {
    for (std::size_t i = 0; i < xs.size(); ++i)
      read_to(losses + i, xs[i], t + index_t(i), theta, past.first(std::size_t(t) + i), work);
  }
  void read_vjp(std::span<const segment> xs, index_t t, params<const P> theta, std::span<const M* const> past,
                std::span<P* const> dpast, P* losses, dparams<P>, view<A> work) const {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const std::size_t n = std::size_t(t) + i;
      read_vjp_to(losses + i, xs[i], index_t(n), theta, past.first(n), dpast.first(n), work);
    }
  }

  /// Throws, in the name of `function`, unless n tokens behind t memories have positions.
  void check_positions(std::string_view function, index_t t, index_t n) const {
    const index_t end = t * memory_tokens() + n;
    if (end > shape().positions())
      fail(function, "t",
           "segment " + std::to_string(t) + " ends at position " + std::to_string(end) + ", the model has " +
               std::to_string(shape().positions()) + ": the longest text has " +
               std::to_string(longest_text()) + " tokens in " + std::to_string(segments()) + " segments");
  }

 private:
  struct parts {
    memory_room<executor_type> room;
    std::vector<index_t> decoder_positions, encoder_positions;
    std::vector<token> first_columns;  // zeros, one a memory token: all of them are the one `<mem>`

    parts(const config& c, const memory_options& o)
        : room(c, o), first_columns(std::size_t(room.memory_tokens())) {
      for (index_t i = 0; i < c.positions(); ++i) decoder_positions.push_back(i);
      for (index_t s = 0; room.encoder_end(s) <= c.positions() && (s == 0 || o.recurrent); ++s)
        for (index_t i = 0; i < o.segment + room.memory_tokens(); ++i)
          encoder_positions.push_back(room.encoder_start(s) + room.encoder_position(i));
    }
  };

  // Writes each layer's keys and values as soon as its normed input is there, and keeps that input.
  struct writing : no_hook {
    const memory_llama* model;
    index_t s;
    const P* head;
    M* m;
    A* kept;
    view<A> work;
    void normed(index_t layer, matrix<const A> all) {
      const matrix<const A> h = model->at_memory_tokens(all);
      if (kept) model->executor().copy(h, matrix<A>(kept + layer * h.cols * h.rows, h.rows, h.cols));
      model->transfer().forward(layer, head, h, model->memory_positions_of(s), model->in_memory(m, layer),
                                work);
    }
  };
  // Sends the adjoint of each layer's keys and values to the normed input and to the head.
  struct writing_vjp : no_hook {
    const memory_llama* model;
    index_t s;
    const P* head;
    const A* kept;
    const P* dm;
    P* dhead;
    view<A> work;
    void dnormed(index_t layer, matrix<A> all) {
      const matrix<A> dh = model->at_memory_tokens(all);
      const matrix<const A> h(kept + layer * dh.rows * dh.cols, dh.rows, dh.cols);
      model->transfer().vjp(layer, head, h, model->memory_positions_of(s), model->in_memory(dm, layer), dh,
                            dhead, work);
    }
  };

  /// WRITES the loss to `loss`, null: to the workspace. Returns where it is, null: it is 0, nothing is
  /// scored.
  P* read_to(P* loss, const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
             view<A> work) const {
    check_read(x, t, theta.size(), past);
    if (x.scored() == 0) return no_loss(loss);
    const index_t n = index_t(x.tokens.size());
    const pass<M> p = decoder_pass(t, n, memories(past));
    check_at_least("memory_llama::read", "work", work.size(), sizes().read_work(p, false));
    arena<A> room(work);
    const matrix<A> h = room.cut(shape().hidden, n);
    P* const own = room.template cut_as<P>(1).data;
    if (!loss) loss = own;
    const view<A> left = rest(work, room.used());
    embed(executor(), stack_.map(), weights().data(), x.tokens, h);
    stack_.forward(weights().data(), {}, p, h, view<A>{}, left);
    head_losses(executor(), stack_.map(), weights().data(), matrix<const A>(h), x.targets,
                static_cast<P*>(nullptr), loss, left);
    return loss;
  }
  P* read_vjp_to(P* loss, const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
                 std::span<P* const> dpast, view<A> work) const {
    if (std::all_of(dpast.begin(), dpast.end(), [](const P* d) { return !d; }))
      return read_to(loss, x, t, theta, past, work);
    check_read(x, t, theta.size(), past);
    check_size("memory_llama::read_vjp", "dpast", index_t(dpast.size()), t);
    if (x.scored() == 0) return no_loss(loss);
    const index_t n = index_t(x.tokens.size());
    const pass<M> p = decoder_pass(t, n, memories(past));
    check_at_least("memory_llama::read_vjp", "work", work.size(), sizes().read_work(p, true));
    arena<A> room(work);
    const matrix<A> h = room.cut(shape().hidden, n), dh = room.cut(shape().hidden, n);
    P* const own = room.template cut_as<P>(1).data;
    if (!loss) loss = own;
    const view<A> tape = room.cut_flat(stack_.tape_size(p)), left = rest(work, room.used());
    embed(executor(), stack_.map(), weights().data(), x.tokens, h);
    stack_.forward(weights().data(), {}, p, h, tape, left);
    head_losses_vjp(executor(), stack_.map(), weights().data(), matrix<const A>(h), x.targets, 1, dh,
                    static_cast<P*>(nullptr), static_cast<P*>(nullptr), loss, left);
    stack_.vjp(weights().data(), {}, p, tape, dh, dpast, nullptr, nullptr, false, left);
    return loss;
  }
  P* no_loss(P* loss) const {
    if (loss) executor().fill(matrix<P>(loss, 1, 1), 0);
    return loss;
  }

  transfer_head<executor_type> transfer() const {
    return {executor(), stack_.map(), weights().data(), trainable().head(), stack_.table()};
  }
  adapters<P> encoder_adapters_at(params<const P> theta) const {
    return {&trainable().encoder(), theta.data()};
  }
  /// The last columns: of all tokens, or of the encoder's wanted outputs.
  template <class U>
  matrix<U> at_memory_tokens(matrix<U> x) const {
    return columns_of(x, x.cols - memory_tokens(), memory_tokens());
  }
  template <class U>
  U* in_memory(U* m, index_t layer) const {
    return m + 2 * layer * shape().kv_width() * memory_tokens();
  }
  template <class U>
  static view<U> rest(view<U> v, index_t used) {
    return v.empty() ? v : v.part(used, v.size() - used);
  }
  std::span<const index_t> memory_positions_of(index_t s) const {
    return std::span(parts_->decoder_positions)
        .subspan(std::size_t(s * memory_tokens()), std::size_t(memory_tokens()));
  }

  prefix<M> memories(std::span<const M* const> past) const {
    return {past, memory_tokens(), memory_tokens()};
  }
  pass<M> encoder_pass(index_t s, prefix<M> past) const {
    const index_t n = options().segment + memory_tokens();
    pass<M> p;
    p.length = n;
    p.layers = shape().layers - 1;
    p.positions = std::span(parts_->encoder_positions)
                      .subspan(std::size_t(options().recurrent ? s * n : 0), std::size_t(n));
    if (options().mask == memory_mask::coverage) p.mask = {options().segment, options().ratio};
    if (options().recurrent) p.before = past;
    p.keep = options().encoder_tape;
    p.outputs_from = sizes().outputs_from();
    return p;
  }
  pass<M> decoder_pass(index_t t, index_t n, prefix<M> past) const {
    pass<M> p;
    p.length = n;
    p.layers = shape().layers;
    p.positions =
        std::span(parts_->decoder_positions).subspan(std::size_t(t * memory_tokens()), std::size_t(n));
    p.before = past;
    p.keep = options().decoder_tape;
    return p;
  }

  void check_write(index_t tokens, index_t s, index_t theta, prefix<M> past) const {
    check_size("memory_llama::write", "x.tokens", tokens, options().segment);
    check_at_least("memory_llama::write", "s", s, 0);
    check_size("memory_llama::write", "theta", theta, trainable().size());
    check_positions("memory_llama::write", s, sizes().write_end(s) - s * memory_tokens());
    if (options().recurrent) check_size("memory_llama::write", "past", past.total(), s * memory_tokens());
  }
  void check_read(const segment& x, index_t t, index_t theta, std::span<const M* const> past) const {
    const index_t n = index_t(x.tokens.size());
    check_at_least("memory_llama::read", "x.tokens", n, 1);
    if (n > options().segment)
      fail("memory_llama::read", "x.tokens",
           "are " + std::to_string(n) + ", a segment has " + std::to_string(options().segment));
    if (!x.targets.empty()) check_size("memory_llama::read", "x.targets", index_t(x.targets.size()), n);
    check_tokens("memory_llama::read", "tokens", shape(), x.tokens);
    check_tokens("memory_llama::read", "targets", shape(), x.targets, true);
    check_at_least("memory_llama::read", "t", t, 0);
    check_size("memory_llama::read", "theta", theta, trainable().size());
    check_size("memory_llama::read", "past", index_t(past.size()), t);
    check_positions("memory_llama::read", t, n);
  }

  transformer<X> stack_;
  std::shared_ptr<const parts> parts_;
  std::shared_ptr<const weights_type> weights_;
};

/// WRITES theta, at the host, see memory_map.hpp. Throws unroll::error on a wrong size and a token outside
/// the vocabulary.
template <class X>
void init_memory(const memory_llama<X>& model, params<typename memory_llama<X>::P> theta, key k,
                 memory_start start = {}) {
  static_assert(exec::of<X>::where == place::host, "init_memory draws on the host: upload what it draws");
  const config& c = model.shape();
  const auto* const w = model.weights().data();
  init_memory(model.trainable(), matrix(w + model.stack().map().embedding(), c.hidden, c.vocabulary), theta,
              k, start);
}

}  // namespace unroll::llama
