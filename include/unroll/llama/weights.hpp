#pragma once

#include "unroll/core/block.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/llama/config.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::llama {

/// Where each weight of a Llama lies in its flat vector, under HuggingFace's names. A matrix that maps `in`
/// to `out` numbers is stored as in the files, one output after another: column-major in x out, y = W' x.
/// q, k, v and gate, up are neighbours, so that each group is one matrix and one product.
class weight_map {
 public:
  /// Offsets of the weights of one layer.
  struct layer {
    index_t attention_norm, q, k, v, o, mlp_norm, gate, up, down;  ///< in the order of the files
  };

  weight_map() = default;
  explicit weight_map(const config& c) : config_(c) {
    check(c, "weight_map");
    embedding_ = names_.add("model.embed_tokens.weight", c.hidden, c.vocabulary);
    for (index_t i = 0; i < c.layers; ++i) {
      const std::string at = "model.layers." + std::to_string(i) + ".";
      layer l{};
      l.attention_norm = names_.add(at + "input_layernorm.weight", c.hidden);
      l.q = names_.add(at + "self_attn.q_proj.weight", c.hidden, c.query_width());
      l.k = names_.add(at + "self_attn.k_proj.weight", c.hidden, c.kv_width());
      l.v = names_.add(at + "self_attn.v_proj.weight", c.hidden, c.kv_width());
      l.o = names_.add(at + "self_attn.o_proj.weight", c.query_width(), c.hidden);
      l.mlp_norm = names_.add(at + "post_attention_layernorm.weight", c.hidden);
      l.gate = names_.add(at + "mlp.gate_proj.weight", c.hidden, c.intermediate_size);
      l.up = names_.add(at + "mlp.up_proj.weight", c.hidden, c.intermediate_size);
      l.down = names_.add(at + "mlp.down_proj.weight", c.intermediate_size, c.hidden);
      layers_.push_back(l);
    }
    norm_ = names_.add("model.norm.weight", c.hidden);
    output_ = c.tied ? embedding_ : names_.add("lm_head.weight", c.hidden, c.vocabulary);
  }

  const config& shape() const { return config_; }
  index_t size() const { return names_.size(); }
  const layout& names() const& { return names_; }
  void names() && = delete;
  index_t embedding() const { return embedding_; }  ///< offset of the embedding, hidden x vocabulary
  const layer& operator[](index_t i) const { return layers_[std::size_t(i)]; }
  index_t norm() const { return norm_; }
  index_t output() const { return output_; }  ///< the embedding where they are tied

 private:
  config config_;
  layout names_;
  std::vector<layer> layers_;
  index_t embedding_ = 0, norm_ = 0, output_ = 0;
};

/// Norm gains 1; matrices normal with standard deviation 0.02, those that write to the residual stream
/// (o, down) 0.02 / sqrt(2 layers), as GPT-2 (Radford et al. 2019).
template <class T>
void init_weights(const weight_map& map, params<T> w, key k) {
  check_size("init_weights", "w", w.size(), map.size());
  const double residual = 1 / std::sqrt(2.0 * double(map.shape().layers));
  std::int64_t n = 0;
  for (const layout_block& b : map.names().blocks()) {
    const auto part = w.part(b.offset, b.size());
    const bool to_residual =
        b.name.find("o_proj") != std::string::npos || b.name.find("down_proj") != std::string::npos;
    draw_normals(k, n++, part);
    for (T& x : part) x = b.cols == 1 ? T(1) : T(0.02 * (to_residual ? residual : 1)) * x;
  }
}

}  // namespace unroll::llama
