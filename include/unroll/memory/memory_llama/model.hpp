#pragma once

#include <memory>

#include "unroll/memory/memory_llama/decoder.hpp"
#include "unroll/memory/memory_llama/encoder.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll::llama {

/// A frozen Llama that reads a text segment by segment beside the memories of the earlier segments (UIO-LLMs,
/// arXiv 2406.18173, section 3; where its released code differs, memory_options chooses). A memory_model:
///
///   write   segment s, and behind it M learned tokens `<mem>`, goes through the encoder, the Llama with
///           adapters, up to the attention of its last layer. What stands at the `<mem>` tokens in front of
///           the attention of each layer becomes keys and values by the transfer head (encoder.hpp,
///           transfer_head.hpp):
///             m_s = (K_0, V_0, ..., K_{L-1}, V_{L-1}),  each kv_width x M,
///           the keys rotated to the positions s M .. s M + M - 1 once and for all: a block of the prefix
///           that the decoder sees
///   read    segment t goes through the decoder, the Llama without adapters, behind m_0 .. m_{t-1}, at
///           positions from t M on (decoder.hpp); J_t is the sum of -log p over the scored targets, in nats
///
/// theta = [encoder adapters | `<mem>` | transfer head's adapters], see memory_map. Theta reaches a loss
/// through the memories only: read_vjp sends adjoints to them and leaves dtheta alone, and the loss of the
/// first segment has no gradient. With `recurrent` the encoder of segment s also sees m_0 .. m_{s-1}, as in
/// RMT and AutoCompressors.
///
/// A text ends where positions do, at config::positions(): segments() and longest_text() say so before, read
/// throws beyond. With P the numbers of the layers' matrices and l the tokens of a segment,
///
///   write      2 P (l + M) (L - 1) / L flops, less what its last layer does not compute for the l tokens
///   write_vjp  the same again: frozen weights have no gradient
///   read       2 P l flops and the output matrix
///   read_vjp   twice that
///
/// and attention. Copies share the frozen weights and all tables. X: see transformer; weights, memories,
/// theta and adjoints live at the executor's place.
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
      : stack_(c, std::move(e)), tables_(std::make_shared<const tables>(c, o)), weights_(std::move(weights)) {
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
  /// The sizes of all that it works with.
  const memory_sizes<executor_type>& sizes() const { return tables_->sizes; }
  memory_dims size() const { return {trainable().size(), sizes().memory(), sizes().tape()}; }
  bool independent() const { return !options().recurrent; }
  /// Whether `past` and `dpast` of all calls are in memory of the host, see memory_options.
  bool memories_on_host() const { return options().memories_on_host; }
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
    return sizes().encoder_workspace(encoder().pass_of(0, batch, past), false);
  }

  /// The calls of memory_model, with its shapes. A batch of several is one pass of as many sequences. Throws
  /// unroll::error unless the segments are whole, their tokens are in the vocabulary and, in a recurrent
  /// model, there is one and `past` holds s memories; and where positions end.
  void write(std::span<const segment> xs, index_t s, params<const P> theta, std::span<const M* const> past,
             view<M> m, view<A> tape, view<A> workspace) const {
    encoder().write(xs, s, theta, memories_to_write(past), m, tape, workspace);
  }
  /// Of one segment; the earlier memories may lie in blocks of any shape. s: their number; m, tape: size()
  /// numbers; workspace: encode_workspace(past).
  void encode(std::span<const token> tokens, index_t s, params<const P> theta, prefix<M> past, view<M> m,
              view<A> tape, view<A> workspace) const {
    const segment x{tokens};
    encoder().write({&x, 1}, s, theta, past, m, tape, workspace);
  }
  void write_vjp(std::span<const segment> xs, index_t s, params<const P> theta,
                 std::span<const M* const> past, write_graphs<numbers> graphs, memory_gradients<numbers> to,
                 view<A> workspace) const {
    encoder().write_vjp(xs, s, theta, memories_to_write(past), graphs, to, workspace);
  }

  /// Throws unroll::error unless every segment has 1 to l tokens and positions left, tokens and targets are
  /// in the vocabulary and `past` holds t + n - 1 memories. Segments of equal length make one pass; one
  /// without a scored target costs nothing.
  void read(std::span<const segment> xs, index_t t, params<const P> theta, std::span<const M* const> past,
            P* losses, view<A> workspace) const {
    decoder(theta).read(xs, t, past, losses, workspace);
  }
  /// Leaves dtheta alone. Where no adjoint is wanted it costs what read costs.
  void read_vjp(std::span<const segment> xs, index_t t, params<const P> theta, std::span<const M* const> past,
                P* losses, memory_gradients<numbers> to, view<A> workspace) const {
    decoder(theta).read_vjp(xs, t, past, to.dpast, losses, workspace, to.cut);
  }

  // Of one segment. read and read_vjp return the loss, so that they wait for it.
  void write(const segment& x, index_t s, params<const P> theta, std::span<const M* const> past, view<M> m,
             view<A> tape, view<A> workspace) const {
    write(std::span(&x, 1), s, theta, past, m, tape, workspace);
  }
  void write_vjp(const segment& x, index_t s, params<const P> theta, std::span<const M* const> past,
                 write_graphs<numbers> graph, memory_gradients<numbers> to, view<A> workspace) const {
    write_vjp(std::span(&x, 1), s, theta, past, graph, to, workspace);
  }
  P read(const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
         view<A> workspace) const {
    return loss_at(decoder(theta).read({&x, 1}, t, past, nullptr, workspace));
  }
  P read_vjp(const segment& x, index_t t, params<const P> theta, std::span<const M* const> past,
             memory_gradients<numbers> to, view<A> workspace) const {
    return loss_at(decoder(theta).read_vjp({&x, 1}, t, past, to.dpast, nullptr, workspace, to.cut));
  }

 private:
  using tables = memory_tables<executor_type>;

  memory_encoder<X> encoder() const { return {stack_, *tables_, weights_->data()}; }
  memory_decoder<X> decoder(params<const P> theta) const {
    check_size("memory_llama::read", "theta", theta.size(), trainable().size());
    return {stack_, *tables_, weights_->data()};
  }
  /// What a write sees of the earlier memories.
  prefix<M> memories_to_write(std::span<const M* const> past) const {
    if (!options().recurrent) return {};
    return {
        .blocks = past, .keys = memory_tokens(), .capacity = memory_tokens(), .on_host = memories_on_host()};
  }
  // loss: one number, or null: 0.
  P loss_at(const P* loss) const { return loss ? exec::value(executor(), loss) : P(0); }

  transformer<X> stack_;
  std::shared_ptr<const tables> tables_;
  std::shared_ptr<const weights_type> weights_;
};

}  // namespace unroll::llama
