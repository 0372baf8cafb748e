#pragma once

#include "unroll/exec/offload.hpp"
#include "unroll/llama/lm_head.hpp"
#include "unroll/llama/transformer_sizes.hpp"
#include "unroll/memory/memory_llama/parameters.hpp"
#include "unroll/memory/memory_llama/transfer_head.hpp"

namespace unroll::llama {

/// The sizes of a memory_llama on executor E, in numbers, and where its tokens stand. Has no weights.
template <class E>
class memory_sizes {
  using A = typename E::numbers::activation;
  using P = typename E::numbers::parameter;

 public:
  /// Throws unroll::error on options that do not fit and where not even one segment has positions enough.
  memory_sizes(const config& c, const memory_options& o) : options_(o), stack_(c), map_(c, o) {
    exec::check_offloading<E>("memory_llama", o.memories_on_host);
    if (encoder_end(0) > c.positions())
      fail("memory_llama", "segment",
           "of " + std::to_string(o.segment) + " and its memory tokens take " +
               std::to_string(encoder_end(0)) + " positions, the model has " + std::to_string(c.positions()));
  }

  const memory_options& options() const { return options_; }
  const config& shape() const { return stack_.shape(); }
  const transformer_sizes<E>& stack() const { return stack_; }
  const memory_map& trainable() const { return map_; }                ///< where theta's parts lie
  index_t memory_tokens() const { return options_.memory_tokens(); }  ///< M
  index_t segments() const { return options_.segments(shape()); }     ///< most that a text may have

  /// Of one segment.
  index_t memory() const { return 2 * shape().layers * shape().kv_width() * memory_tokens(); }
  /// Of one encoder graph.
  index_t tape() const { return kept() + stack_.tape_size(encoder(segments())); }
  /// Of the workspace of one call on `batch` segments, the last one behind `earlier` memories.
  index_t workspace(index_t earlier, index_t batch = 1) const {
    return std::max(write_workspace(earlier, batch),
                    decoder_workspace(decoder(options_.segment, earlier, batch), true));
  }
  /// The part of it that writes need.
  index_t write_workspace(index_t earlier, index_t batch = 1) const {
    return encoder_workspace(encoder(earlier, batch), true);
  }
  /// The pass that writes segments, behind `earlier` memories.
  pass_size encoder(index_t earlier, index_t sequences = 1) const {
    pass_size p;
    p.sequences = sequences;
    p.length = options_.segment + memory_tokens();
    p.layers = shape().layers - 1;
    p.outputs_from = outputs_from();
    if (options_.recurrent) p.blocks = earlier, p.keys = memory_tokens();
    p.blocks_on_host = options_.memories_on_host;
    p.keep = options_.encoder_tape;
    return p;
  }
  /// The pass that reads segments of `tokens` tokens, behind `earlier` memories.
  pass_size decoder(index_t tokens, index_t earlier, index_t sequences = 1) const {
    pass_size p;
    p.sequences = sequences;
    p.length = tokens;
    p.layers = shape().layers;
    p.blocks = earlier;
    p.keys = memory_tokens();
    p.blocks_on_host = options_.memories_on_host;
    p.keep = options_.decoder_tape;
    return p;
  }
  /// The encoder's outputs are wanted from here on: at the memory tokens. At two tokens at least, because a
  /// product with one column has other bits.
  index_t outputs_from() const { return options_.segment + std::min<index_t>(0, memory_tokens() - 2); }

  /// The normed inputs at the memory tokens that the tape of a batch begins with.
  index_t kept(index_t batch = 1) const {
    return arena<A>::rounded(batch * shape().layers * shape().hidden * memory_tokens());
  }
  /// Of the transfer head on `batch` segments.
  index_t transfer_workspace(index_t batch) const {
    return transfer_head<E>::workspace_size(shape(), batch * memory_tokens());
  }
  /// Of the encoder's pass p.
  index_t encoder_workspace(const pass_size& p, bool vjp) const {
    arena<A> space;
    space.cut(shape().hidden, p.tokens());
    space.cut_flat(transfer_workspace(p.sequences));
    return space.used() + stack_.workspace_size(p, vjp);
  }
  /// Of the decoder's pass p.
  index_t decoder_workspace(const pass_size& p, bool vjp) const {
    arena<A> space;
    space.cut(shape().hidden, p.tokens());
    space.template cut_as<P>(p.tokens());
    space.template cut_as<P>(1);
    if (vjp) space.cut(shape().hidden, p.tokens()), space.cut_flat(stack_.tape_size(p));
    return space.used() +
           std::max(stack_.workspace_size(p, vjp), lm_head<E>::workspace_size(shape(), p.tokens()));
  }

  /// Throws, in the name of `function`, unless a workspace of `got` numbers is enough for n segments.
  static void check_workspace(std::string_view function, index_t got, index_t needed, index_t n) {
    if (n == 1) return check_at_least(function, "workspace", got, needed);
    if (got < needed)
      fail(function, "workspace",
           "has " + std::to_string(got) + " numbers, a batch of " + std::to_string(n) + " segments needs " +
               std::to_string(needed) + ": workspace() is asked with the largest batch");
  }

  /// Where segment s of the encoder begins.
  index_t encoder_start(index_t s) const { return options_.recurrent ? s * memory_tokens() : 0; }
  /// Where its token i stands, counted from there.
  index_t encoder_position(index_t i) const {
    const index_t behind = i - options_.segment;
    return behind < 0 || options_.positions == memory_positions::following ? i
                                                                           : (behind + 1) * options_.ratio;
  }
  /// One behind the last position of segment s.
  index_t encoder_end(index_t s) const {
    return encoder_start(s) + encoder_position(options_.segment + memory_tokens() - 1) + 1;
  }
  /// One behind the last position that writing segment s needs.
  index_t write_end(index_t s) const { return std::max((s + 1) * memory_tokens(), encoder_end(s)); }
  /// Whether there are positions to write the memory of segment s.
  bool can_write(index_t s) const { return write_end(s) <= shape().positions(); }
  /// Throws, in the name of `function`, unless n tokens behind t memories have positions.
  void check_positions(std::string_view function, index_t t, index_t n) const {
    const index_t end = t * memory_tokens() + n;
    if (end > shape().positions())
      fail(function, "t",
           "segment " + std::to_string(t) + " ends at position " + std::to_string(end) + ", the model has " +
               std::to_string(shape().positions()) + ": the longest text has " +
               std::to_string(options_.longest_text(shape())) + " tokens in " + std::to_string(segments()) +
               " segments");
  }

 private:
  memory_options options_;
  transformer_sizes<E> stack_;
  memory_map map_;
};

}  // namespace unroll::llama
