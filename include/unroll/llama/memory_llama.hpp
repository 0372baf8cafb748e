#pragma once

#include <memory>

#include "unroll/llama/head.hpp"
#include "unroll/llama/memory_map.hpp"
#include "unroll/llama/transfer_head.hpp"
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
/// Cost, with P the numbers of the layers' matrices: write 2 P (l + M) (L - 1) / L flops and attention, its
/// vjp the same again (frozen weights have no gradient), read 2 P l and the output matrix, read_vjp twice
/// that. Copies share the frozen weights.
template <class T>
class memory_llama final {
 public:
  using scalar = T;
  using input = segment;

  /// `weights`: the one frozen copy, laid out by weight_map(c); null: only sizes can be asked for. Throws
  /// unroll::error on options that do not fit and where not even one segment has positions enough.
  memory_llama(const config& c, std::shared_ptr<const parameters<T>> weights, memory_options o)
      : options_(o), stack_(c), map_(c, o), weights_(std::move(weights)) {
    if (weights_) check_size("memory_llama", "weights", weights_->size(), stack_.map().size());
    no_memories_.resize(std::size_t(c.positions() / memory_tokens()));
    if (encoder_end(0) > c.positions())
      fail("memory_llama", "segment",
           "of " + std::to_string(o.segment) + " and its memory tokens take " +
               std::to_string(encoder_end(0)) + " positions, the model has " + std::to_string(c.positions()));
    for (index_t i = 0; i < c.positions(); ++i) decoder_positions_.push_back(i);
    for (index_t s = 0; encoder_end(s) <= c.positions() && (s == 0 || o.recurrent); ++s)
      for (index_t i = 0; i < o.segment + memory_tokens(); ++i)
        encoder_positions_.push_back(encoder_start(s) + encoder_position(i));
  }

  const memory_options& options() const { return options_; }
  const config& shape() const { return stack_.shape(); }
  const transformer<T>& stack() const { return stack_; }
  /// Throws unroll::error where the model was made without.
  params<const T> weights() const {
    if (!weights_) fail("memory_llama", "weights", "none were given");
    return *weights_;
  }
  index_t memory_tokens() const { return options_.memory_tokens(); }  ///< M

  index_t segments() const { return options_.segments(shape()); }  ///< most that a text may have
  index_t longest_text() const { return options_.longest_text(shape()); }

  const memory_map& trainable() const& { return map_; }  ///< theta
  const memory_map& trainable() && = delete;
  const layout& names() const& { return map_.names(); }
  const layout& names() && = delete;

  memory_dims size() const {
    return {map_.size(), 2 * shape().layers * shape().kv_width() * memory_tokens(),
            kept_size() + stack_.tape_size(encoder_pass(0, some_memories(segments())))};
  }
  bool independent() const { return !options_.recurrent; }
  bool reads_params() const { return false; }  ///< the decoder has none
  index_t scored(const input& x) const { return x.scored(); }
  index_t workspace(index_t earlier, index_t = 1) const {
    const prefix<T> past = some_memories(earlier);
    return std::max(write_work(past, true), read_work(options_.segment, past, true));
  }

  /// Whether there are positions to write the memory of segment s.
  bool can_write(index_t s) const { return write_end(s) <= shape().positions(); }
  /// Numbers that one encode behind `past` needs; only sizes are looked at.
  index_t encode_work(prefix<T> past) const { return write_work(past, false); }

  /// Throws unroll::error unless the segment is whole, its tokens are in the vocabulary and, in a recurrent
  /// model, `past` holds s memories and the positions reach.
  void write(const segment& x, index_t s, params<const T> theta, std::span<const T* const> past, view<T> m,
             view<T> tape, view<T> work) const {
    encode(x.tokens, s, theta, options_.recurrent ? memories(past) : prefix<T>{}, m, tape, work);
  }

  /// The same; the earlier memories may lie in blocks of any shape. s: their number.
  void encode(std::span<const token> tokens, index_t s, params<const T> theta, prefix<T> past, view<T> m,
              view<T> tape, view<T> work) const {
    check_write(index_t(tokens.size()), s, theta.size(), past);
    check_tokens("memory_llama::write", "tokens", shape(), tokens);
    check_size("memory_llama::write", "m", m.size(),
               2 * shape().layers * shape().kv_width() * memory_tokens());
    if (!tape.empty()) check_size("memory_llama::write", "tape", tape.size(), size().tape);
    check_at_least("memory_llama::write", "work", work.size(), write_work(past, false));
    arena<T> room(work);
    const matrix<T> x = room.cut(shape().hidden, options_.segment + memory_tokens());
    const view<T> transfer = room.cut_flat(transfer_work());
    embed(stack_.map(), weights().data(), tokens.data(), options_.segment,
          columns_of(x, 0, options_.segment));
    const matrix<T> mem = at_memory_tokens(x);
    for (index_t j = 0; j < mem.cols; ++j)
      std::copy_n(theta.data() + map_.memory_offset() + (options_.separate_tokens ? j * mem.rows : 0),
                  mem.rows, mem.data + j * mem.stride);
    arena<T> saved(tape);
    const view<T> kept = tape.empty() ? view<T>{} : saved.cut_flat(kept_size());
    stack_.forward(weights().data(), encoder_adapters_at(theta), encoder_pass(s, past), x,
                   rest(tape, kept.size()), rest(work, room.used()),
                   writing{{}, this, s, theta.data() + map_.head_offset(), m.data(), kept.data(), transfer});
  }

  /// Throws as write does. Empty dtheta: not wanted.
  void write_vjp(const segment& x, index_t s, params<const T> theta, std::span<const T* const> past,
                 view<const T> tape, view<const T> dm, std::span<T* const> dpast, dparams<T> dtheta,
                 view<T> work) const {
    const prefix<T> before = options_.recurrent ? memories(past) : prefix<T>{};
    check_write(index_t(x.tokens.size()), s, theta.size(), before);
    check_size("memory_llama::write_vjp", "tape", tape.size(), size().tape);
    check_size("memory_llama::write_vjp", "dm", dm.size(), size().memory);
    if (!dtheta.empty()) check_size("memory_llama::write_vjp", "dtheta", dtheta.size(), map_.size());
    check_at_least("memory_llama::write_vjp", "work", work.size(), write_work(before, true));
    arena<T> room(work);
    const matrix<T> dx = room.cut(shape().hidden, options_.segment + memory_tokens());
    const view<T> transfer = room.cut_flat(transfer_work());
    std::fill_n(dx.data, dx.rows * dx.cols, T(0));  // nothing reads the encoder's outputs themselves
    T* const g = dtheta.data();
    stack_.vjp(weights().data(), encoder_adapters_at(theta), encoder_pass(s, before), rest(tape, kept_size()),
               dx, options_.recurrent ? dpast : std::span<T* const>{}, nullptr, g, g != nullptr,
               rest(work, room.used()),
               writing_vjp{{},
                           this,
                           s,
                           theta.data() + map_.head_offset(),
                           tape.data(),
                           dm.data(),
                           g ? g + map_.head_offset() : nullptr,
                           transfer});
    if (!g) return;
    const matrix<T> dmem = at_memory_tokens(dx);
    for (index_t j = 0; j < dmem.cols; ++j)
      linalg::axpy(T(1), dmem.data + j * dmem.stride,
                   g + map_.memory_offset() + (options_.separate_tokens ? j * dmem.rows : 0), dmem.rows);
  }

  /// Throws unroll::error unless the segment has 1 to l tokens and positions left, tokens and targets are in
  /// the vocabulary and `past` holds t memories. A segment without a scored target costs nothing.
  T read(const segment& x, index_t t, params<const T> theta, std::span<const T* const> past,
         view<T> work) const {
    check_read(x, t, theta.size(), past);
    if (x.scored() == 0) return 0;
    const index_t n = index_t(x.tokens.size());
    check_at_least("memory_llama::read", "work", work.size(), read_work(n, memories(past), false));
    arena<T> room(work);
    const matrix<T> h = room.cut(shape().hidden, n);
    const view<T> left = rest(work, room.used());
    embed(stack_.map(), weights().data(), x.tokens.data(), n, h);
    stack_.forward(weights().data(), {}, decoder_pass(t, n, memories(past)), h, view<T>{}, left);
    return head_nll<T>(stack_.map(), weights().data(), h, x.targets.data(), nullptr, left);
  }

  /// Throws as read does. Leaves dtheta alone. Where no adjoint is wanted it costs what read costs.
  T read_vjp(const segment& x, index_t t, params<const T> theta, std::span<const T* const> past,
             std::span<T* const> dpast, dparams<T>, view<T> work) const {
    if (std::all_of(dpast.begin(), dpast.end(), [](const T* d) { return !d; }))
      return read(x, t, theta, past, work);
    check_read(x, t, theta.size(), past);
    check_size("memory_llama::read_vjp", "dpast", index_t(dpast.size()), t);
    if (x.scored() == 0) return 0;
    const index_t n = index_t(x.tokens.size());
    const pass<T> p = decoder_pass(t, n, memories(past));
    check_at_least("memory_llama::read_vjp", "work", work.size(), read_work(n, p.before, true));
    arena<T> room(work);
    const matrix<T> h = room.cut(shape().hidden, n), dh = room.cut(shape().hidden, n);
    const view<T> tape = room.cut_flat(stack_.tape_size(p)), left = rest(work, room.used());
    embed(stack_.map(), weights().data(), x.tokens.data(), n, h);
    stack_.forward(weights().data(), {}, p, h, tape, left);
    const T loss =
        head_vjp<T>(stack_.map(), weights().data(), h, x.targets.data(), T(1), dh, nullptr, nullptr, left);
    stack_.vjp(weights().data(), {}, p, tape, dh, dpast, nullptr, nullptr, false, left);
    return loss;
  }

  /// The calls of memory_model, for several segments.
  void write(std::span<const segment> xs, index_t s, params<const T> theta, std::span<const T* const> past,
             view<T> m, view<T> tape, view<T> work) const {
    const memory_dims d = size();
    for (index_t i = 0; i < index_t(xs.size()); ++i)
      write(xs[std::size_t(i)], s + i, theta, past, m.part(i * d.memory, d.memory),
            tape.empty() ? tape : tape.part(i * d.tape, d.tape), work);
  }
  void write_vjp(std::span<const segment> xs, index_t s, params<const T> theta,
                 std::span<const T* const> past, view<const T> tape, view<const T> dm,
                 std::span<T* const> dpast, dparams<T> dtheta, view<T> work) const {
    const memory_dims d = size();
    for (index_t i = index_t(xs.size()) - 1; i >= 0; --i)
      write_vjp(xs[std::size_t(i)], s + i, theta, past, tape.part(i * d.tape, d.tape),
                dm.part(i * d.memory, d.memory), dpast, dtheta, work);
  }
  void read(std::span<const segment> xs, index_t t, params<const T> theta, std::span<const T* const> past,
            T* losses, view<T> work) const {
    for (std::size_t i = 0; i < xs.size(); ++i)
      losses[i] = read(xs[i], t + index_t(i), theta, past.first(std::size_t(t) + i), work);
  }
  void read_vjp(std::span<const segment> xs, index_t t, params<const T> theta, std::span<const T* const> past,
                std::span<T* const> dpast, T* losses, dparams<T> dtheta, view<T> work) const {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const std::size_t n = std::size_t(t) + i;
      losses[i] = read_vjp(xs[i], index_t(n), theta, past.first(n), dpast.first(n), dtheta, work);
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
  // Writes each layer's keys and values as soon as its normed input is there, and keeps that input.
  struct writing : no_hook {
    const memory_llama* model;
    index_t s;
    const T* head;
    T* m;
    T* kept;
    view<T> work;
    void normed(index_t layer, matrix<const T> all) {
      const matrix<const T> h = model->at_memory_tokens(all);
      if (kept)
        for (index_t j = 0; j < h.cols; ++j)
          std::copy_n(h.data + j * h.stride, h.rows, kept + (layer * h.cols + j) * h.rows);
      model->transfer().forward(layer, head, h, model->memory_positions_of(s), model->in_memory(m, layer),
                                work);
    }
  };
  // Sends the adjoint of each layer's keys and values to the normed input and to the head.
  struct writing_vjp : no_hook {
    const memory_llama* model;
    index_t s;
    const T* head;
    const T* kept;
    const T* dm;
    T* dhead;
    view<T> work;
    void dnormed(index_t layer, matrix<T> all) {
      const matrix<T> dh = model->at_memory_tokens(all);
      const matrix<const T> h(kept + layer * dh.rows * dh.cols, dh.rows, dh.cols);
      model->transfer().vjp(layer, head, h, model->memory_positions_of(s), model->in_memory(dm, layer), dh,
                            dhead, work);
    }
  };

  transfer_head<T> transfer() const {
    return {stack_.map(), weights().data(), map_.head(), stack_.positions()};
  }
  adapters<T> encoder_adapters_at(params<const T> theta) const { return {&map_.encoder(), theta.data()}; }
  template <class U>
  matrix<U> at_memory_tokens(matrix<U> x) const {
    return columns_of(x, options_.segment, memory_tokens());
  }
  template <class U>
  U* in_memory(U* m, index_t layer) const {
    return m + 2 * layer * shape().kv_width() * memory_tokens();
  }
  template <class U>
  static view<U> rest(view<U> v, index_t used) {
    return v.empty() ? v : v.part(used, v.size() - used);
  }

  // Positions of the encoder: the first one of segment s, that of its token i, and one behind the last.
  index_t encoder_start(index_t s) const { return options_.recurrent ? s * memory_tokens() : 0; }
  index_t encoder_position(index_t i) const {
    const index_t behind = i - options_.segment;
    return behind < 0 || options_.positions == memory_positions::following ? i
                                                                           : (behind + 1) * options_.ratio;
  }
  index_t encoder_end(index_t s) const {
    return encoder_start(s) + encoder_position(options_.segment + memory_tokens() - 1) + 1;
  }
  index_t write_end(index_t s) const { return std::max((s + 1) * memory_tokens(), encoder_end(s)); }
  std::span<const index_t> memory_positions_of(index_t s) const {
    return std::span(decoder_positions_)
        .subspan(std::size_t(s * memory_tokens()), std::size_t(memory_tokens()));
  }

  prefix<T> memories(std::span<const T* const> past) const {
    return {past, memory_tokens(), memory_tokens()};
  }
  // Only the sizes mean anything.
  prefix<T> some_memories(index_t n) const {
    return memories(std::span(no_memories_).first(std::size_t(std::min(n, index_t(no_memories_.size())))));
  }
  pass<T> encoder_pass(index_t s, prefix<T> past) const {
    const index_t n = options_.segment + memory_tokens();
    pass<T> p;
    p.length = n;
    p.layers = shape().layers - 1;
    p.positions =
        std::span(encoder_positions_).subspan(std::size_t(options_.recurrent ? s * n : 0), std::size_t(n));
    if (options_.mask == memory_mask::coverage) p.mask = {options_.segment, options_.ratio};
    if (options_.recurrent) p.before = past;
    p.keep = options_.encoder_tape;
    return p;
  }
  pass<T> decoder_pass(index_t t, index_t n, prefix<T> past) const {
    pass<T> p;
    p.length = n;
    p.layers = shape().layers;
    p.positions = std::span(decoder_positions_).subspan(std::size_t(t * memory_tokens()), std::size_t(n));
    p.before = past;
    p.keep = options_.decoder_tape;
    return p;
  }

  index_t kept_size() const { return arena<T>::rounded(shape().layers * shape().hidden * memory_tokens()); }
  index_t transfer_work() const {
    return transfer_head<T>::work_size(shape(), map_.head().rank(), memory_tokens());
  }
  index_t write_work(prefix<T> past, bool vjp) const {
    arena<T> room;
    room.cut(shape().hidden, options_.segment + memory_tokens());
    room.cut_flat(transfer_work());
    return room.used() + stack_.work_size(encoder_pass(0, past), vjp);
  }
  index_t read_work(index_t n, prefix<T> past, bool vjp) const {
    const pass<T> p = decoder_pass(0, n, past);
    arena<T> room;
    room.cut(shape().hidden, n);
    if (vjp) room.cut(shape().hidden, n), room.cut_flat(stack_.tape_size(p));
    return room.used() + std::max(stack_.work_size(p, vjp), head_work(shape(), n));
  }

  void check_write(index_t tokens, index_t s, index_t theta, prefix<T> past) const {
    check_size("memory_llama::write", "x.tokens", tokens, options_.segment);
    check_at_least("memory_llama::write", "s", s, 0);
    check_size("memory_llama::write", "theta", theta, map_.size());
    check_positions("memory_llama::write", s, write_end(s) - s * memory_tokens());
    if (options_.recurrent) check_size("memory_llama::write", "past", past.total(), s * memory_tokens());
  }
  void check_read(const segment& x, index_t t, index_t theta, std::span<const T* const> past) const {
    const index_t n = index_t(x.tokens.size());
    check_at_least("memory_llama::read", "x.tokens", n, 1);
    if (n > options_.segment)
      fail("memory_llama::read", "x.tokens",
           "are " + std::to_string(n) + ", a segment has " + std::to_string(options_.segment));
    if (!x.targets.empty()) check_size("memory_llama::read", "x.targets", index_t(x.targets.size()), n);
    check_tokens("memory_llama::read", "tokens", shape(), x.tokens);
    check_tokens("memory_llama::read", "targets", shape(), x.targets, true);
    check_at_least("memory_llama::read", "t", t, 0);
    check_size("memory_llama::read", "theta", theta, map_.size());
    check_size("memory_llama::read", "past", index_t(past.size()), t);
    check_positions("memory_llama::read", t, n);
  }

  memory_options options_;
  transformer<T> stack_;
  memory_map map_;
  std::shared_ptr<const parameters<T>> weights_;
  std::vector<index_t> decoder_positions_, encoder_positions_;
  std::vector<const T*> no_memories_;
};

/// WRITES theta, see memory_map.hpp. Throws unroll::error on a wrong size, a token outside the vocabulary and
/// a model without weights.
template <class T>
void init_memory(const memory_llama<T>& model, params<T> theta, key k, memory_start start = {}) {
  const config& c = model.shape();
  const T* const w = model.weights().data();
  init_memory<T>(model.trainable(), {w + model.stack().map().embedding(), c.hidden, c.vocabulary}, theta, k,
                 start);
}

}  // namespace unroll::llama
