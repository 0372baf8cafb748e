#pragma once

#include "unroll/llama/head.hpp"
#include "unroll/llama/memory_options.hpp"
#include "unroll/llama/transfer_head.hpp"
#include "unroll/llama/transformer.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll::llama {

/// What the calls of a memory_llama of this shape cost, without its weights: numbers held and operations.
/// Sizes come from the functions that the model itself allocates by, so they are those of memory_llama<T>.
///
/// Operations are floating-point multiplications and additions of the matrix products and of attention; what
/// is done once a number (norms, rotations, activations) is left out. A vjp is counted as if every layer
/// passed on to the one below it, and every earlier memory wanted its adjoint.
template <class T>
class memory_costs {
 public:
  /// Throws unroll::error as memory_llama does.
  memory_costs(const config& c, const memory_options& o) : c_(c), o_(o), stack_(c) {
    check(o, c, "memory_costs");
    lora_options encoder = o.encoder;
    if (encoder.layers == 0) encoder.layers = c.layers - 1 - encoder.first_layer;
    encoder_ = lora_map(c, encoder);
    head_ = lora_map(c, o.head);
    no_memories_.resize(std::size_t(std::max<index_t>(0, segments())));
  }

  const config& shape() const { return c_; }
  const memory_options& options() const { return o_; }
  index_t segments() const { return o_.segments(c_); }  ///< most that a text may have
  index_t weights() const { return stack_.map().size(); }

  memory_dims size() const {
    const index_t m = o_.memory_tokens();
    const index_t mem = c_.hidden * (o_.separate_tokens ? m : 1);
    return {encoder_.size() + mem + head_.size(), 2 * c_.layers * c_.kv_width() * m,
            cutter<T>::rounded(c_.layers * c_.hidden * m) + stack_.tape_size(encoder_pass(segments()))};
  }
  index_t workspace(index_t earlier) const {
    const index_t n = o_.segment + o_.memory_tokens();
    cutter<T> write, read;
    write.cut(c_.hidden, n);
    write.cut_flat(transfer_head<T>::work_size(c_, head_.rank(), o_.memory_tokens()));
    write.cut_flat(stack_.work_size(encoder_pass(earlier)));
    read.cut(c_.hidden, o_.segment);
    read.cut(c_.hidden, o_.segment);
    read.cut_flat(decoder_tape(earlier));
    read.cut_flat(std::max(stack_.work_size(decoder_pass(earlier)), head_work(c_, o_.segment)));
    return std::max(write.used(), read.used());
  }
  /// The part of the workspace that holds the decoder's activations.
  index_t decoder_tape(index_t earlier) const { return stack_.tape_size(decoder_pass(earlier)); }

  double write(index_t s) const {
    const double n = double(o_.segment + o_.memory_tokens());
    return n * double(c_.layers - 1) * linear() + n * adapted(encoder_, 1, 1) + encoder_attention(s, 4) +
           transfer(1, 1);
  }
  double write_vjp(index_t s) const {
    const double n = double(o_.segment + o_.memory_tokens());
    double sum = n * double(c_.layers - 1) * linear() + n * adapted(encoder_, 3, 2) +
                 encoder_attention(s, 10) + transfer(3, 2);
    if (o_.encoder_tape == saved::inputs)  // everything once more but the last product of each layer
      sum += n * double(c_.layers - 1) * (linear() - 2 * double(c_.hidden) * double(c_.mlp)) +
             n * adapted(encoder_, 1, 1) + encoder_attention(s, 4);
    return sum;
  }
  /// Of segment t with `tokens` tokens.
  double read(index_t t, index_t tokens) const {
    return double(tokens) * (double(c_.layers) * linear() + output()) + decoder_attention(t, tokens, 4);
  }
  double read_vjp(index_t t, index_t tokens) const {
    double sum =
        double(tokens) * (2 * double(c_.layers) * linear() + 2 * output()) + decoder_attention(t, tokens, 14);
    if (o_.decoder_tape == saved::inputs)
      sum += double(tokens) * double(c_.layers) * (linear() - 2 * double(c_.hidden) * double(c_.mlp)) +
             decoder_attention(t, tokens, 4);
    return sum;
  }

 private:
  /// Products of a layer with one token.
  double linear() const {
    const double d = double(c_.hidden), q = double(c_.query_width()), kv = double(c_.kv_width());
    return 2 * (2 * d * q + 2 * d * kv + 3 * d * double(c_.mlp));
  }
  double output() const { return 2 * double(c_.hidden) * double(c_.vocabulary); }
  /// All adapters of a map with one token: `down` products with A, `up` products with B.
  double adapted(const lora_map& map, double down, double up) const {
    double sum = 0;
    for (const layout_block& b : map.names().blocks())
      sum += 2 * double(b.size()) * (b.name.ends_with("lora_A.weight") ? down : up);
    return sum;
  }
  double transfer(double down, double up) const {
    return double(o_.memory_tokens()) *
           (double(c_.layers) * 4 * double(c_.hidden) * double(c_.kv_width()) + adapted(head_, down, up));
  }
  /// `each`: operations for a number of a head and a visible pair; 4 forwards, 10 backwards.
  double encoder_attention(index_t s, double each) const {
    const index_t n = o_.segment + o_.memory_tokens();
    const kernels::attention_mask mask = encoder_pass(0).mask;
    double pairs = 0;
    for (index_t i = 0; i < n; ++i) pairs += double(mask.visible(i) + (mask.memory_token(i) ? 1 : 0));
    if (o_.recurrent) pairs += double(n) * double(s) * double(o_.memory_tokens());
    return pairs * each * double(c_.query_width()) * double(c_.layers - 1);
  }
  double decoder_attention(index_t t, index_t tokens, double each) const {
    const double n = double(tokens), pairs = n * (n + 1) / 2 + n * double(t) * double(o_.memory_tokens());
    return pairs * each * double(c_.query_width()) * double(c_.layers);
  }

  // Only the sizes mean anything.
  prefix<T> memories(index_t n) const {
    const auto some = std::min(std::size_t(n), no_memories_.size());
    return {std::span(no_memories_).first(some), o_.memory_tokens(), o_.memory_tokens()};
  }
  pass<T> encoder_pass(index_t earlier) const {
    pass<T> p;
    p.length = o_.segment + o_.memory_tokens();
    p.layers = c_.layers - 1;
    if (o_.mask == memory_mask::coverage) p.mask = {o_.segment, o_.ratio};
    if (o_.recurrent) p.before = memories(earlier);
    p.keep = o_.encoder_tape;
    return p;
  }
  pass<T> decoder_pass(index_t earlier) const {
    pass<T> p;
    p.length = o_.segment;
    p.layers = c_.layers;
    p.before = memories(earlier);
    p.keep = o_.decoder_tape;
    return p;
  }

  config c_;
  memory_options o_;
  transformer<T> stack_;
  lora_map encoder_, head_;
  std::vector<const T*> no_memories_;
};

}  // namespace unroll::llama
