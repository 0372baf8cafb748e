#pragma once

#include "tests/support/gguf_files.hpp"
#include "unroll/io/llama_gguf.hpp"

// A Llama in GGUF, made in memory.
namespace made {

/// No two of its sizes are equal where a mistake could hide; rows of 32 fit blocks.
inline unroll::llama::config gguf_shape(bool tied = true) {
  unroll::llama::config c;
  c.hidden = 32;
  c.intermediate_size = 64;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 8;
  c.vocabulary = 11;
  c.context = 16;
  c.pairs = unroll::llama::rope_pairs::neighbours;
  c.tied = tied;
  return c;
}

inline gguf_file llama_keys(const unroll::llama::config& c) {
  gguf_file f;
  const auto u32 = [&](const char* key, unroll::index_t n) {
    f.u32(std::string("llama.") + key, std::uint32_t(n));
  };
  f.text("general.architecture", "llama").text("general.name", "tiny");
  u32("context_length", c.context);
  u32("block_count", c.layers);
  u32("embedding_length", c.hidden);
  u32("feed_forward_length", c.intermediate_size);
  u32("attention.head_count", c.heads);
  u32("attention.head_count_kv", c.kv_heads);
  f.f32("llama.attention.layer_norm_rms_epsilon", float(c.norm_epsilon));
  f.f32("llama.rope.freq_base", float(c.rope_base));
  return f;
}

/// The name in GGUF of a tensor of HuggingFace's.
inline std::string gguf_name(std::string name) {
  const std::pair<std::string, std::string> parts[] = {{"model.layers.", "blk."},
                                                       {"input_layernorm", "attn_norm"},
                                                       {"post_attention_layernorm", "ffn_norm"},
                                                       {"self_attn.q_proj", "attn_q"},
                                                       {"self_attn.k_proj", "attn_k"},
                                                       {"self_attn.v_proj", "attn_v"},
                                                       {"self_attn.o_proj", "attn_output"},
                                                       {"mlp.gate_proj", "ffn_gate"},
                                                       {"mlp.up_proj", "ffn_up"},
                                                       {"mlp.down_proj", "ffn_down"},
                                                       {"model.embed_tokens", "token_embd"},
                                                       {"model.norm", "output_norm"},
                                                       {"lm_head", "output"}};
  for (const auto& [theirs, ours] : parts)
    if (const auto at = name.find(theirs); at != std::string::npos) name.replace(at, theirs.size(), ours);
  return name;
}

/// `data(block)` returns kind and bytes of a matrix of the weight_map; norms are its numbers.
template <class Data>
void add_weights(gguf_file& f, const unroll::llama::config& c, const float* weights, Data&& data) {
  const unroll::llama::weight_map map(c);
  for (const auto& b : map.names().blocks()) {
    const std::string name = gguf_name(b.name);
    const std::vector<float> numbers(weights + b.offset, weights + b.offset + b.size());
    if (b.cols == 1) {
      f.add(name, {std::uint64_t(b.rows)}, numbers);
    } else {
      const auto [kind, bytes] = data(numbers);
      f.add(name, {std::uint64_t(b.rows), std::uint64_t(b.cols)}, kind, bytes);
    }
  }
}

/// All in F32.
inline gguf_file llama_gguf(const unroll::llama::config& c, const float* weights) {
  gguf_file f = llama_keys(c);
  add_weights(f, c, weights, [](const std::vector<float>& x) {
    return std::pair(0u, std::string(reinterpret_cast<const char*>(x.data()), 4 * x.size()));
  });
  return f;
}

}  // namespace made
