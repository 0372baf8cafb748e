#pragma once

#include "unroll/io/gguf_files.hpp"
#include "unroll/io/llama_pretrained.hpp"

namespace unroll::llama {

namespace detail {

// The keys of a Llama in a GGUF file, "llama." and one of these.
class gguf_keys {
 public:
  explicit gguf_keys(const gguf& file) : file_(file) {}

  template <class T>
  T get(const char* key) const {
    return file_.get<T>(full(key));
  }
  template <class T>
  T get(const char* key, T otherwise) const {
    return file_.get<T>(full(key), otherwise);
  }
  bool has(const char* key) const { return file_.has(full(key)); }

  index_t count(const char* key) const { return index_t(get<std::uint32_t>(key)); }
  index_t count(const char* key, index_t otherwise) const { return has(key) ? count(key) : otherwise; }
  double number(const char* key) const { return double(get<float>(key)); }
  double number(const char* key, double otherwise) const { return has(key) ? number(key) : otherwise; }
  // A number, or one for each layer, which must be equal.
  index_t count_of_layers(const char* key, index_t layers) const {
    const auto found = file_.keys().find(full(key));
    if (found == file_.keys().end() || !found->second.is_array) return count(key);
    std::vector<index_t> all;
    if (found->second.type == gguf_type::i32)
      for (const auto n : file_.list<std::int32_t>(full(key))) all.push_back(n);
    else
      for (const auto n : file_.list<std::uint32_t>(full(key))) all.push_back(index_t(n));
    if (index_t(all.size()) != layers)
      refuse(key, "a list of " + std::to_string(all.size()),
             "one for each of " + std::to_string(layers) + " layers");
    if (all.empty()) refuse(key, "a list of none", "one for each layer, of which there are none");
    for (const index_t n : all)
      if (n != all[0])
        refuse(key, std::to_string(all[0]) + " in one layer and " + std::to_string(n) + " in another",
               "one number for all layers");
    return all[0];
  }
  void expect(const char* key, index_t found, index_t expected) const {
    if (found != expected) refuse(key, std::to_string(found), std::to_string(expected));
  }
  [[noreturn]] void refuse(const char* key, const std::string& found, const std::string& expected) const {
    file_.refuse_key(full(key), found, expected);
  }
  // Keys that nobody here reads may change the model.
  void refuse_unknown() const {
    static constexpr std::string_view known[] = {"context_length",
                                                 "block_count",
                                                 "embedding_length",
                                                 "feed_forward_length",
                                                 "vocab_size",
                                                 "attention.head_count",
                                                 "attention.head_count_kv",
                                                 "attention.key_length",
                                                 "attention.value_length",
                                                 "attention.layer_norm_rms_epsilon",
                                                 "rope.dimension_count",
                                                 "rope.freq_base",
                                                 "rope.scale_linear",
                                                 "rope.scaling.type",
                                                 "rope.scaling.factor",
                                                 "rope.scaling.original_context_length",
                                                 "rope.scaling.attn_factor",
                                                 "rope.scaling.yarn_beta_fast",
                                                 "rope.scaling.yarn_beta_slow",
                                                 "expert_count",
                                                 "expert_used_count"};
    static constexpr harmless_key harmless[] = {
        {"rope.scaling.finetuned", "a remark"},
        {"tensor_data_layout", "a remark of old files: rows of q and k are in pairs anyway"},
    };
    file_.refuse_unknown("llama.", known, harmless);
    for (const char* key : {"expert_count", "expert_used_count"}) expect(key, count(key, 0), 0);
  }

 private:
  static std::string full(const char* key) { return std::string("llama.") + key; }
  const gguf& file_;
};

// How positions are stretched, as llama.cpp understands a Llama; the factor without a type is linear.
inline void read_gguf_scaling(const gguf_keys& k, config& c) {
  const auto type = k.get<std::string>("rope.scaling.type", "linear");
  if (type != "none" && type != "linear" && type != "yarn")
    k.refuse("rope.scaling.type", unroll::detail::in_quotes(type), "\"none\", \"linear\" or \"yarn\"");
  const double factor =
      type == "none"
          ? 1
          : k.number(k.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear", 1);
  const double attention = k.number("rope.scaling.attn_factor", 1);
  if (type == "yarn") {
    c.beyond = position_policy::yarn;
    c.scaling.original_context = k.count("rope.scaling.original_context_length", 0);
    if (attention != 1) c.scaling.attention_factor = attention * (0.1 * std::log(factor) + 1);
    for (const auto& [key, usual] : {std::pair("rope.scaling.yarn_beta_fast", c.scaling.beta_fast),
                                     std::pair("rope.scaling.yarn_beta_slow", c.scaling.beta_slow)})
      if (const double beta = k.number(key, usual); beta != usual)
        k.refuse(key, number_text(beta), number_text(usual) + ", which llama.cpp takes for every Llama");
  } else {
    if (factor != 1) c.beyond = position_policy::linear;
    if (attention != 1)
      k.refuse("rope.scaling.attn_factor", number_text(attention), "1 where the type is " + type);
  }
  if (c.beyond != position_policy::refuse) c.position_factor = factor;
}

// rope_freqs.weight divides the inverse frequencies, which is how Llama 3.1 is stretched: longrope with one
// list of factors for every length and no attention factor.
inline void read_gguf_frequencies(const gguf_files& files, config& c) {
  const std::string name = "rope_freqs.weight";
  if (!files.has(name)) return;
  const gguf& file = files.holding(name);
  const auto& t = file.at(name);
  if (t.shape != std::vector<index_t>{c.head_dim / 2})
    file.refuse(name, "has shape " + unroll::detail::shape_text(t.shape) + ", heads of " +
                          std::to_string(c.head_dim) + " need [" + std::to_string(c.head_dim / 2) + "]");
  if (c.beyond != position_policy::refuse)
    file.refuse(name, "stands beside positions that are " +
                          std::string(position_names[std::size_t(c.beyond)]) + " of factor " +
                          number_text(c.position_factor) + "; both at once are not implemented");
  std::vector<double> factors(std::size_t(t.size));
  file.read(name, 0, view<double>(factors));
  if (std::all_of(factors.begin(), factors.end(), [](double f) { return f == 1; })) return;
  c.beyond = position_policy::longrope;
  c.scaling.short_factor = c.scaling.long_factor = std::move(factors);
}

// The names of the blocks of a weight_map in GGUF, in its order.
inline std::vector<std::string> gguf_names(const config& c) {
  std::vector<std::string> out{"token_embd.weight"};
  for (index_t i = 0; i < c.layers; ++i)
    for (const char* matrix : {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm",
                               "ffn_gate", "ffn_up", "ffn_down"})
      out.push_back("blk." + std::to_string(i) + "." + matrix + ".weight");
  out.push_back("output_norm.weight");
  if (!c.tied) out.push_back("output.weight");
  return out;
}

// Without the slow extents of 1, which writers leave out or not: [1, 64] is [64].
inline std::vector<index_t> without_ones(std::vector<index_t> shape) {
  while (shape.size() > 1 && shape[0] == 1) shape.erase(shape.begin());
  return shape;
}

// Where the weights lie; names and shapes are compared with the files before anything is allocated.
inline weight_map checked_map(const config& c, const gguf_files& files) {
  if (c.layers > index_t(files.names().size()) || weight_count(c) > 1e18)
    files.front().source().refuse("has " + std::to_string(files.names().size()) + " tensors, its keys say " +
                                  std::to_string(c.layers) + " layers of hidden size " +
                                  std::to_string(c.hidden));
  weight_map map(c);
  std::vector<std::string> names = gguf_names(c);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const layout_block& b = map.names().blocks()[i];
    const gguf& file = files.holding(names[i]);
    const auto found = without_ones(file.at(names[i]).shape), expected = without_ones({b.cols, b.rows});
    if (found != expected)
      file.refuse(names[i], "has shape " + unroll::detail::shape_text(found) + ", the keys need " +
                                unroll::detail::shape_text(expected));
  }
  names.push_back("rope_freqs.weight");
  std::sort(names.begin(), names.end());
  for (const auto& [name, part] : files.names())
    if (!std::binary_search(names.begin(), names.end(), name))
      files.holding(name).refuse(name, "is none of a Llama without biases, experts and adapters");
  return map;
}

}  // namespace detail

/// The shape of the Llama in a GGUF file: architecture "llama", whose rows of W_Q and W_K lie in
/// rope_pairs::neighbours. Types and defaults of its keys are llama.cpp's (llama-cpp-python 0.3.36): without
/// a rope.scaling.type a factor is linear, head_count_kv is head_count, key_length is the width by the heads,
/// an absent output.weight is the embedding. rope_freqs.weight (Llama 3.1) becomes position_policy::longrope.
/// Refused by name: other architectures, keys "llama." that nobody knows, layers that differ.
inline config gguf_config(const gguf_files& files) {
  const gguf& file = files.front();
  if (const auto a = file.get<std::string>("general.architecture"); a != "llama")
    file.refuse_key("general.architecture", unroll::detail::in_quotes(a), "\"llama\"");
  const detail::gguf_keys k(file);
  k.refuse_unknown();
  config c;
  c.pairs = rope_pairs::neighbours;
  c.context = k.count("context_length");
  c.layers = k.count("block_count");
  c.hidden = k.count("embedding_length");
  c.intermediate_size = k.count_of_layers("feed_forward_length", c.layers);
  c.heads = k.count_of_layers("attention.head_count", c.layers);
  c.kv_heads =
      k.has("attention.head_count_kv") ? k.count_of_layers("attention.head_count_kv", c.layers) : c.heads;
  if (!k.has("attention.key_length") && (c.heads < 1 || c.hidden % c.heads != 0))
    k.refuse("embedding_length", std::to_string(c.hidden),
             "a multiple of the " + std::to_string(c.heads) + " heads");
  c.head_dim = k.has("attention.key_length") ? k.count("attention.key_length") : c.hidden / c.heads;
  k.expect("attention.value_length", k.count("attention.value_length", c.head_dim), c.head_dim);
  k.expect("rope.dimension_count", k.count("rope.dimension_count", c.head_dim), c.head_dim);
  c.norm_epsilon = k.number("attention.layer_norm_rms_epsilon");
  c.rope_base = k.number("rope.freq_base", 10000);
  c.tied = !files.has("output.weight");
  c.vocabulary = files.holding("token_embd.weight").at("token_embd.weight").shape[0];
  k.expect("vocab_size", k.count("vocab_size", c.vocabulary), c.vocabulary);
  detail::read_gguf_scaling(k, c);
  detail::read_gguf_frequencies(files, c);
  check(c, file.source().function() + ": " + file.source().name());
  return c;
}

/// The Llama in a GGUF file, dequantised. Names, shapes and kinds are compared before anything is allocated;
/// the weights and a few kilobytes are all that ever is. Throws unroll::error that names file, key or tensor
/// and both values.
template <class T>
pretrained<T> load_gguf(const gguf_files& files, load_options options = {}) {
  const config c = gguf_config(files);
  const weight_map map = detail::checked_map(c, files);
  const auto names = detail::gguf_names(c);
  pretrained<T> out{c, parameters<T>(map.size(), unwritten())};
  for (std::size_t i = 0; i < names.size(); ++i) {
    const layout_block& b = map.names().blocks()[i];
    files.holding(names[i]).read(names[i], 0, view<T>(out.weights.data() + b.offset, b.size()),
                                 options.allow_non_finite);
  }
  return out;
}

}  // namespace unroll::llama
