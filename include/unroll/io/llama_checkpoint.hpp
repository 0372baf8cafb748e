#pragma once

#include "unroll/io/llama_bin.hpp"
#include "unroll/io/llama_gguf.hpp"
#include "unroll/io/rope_scaling.hpp"

namespace unroll::llama {

namespace detail {

// What config.json of transformers holds besides the model that is computed.
inline constexpr harmless_key harmless_in_config[] = {
    {"_name_or_path", "where it was loaded from"},
    {"transformers_version", "what wrote it"},
    {"torch_dtype", "tensors carry their type"},
    {"dtype", "tensors carry their type"},
    {"initializer_range", "of initial weights"},
    {"attention_dropout", "in training only"},
    {"use_cache", "how it is computed, not what"},
    {"pretraining_tp", "how it is computed, not what"},
    {"_attn_implementation", "how it is computed, not what"},
    {"_attn_implementation_autoset", "how it is computed, not what"},
    {"attn_implementation", "how it is computed, not what"},
    {"_flash_attn_2_enabled", "how it is computed, not what"},
    {"chunk_size_feed_forward", "how it is computed, not what"},
    {"torchscript", "how it is computed, not what"},
    {"return_dict", "form of what transformers returns"},
    {"output_attentions", "form of what transformers returns"},
    {"output_hidden_states", "form of what transformers returns"},
    {"bos_token_id", "of texts, not of the model"},
    {"eos_token_id", "of texts, not of the model"},
    {"pad_token_id", "of texts, not of the model"},
    {"unk_token_id", "of texts, not of the model"},
    {"sep_token_id", "of texts, not of the model"},
    {"tokenizer_class", "of texts, not of the model"},
    {"max_sequence_length", "of texts, not of the model; max_position_embeddings counts"},
    {"max_length", "default of transformers' generate()"},
    {"do_sample", "default of transformers' generate()"},
    {"temperature", "default of transformers' generate()"},
    {"top_k", "default of transformers' generate()"},
    {"top_p", "default of transformers' generate()"},
    {"id2label", "of classifiers"},
    {"label2id", "of classifiers"},
    {"problem_type", "of classifiers"},
    {"is_llama_config", "a remark of SmolLM2"},
    {"transformers.js_config", "of another library"},
    {"unsloth_fixed", "a remark of another library"},
    {"unsloth_version", "a remark of another library"}};

// Rows 2i and 2i + 1 of every head of a matrix [heads head_dim, width] (row-major) become rows i and
// i + head_dim / 2, or the other way round. `spare` has room for one head.
template <class T>
void turn_rope_rows(T* rows, index_t heads, index_t head_dim, index_t width, rope_pairs to, T* spare) {
  for (index_t h = 0; h < heads; ++h, rows += head_dim * width) {
    std::copy_n(rows, head_dim * width, spare);
    for (index_t i = 0; i < head_dim; ++i) {
      const index_t neighbour =
          i < head_dim / 2 ? 2 * i : 2 * (i - head_dim / 2) + 1;  // of row i among halves
      const auto [from, into] = to == rope_pairs::halves ? std::pair(neighbour, i) : std::pair(i, neighbour);
      std::copy_n(spare + from * width, width, rows + into * width);
    }
  }
}

// Blocks of the flat weights with their rows in the order of HuggingFace's files, whichever pairs the model
// turns. Holds one matrix.
template <class T>
class file_rows {
 public:
  explicit file_rows(const config& c)
      : c_(c), spare_(c.pairs == rope_pairs::halves ? 0 : std::size_t(c.head_dim * c.hidden)) {}

  const T* operator()(const layout_block& b, const T* weights) { return of(b, weights + b.offset); }
  // The same of the numbers of the block itself.
  const T* of(const layout_block& b, const T* x) {
    const bool query = b.name.ends_with("q_proj.weight");
    if (c_.pairs == rope_pairs::halves || !(query || b.name.ends_with("k_proj.weight"))) return x;
    turned_.assign(x, x + b.size());
    turn_rope_rows(turned_.data(), query ? c_.heads : c_.kv_heads, c_.head_dim, c_.hidden, rope_pairs::halves,
                   spare_.data());
    return turned_.data();
  }

 private:
  const config& c_;
  std::vector<T> turned_, spare_;
};

}  // namespace detail

/// The shape that the text of a config.json describes; `name` stands for the file in messages. Refuses
/// architectures other than Llama's and every option that is neither implemented nor known to change nothing
/// of what the model computes: biases, other activations, scalings of positions that llama/positions.hpp
/// lacks, quantised weights, keys that are not known.
inline config parse_config(std::string_view text, const std::string& name,
                           const std::string& function = "load_llama") {
  const auto root = parse_json(text, function, name);
  const json_members m(root, function, name);
  const auto* architectures = m.find("architectures");
  const bool named =
      architectures && architectures->is_array() &&
      std::find(architectures->begin(), architectures->end(), "LlamaForCausalLM") != architectures->end();
  if (architectures && !named) m.refuse("architectures", "[\"LlamaForCausalLM\"]");
  if (m.text("model_type", named ? "llama" : "") != "llama") m.refuse("model_type", "\"llama\"");
  if (m.text("hidden_act", "silu") != "silu") m.refuse("hidden_act", "\"silu\"");
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (m.truth(key, false)) m.refuse(key, "false");
  if (m.find("quantization_config")) m.refuse("quantization_config", "plain weights");
  if (m.number("partial_rotary_factor", 1) != 1) m.refuse("partial_rotary_factor", "1");
  for (const char* key : {"is_encoder_decoder", "rope_interleaved"})
    if (m.truth(key, false)) m.refuse(key, "false");
  config c;
  c.hidden = m.integer("hidden_size");
  c.intermediate_size = m.integer("intermediate_size");
  c.layers = m.integer("num_hidden_layers");
  c.heads = m.integer("num_attention_heads");
  c.kv_heads = m.integer("num_key_value_heads", c.heads);
  if (!m.find("head_dim") && c.hidden % c.heads != 0)
    m.refuse("hidden_size", "a multiple of the " + std::to_string(c.heads) + " num_attention_heads");
  c.head_dim = m.integer("head_dim", c.hidden / c.heads);
  c.vocabulary = m.integer("vocab_size");
  c.context = m.integer("max_position_embeddings");
  c.norm_epsilon = m.number("rms_norm_eps", 1e-6);
  c.tied = m.truth("tie_word_embeddings", false);
  detail::read_rope(m, c);
  m.refuse_unknown(detail::harmless_in_config);
  check(c, function + ": " + name);
  return c;
}

/// What a config.json says to programs that write texts: the id that begins one (-1: none) and those of which
/// each ends one.
struct text_ids {
  token bos = -1;               ///< begins a text; -1: nothing does
  std::vector<token> eos = {};  ///< each ends a text
};

/// The text of a config.json in the spelling of transformers 5 (`rope_parameters`, `dtype`). Throws for
/// position_policy::ntk, which that has no word for, and on ids beyond the vocabulary. Does not hold
/// position_scaling::length.
inline std::string config_text(const config& c, const text_ids& ids = {}) {
  check(c, "config_text");
  const auto id = [&](token t) {
    if (t >= c.vocabulary)
      fail("config_text", "ids",
           "hold " + std::to_string(t) + ", the vocabulary has " + std::to_string(c.vocabulary));
    return t < 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(t);  // absent, it would be a default
  };
  nlohmann::ordered_json ends = id(ids.eos.empty() ? -1 : ids.eos.front());
  if (ids.eos.size() > 1) {
    ends = nlohmann::ordered_json::array();
    for (const token t : ids.eos) ends.push_back(id(t));
  }
  nlohmann::ordered_json j{{"architectures", {"LlamaForCausalLM"}},
                           {"model_type", "llama"},
                           {"hidden_size", c.hidden},
                           {"intermediate_size", c.intermediate_size},
                           {"num_hidden_layers", c.layers},
                           {"num_attention_heads", c.heads},
                           {"num_key_value_heads", c.kv_heads},
                           {"head_dim", c.head_dim},
                           {"vocab_size", c.vocabulary},
                           {"max_position_embeddings", c.context},
                           {"hidden_act", "silu"},
                           {"rms_norm_eps", c.norm_epsilon},
                           {"rope_parameters", detail::rope_json(c)},
                           {"attention_bias", false},
                           {"mlp_bias", false},
                           {"tie_word_embeddings", c.tied},
                           {"bos_token_id", id(ids.bos)},
                           {"eos_token_id", ends},
                           {"dtype", "float32"}};
  return j.dump(2) + "\n";
}

/// Reorders the rows of all W_Q and W_K for the other convention of rope_pairs and says so in the config: the
/// same model. Allocates one head's rows.
template <class T>
void permute_rope_pairs(config& c, params<T> weights) {
  const weight_map map(c);
  check_size("permute_rope_pairs", "weights", weights.size(), map.size());
  const rope_pairs to = c.pairs == rope_pairs::halves ? rope_pairs::neighbours : rope_pairs::halves;
  std::vector<T> spare(std::size_t(c.head_dim * c.hidden));
  for (index_t i = 0; i < c.layers; ++i) {
    detail::turn_rope_rows(weights.data() + map[i].q, c.heads, c.head_dim, c.hidden, to, spare.data());
    detail::turn_rope_rows(weights.data() + map[i].k, c.kv_heads, c.head_dim, c.hidden, to, spare.data());
  }
  c.pairs = to;
}

namespace detail {

// Where the weights of this shape lie; names and shapes are compared with the files, before anything is
// allocated.
inline weight_map checked_map(const config& c, const tensor_files& files) {
  if (c.layers > index_t(files.names().size()) || weight_count(c) > 1e18)
    files.front().source().refuse("has " + std::to_string(files.names().size()) +
                                  " tensors with its shards, the config says " + std::to_string(c.layers) +
                                  " layers of hidden size " + std::to_string(c.hidden));
  weight_map map(c);
  check_tensors(files, map.names(), [&](const std::string& name) {
    return name.ends_with(".rotary_emb.inv_freq") || (c.tied && name == "lm_head.weight");
  });
  return map;
}

// Where the config ties the matrices, a stored lm_head.weight equals the embedding number by number.
template <class T>
void check_tied(const config& c, const tensor_files& files, load_options options) {
  const std::string embedding = "model.embed_tokens.weight", output = "lm_head.weight";
  if (!c.tied || !files.has(output)) return;
  const safetensors &file = files.holding(output), &first = files.holding(embedding);
  const auto& shape = file.at(output).shape;
  if (const auto& expected = first.at(embedding).shape; shape != expected)
    file.refuse(output, "has shape " + unroll::detail::shape_text(shape) + ", the config needs " +
                            unroll::detail::shape_text(expected));
  std::array<T, 4096> piece, of_embedding;
  const index_t size = c.hidden * c.vocabulary, most = index_t(piece.size());
  for (index_t i = 0; i < size; i += most) {
    const view<T> part(piece.data(), std::min(most, size - i)), other(of_embedding.data(), part.size());
    file.read(output, i, part, options.allow_non_finite);
    first.read(embedding, i, other, options.allow_non_finite);
    for (index_t k = 0; k < part.size(); ++k)
      if (const T e = other[k]; part[k] != e && !(std::isnan(e) && std::isnan(part[k])))
        file.refuse(output, "is " + std::to_string(part[k]) + " at " +
                                unroll::detail::position_text(shape, i + k) + ", " + embedding + " is " +
                                std::to_string(e) + ", although tie_word_embeddings is true");
  }
}

}  // namespace detail

/// The weights of a Llama of this shape from HuggingFace's tensors. Names and shapes are compared with the
/// config before anything is allocated; the weights and a few kilobytes are all that ever is. Where the
/// config ties the matrices, a stored lm_head.weight must equal the embedding number by number. The tables
/// rotary_emb.inv_freq of old files are passed over.
template <class T>
pretrained<T> load_tensors(const config& c, const tensor_files& files, load_options options = {}) {
  const weight_map map = detail::checked_map(c, files);
  pretrained<T> out{c, parameters<T>(map.size())};
  read_tensors(files, map.names(), out.weights.data(), options.allow_non_finite);
  detail::check_tied<T>(c, files, options);
  return out;
}

/// A Llama from a .bin file of llama2.c, from a GGUF file, known by its first bytes, or from a folder with
/// config.json and model.safetensors or its shards. Throws unroll::error that names file, tensor and both
/// values.
template <class T>
pretrained<T> load_llama(const std::filesystem::path& path, load_options options = {}) {
  const char* function = "load_llama";
  if (path.extension() == ".safetensors")
    unroll::detail::fail_file(function, path, "holds tensors only; name its folder, where config.json is");
  std::error_code code;  // of a path that cannot be: opening it names it
  if (!std::filesystem::is_directory(path, code)) {
    const auto source = byte_source::open(path, function);
    return is_gguf(source) ? load_gguf<T>(gguf_files::open(path, function), options)
                           : load_bin<T>(source, options);
  }
  const auto source = byte_source::open(path / "config.json", function);
  const config c = parse_config(source.read(0, source.size()), source.name(), function);
  return load_tensors<T>(c, tensor_files::open(path, function), options);
}

namespace detail {

// Refuses end tokens that another file beside config.json, which readers prefer, would overrule.
inline void check_preferred_ids(const std::filesystem::path& file, const text_ids& ids) {
  std::error_code code;
  if (!std::filesystem::exists(file, code)) return;
  const std::string name = unroll::detail::quoted_path(file);
  const auto root = parse_json(read_file(file, "save_llama"), "save_llama", name);
  const json_members m(root, "save_llama", name);
  const nlohmann::json all = ids.eos, only = ids.eos.front();
  if (const auto* v = m.find("eos_token_id"); v && *v != all && (ids.eos.size() > 1 || *v != only))
    m.refuse("eos_token_id", all.dump() + ", the end tokens that are given");
}

}  // namespace detail

/// Writes config.json and model.safetensors (F32) into a folder, each in one step. Another config.json that
/// is there goes first, and comes back where the weights cannot be written: a folder whose writing was ended
/// is refused, never half old. Rows of W_Q and W_K are turned to the halves that such files have, so that a
/// model with rope_pairs::neighbours comes back as its twin with rope_pairs::halves. Links stay, their
/// targets are replaced. Refuses end tokens other than those that a generation_config.json in the folder
/// names, which readers prefer. Allocates at most one matrix.
template <class T>
void save_llama(const std::filesystem::path& folder, const config& c, params<const T> weights,
                const text_ids& ids = {}) {
  const weight_map map(c);
  check_size("save_llama", "weights", weights.size(), map.size());
  const std::string text = config_text(c, ids);
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) unroll::detail::fail_file("save_llama", folder, "cannot be made: " + code.message());
  if (!ids.eos.empty()) detail::check_preferred_ids(folder / "generation_config.json", ids);
  const auto file = unroll::detail::follow_links(folder / "config.json");
  const bool replaces = std::filesystem::exists(file, code);
  if (code) unroll::detail::fail_file("save_llama", file, "cannot be reached: " + code.message());
  const std::string before = replaces ? read_file(file, "save_llama") : text;
  if (before != text) std::filesystem::remove(file, code);
  if (code) unroll::detail::fail_file("save_llama", file, "cannot be removed: " + code.message());
  detail::file_rows<T> rows(c);
  try {
    save_safetensors(folder / "model.safetensors", map.names(),
                     [&](const layout_block& b) { return rows(b, weights.data()); });
  } catch (...) {
    if (before != text) write_file(file, before, "save_llama");
    throw;
  }
  write_file(file, text, "save_llama");
}

}  // namespace unroll::llama
