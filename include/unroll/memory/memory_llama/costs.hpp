#pragma once

#include "unroll/exec/of.hpp"
#include "unroll/memory/memory_llama/sizes.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll::llama {

/// What the calls of a memory_llama of this shape cost, without its weights: numbers held and operations, as
/// plan() of estimate/plan.hpp asks for them.
///
/// Operations are the floating-point multiplications and additions of matrix products and attention, not of
/// what costs a few a number (norms, rotations, activations). A vjp is counted with the cotangents of all
/// layers and of all earlier memories, the encoder's without those of the embeddings. With l, M the tokens of
/// a segment and its memory tokens, d = hidden, q = query_width, kv = kv_width, f = intermediate_size, V =
/// vocabulary, L the layers:
///
///   a layer, a token    2 (2 d q + 2 d kv + 3 d f)
///   the output layer    2 d V
///   an adapter          2 rank (in + out)
///   attention           4 q a visible pair of tokens and layer; 10 q in the encoder's vjp, 14 q in the
///                       decoder's with its forward pass
///   the transfer head   4 d kv and its adapters a layer and memory token
template <class X>
class memory_costs {
 public:
  using numbers = typename exec::of<X>::numbers;

  /// Throws unroll::error as memory_llama does.
  memory_costs(const config& c, const memory_options& o) : sizes_(c, o), weights_(weight_map(c).size()) {}

  const config& shape() const { return sizes_.shape(); }
  const memory_options& options() const { return sizes_.options(); }
  index_t segments() const { return sizes_.segments(); }           ///< most that a text may have
  bool can_write(index_t s) const { return sizes_.can_write(s); }  ///< whether segment s has positions enough
  index_t weights() const { return weights_; }                     ///< numbers of the frozen model
  memory_dims size() const { return {sizes_.trainable().size(), sizes_.memory(), sizes_.tape()}; }
  bool independent() const { return !options().recurrent; }
  bool memories_on_host() const { return options().memories_on_host; }
  index_t workspace(index_t earlier, index_t batch = 1) const { return sizes_.workspace(earlier, batch); }
  index_t write_workspace(index_t earlier, index_t batch = 1) const {
    return sizes_.write_workspace(earlier, batch);
  }
  /// The part of the workspace that holds the decoder's activations.
  index_t read_tape(index_t batch) const {
    return sizes_.stack().tape_size(sizes_.decoder(options().segment, 0, batch));
  }
  index_t segment_length() const { return options().segment; }              ///< tokens of a segment
  index_t longest_text() const { return options().longest_text(shape()); }  ///< in whole segments
  /// Whether segments of so many tokens together have positions.
  bool holds(index_t tokens) const {
    const index_t n = (tokens - 1) / segment_length();  // whole segments in front of the last one
    return n <= segments() &&
           n * options().memory_tokens() + tokens - n * segment_length() <= shape().positions() &&
           (n == 0 || can_write(n - 1));
  }

  /// Operations to write the memory of segment s.
  double write(index_t s) const {
    return encoder_products(0) + encoder_adapters(1, 1) + encoder_attention(s, 4) + transfer(1, 1);
  }
  /// Operations of the vjp of that; with saved::inputs also those of the layers once more.
  double write_vjp(index_t s) const {
    double sum = encoder_products(0) - embedding_products() + encoder_adapters(3, 2) +
                 encoder_attention(s, 10) + transfer(3, 2);
    if (options().encoder_tape == saved::inputs)  // everything once more but the last product of each layer
      sum += encoder_products(2 * double(shape().hidden) * double(shape().intermediate_size)) +
             encoder_adapters(1, 1) + encoder_attention(s, 4);
    return sum;
  }
  /// Operations to read segment t, of which there are `tokens` tokens.
  double read(index_t t, index_t tokens) const {
    return double(tokens) * (double(shape().layers) * linear() + output()) + decoder_attention(t, tokens, 4);
  }
  /// The same with the vjp.
  double read_vjp(index_t t, index_t tokens) const {
    double sum = double(tokens) * (2 * double(shape().layers) * linear() + 2 * output()) +
                 decoder_attention(t, tokens, 14);
    if (options().decoder_tape == saved::inputs)
      sum += double(tokens) * double(shape().layers) *
                 (linear() - 2 * double(shape().hidden) * double(shape().intermediate_size)) +
             decoder_attention(t, tokens, 4);
    return sum;
  }

 private:
  /// Products of a layer with one token.
  double linear() const {
    const double d = double(shape().hidden), q = double(shape().query_width()),
                 kv = double(shape().kv_width());
    return 2 * (2 * d * q + 2 * d * kv + 3 * d * double(shape().intermediate_size));
  }
  double output() const { return 2 * double(shape().hidden) * double(shape().vocabulary); }
  /// Tokens of the encoder, and those whose outputs its last layer computes.
  double encoder_tokens() const { return double(options().segment + options().memory_tokens()); }
  double encoder_outputs() const { return encoder_tokens() - double(sizes_.outputs_from()); }
  /// All products with frozen weights, each layer's less `without`.
  double encoder_products(double without) const {
    const double layer = linear() - without, keys = 4 * double(shape().hidden) * double(shape().kv_width());
    return encoder_tokens() * (double(shape().layers - 2) * layer + keys) +
           encoder_outputs() * (layer - keys);
  }
  /// What the cotangents of the segment's embeddings would take, which nobody reads; in an encoder of one
  /// layer they are computed.
  double embedding_products() const {
    const double d = double(shape().hidden), width = double(shape().query_width() + 2 * shape().kv_width());
    return shape().layers > 2 ? 2 * d * width * double(sizes_.outputs_from()) : 0;
  }
  double encoder_adapters(double down, double up) const {
    const std::string last = "layers." + std::to_string(shape().layers - 2) + ".";
    double all = 0, unread = 0;
    for (const layout_block& b : sizes_.trainable().encoder().names().blocks()) {
      const double one = 2 * double(b.size()) * (b.name.ends_with("lora_A.weight") ? down : up);
      all += one;
      const bool keys =
          b.name.find("k_proj") != std::string::npos || b.name.find("v_proj") != std::string::npos;
      if (!keys && b.name.find(last) != std::string::npos) unread += one;
    }
    return encoder_tokens() * all - double(sizes_.outputs_from()) * unread;
  }
  /// All adapters of a map with one token: `down` products with A, `up` products with B.
  double adapted(const lora_map& map, double down, double up) const {
    double sum = 0;
    for (const layout_block& b : map.names().blocks())
      sum += 2 * double(b.size()) * (b.name.ends_with("lora_A.weight") ? down : up);
    return sum;
  }
  double transfer(double down, double up) const {
    return double(options().memory_tokens()) *
           (double(shape().layers) * 4 * double(shape().hidden) * double(shape().kv_width()) +
            adapted(sizes_.trainable().transfer_head(), down, up));
  }
  /// `each`: operations for a number of a head and a visible pair; 4 forwards, 10 backwards.
  double encoder_attention(index_t s, double each) const {
    const index_t n = options().segment + options().memory_tokens();
    kernels::attention_mask mask;
    if (options().mask == memory_mask::coverage) mask = {options().segment, options().ratio};
    double all = 0, wanted = 0;
    for (index_t i = 0; i < n; ++i) {
      double pairs = double(mask.visible(i) + (mask.memory_token(i) ? 1 : 0));
      if (options().recurrent) pairs += double(s) * double(options().memory_tokens());
      all += pairs;
      if (i >= sizes_.outputs_from()) wanted += pairs;
    }
    return (all * double(shape().layers - 2) + wanted) * each * double(shape().query_width());
  }
  double decoder_attention(index_t t, index_t tokens, double each) const {
    const double n = double(tokens),
                 pairs = n * (n + 1) / 2 + n * double(t) * double(options().memory_tokens());
    return pairs * each * double(shape().query_width()) * double(shape().layers);
  }

  memory_sizes<exec::of<X>> sizes_;
  index_t weights_;
};

}  // namespace unroll::llama
