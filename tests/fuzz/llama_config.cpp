// A config.json, which is read again after it was written.
#include "tests/fuzz/target.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;

std::vector<std::string> seeds() {
  return {llama::config_text(made::tiny()),
          R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2,
              "num_attention_heads": 4, "vocab_size": 11, "max_position_embeddings": 16, "head_dim": null,
              "rope_scaling": {"type": "linear", "factor": 2.5}, "hidden_act": "silu"})",
          R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 10,
              "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 11, "rms_norm_eps": 1e-5,
              "max_position_embeddings": 16, "tie_word_embeddings": true, "mlp_bias": false,
              "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})",
          R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2,
              "num_attention_heads": 2, "vocab_size": 11, "max_position_embeddings": 64,
              "rope_parameters": {"rope_type": "yarn", "factor": null, "beta_fast": 8, "truncate": false,
                                  "mscale": 0.7, "original_max_position_embeddings": 16}})",
          R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2,
              "num_attention_heads": 2, "vocab_size": 11, "max_position_embeddings": 64,
              "rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1.5], "long_factor": [1, 4],
                               "original_max_position_embeddings": 16, "attention_factor": 1.2}})"};
}

void parse(std::string_view bytes) {
  const auto c = llama::parse_config(bytes, "input");
  if (!(llama::parse_config(llama::config_text(c), "again") == c)) std::abort();
}
