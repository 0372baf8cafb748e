#pragma once

#include "unroll/memory/memory_llama/options.hpp"

namespace unroll::llama {

/// Where the trainable parameters of a memory model lie in their flat vector:
///
///   theta = [adapters of the encoder | `<mem>` | adapters of the transfer head]
///
/// under the names "encoder.model.layers.0.self_attn.q_proj.lora_A.weight" ..., "memory_tokens" (hidden x 1,
/// or x M with separate_tokens), "head.model.layers.0.self_attn.k_proj.lora_A.weight" ... The encoder has no
/// adapters on its last layer, which never runs.
class memory_map {
 public:
  memory_map() = default;
  /// Throws unroll::error on options that do not fit the Llama.
  memory_map(const config& c, const memory_options& o) {
    check(o, c, "memory_map");
    lora_options encoder = o.encoder;
    if (encoder.layers == 0) encoder.layers = c.layers - 1 - encoder.first_layer;
    encoder_ = lora_map(c, encoder);
    transfer_head_ = lora_map(c, o.transfer_head);
    add(lora_map(c, encoder, "encoder."));
    names_.add("memory_tokens", c.hidden, o.separate_tokens ? o.memory_tokens() : 1);
    add(lora_map(c, o.transfer_head, "head."));
  }

  index_t size() const { return names_.size(); }
  const layout& names() const& { return names_; }
  void names() && = delete;
  /// The adapters on their own, under PEFT's names, for encoder_part(theta) and transfer_head_part(theta).
  const lora_map& encoder() const { return encoder_; }
  const lora_map& transfer_head() const { return transfer_head_; }  ///< likewise

  index_t memory_offset() const { return encoder_.size(); }  ///< of the memory tokens in theta
  /// Of the transfer head's adapters in theta.
  index_t transfer_head_offset() const { return size() - transfer_head_.size(); }
  /// The encoder's adapters in theta, size() numbers.
  template <class U, class Space>
  view<U, Space> encoder_part(view<U, Space> theta) const {
    return theta.part(0, memory_offset());
  }
  /// The memory tokens in theta, size() numbers.
  template <class U, class Space>
  view<U, Space> memory_part(view<U, Space> theta) const {
    return theta.part(memory_offset(), transfer_head_offset() - memory_offset());
  }
  /// The transfer head's adapters in theta, size() numbers.
  template <class U, class Space>
  view<U, Space> transfer_head_part(view<U, Space> theta) const {
    return theta.part(transfer_head_offset(), transfer_head_.size());
  }

 private:
  void add(const lora_map& named) {
    for (const layout_block& b : named.names().blocks()) names_.add(b.name, b.rows, b.cols);
  }

  lora_map encoder_, transfer_head_;
  layout names_;
};

}  // namespace unroll::llama
