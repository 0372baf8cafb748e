#pragma once

#include <charconv>

#include "unroll/io/llama_checkpoint.hpp"
#include "unroll/llama/lora.hpp"

namespace unroll::llama {

/// Adapters from files.
template <class T>
struct adapter {
  lora_map map;
  parameters<T> theta;  ///< laid out by map
};

namespace detail {

// "q_proj" or "self_attn.q_proj" as a place in layer_matrix_names; their number where it is none.
inline std::size_t matrix_of(std::string_view name) {
  std::size_t i = 0;
  for (const std::string_view t : layer_matrix_names) {
    if (name == t || name == t.substr(t.find('.') + 1)) break;
    ++i;
  }
  return i;
}

// The matrices that options name, and the layers, where names hold their numbers.
struct named_matrices {
  std::array<bool, 7> adapted{};
  index_t first = 0, layers = 0;  // 0: names do not tell
};

// Adds one of "target_modules": a projection, or the end of a module's name from its layer on
// ("model.layers.3.mlp.up_proj"), which is a place in `numbered`. False where no module has that name.
inline bool read_matrix(std::string_view name, index_t layers, std::array<bool, 7>& plain,
                        std::array<std::set<index_t>, 7>& numbered) {
  if (const std::size_t i = matrix_of(name); i < layer_matrix_names.size()) return plain[i] = true;
  for (std::size_t i = 0; i < layer_matrix_names.size(); ++i) {
    if (!name.ends_with("." + std::string(layer_matrix_names[i]))) continue;
    name.remove_suffix(std::string_view(layer_matrix_names[i]).size() + 1);
    for (const std::string_view parent : {"model.layers.", "layers."})
      if (name.starts_with(parent)) name.remove_prefix(parent.size());
    std::uint64_t layer = 0;
    const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), layer);
    if (code != std::errc{} || end != name.data() + name.size() || std::to_string(layer) != name ||
        layer >= std::uint64_t(layers))
      return false;
    numbered[i].insert(index_t(layer));
    return true;
  }
  return false;
}

inline named_matrices read_matrices(const json_members& m, index_t layers) {
  const char* key = "target_modules";
  named_matrices out;
  const auto* v = m.find(key);
  if (v && *v == "all-linear") {
    out.adapted.fill(true);
    return out;
  }
  if (!v || !v->is_array() || v->empty()) m.refuse(key, "a list of projections");
  std::array<std::set<index_t>, 7> numbered;
  for (const auto& name : *v)
    if (!name.is_string() || !read_matrix(name.get_ref<const std::string&>(), layers, out.adapted, numbered))
      m.refuse(
          key,
          (name.is_string() ? in_quotes(name.get_ref<const std::string&>()) + " to be one of"
                            : "names among") +
              " q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, alone or of a layer up to " +
              std::to_string(layers - 1));
  const std::set<index_t>* chosen = nullptr;
  for (std::size_t i = 0; i < numbered.size(); ++i) {
    if (numbered[i].empty() || out.adapted[i]) continue;
    if (chosen && *chosen != numbered[i]) m.refuse(key, "the same projections in every layer that is named");
    chosen = &numbered[i];
  }
  if (!chosen) return out;
  if (std::find(out.adapted.begin(), out.adapted.end(), true) != out.adapted.end() &&
      index_t(chosen->size()) != layers)
    m.refuse(key, "the same projections in every layer that is named");
  if (const auto* given = m.find("layers_to_transform"); given && !given->empty())
    m.refuse("layers_to_transform", "null beside names with layers");
  out.first = *chosen->begin();
  out.layers = index_t(chosen->size());
  if (*chosen->rbegin() - out.first + 1 != out.layers) m.refuse(key, "layers that follow each other");
  for (std::size_t i = 0; i < numbered.size(); ++i)
    if (!numbered[i].empty()) out.adapted[i] = true;
  return out;
}

// What adapter_config.json of PEFT holds besides what an adapter computes.
inline constexpr harmless_key harmless_in_adapter_config[] = {
    {"base_model_name_or_path", "a name for readers"},
    {"revision", "a name for readers"},
    {"task_type", "a name for readers; the names of the tensors decide"},
    {"auto_mapping", "classes of Python"},
    {"peft_version", "what wrote it"},
    {"inference_mode", "in training only"},
    {"lora_dropout", "in training only"},
    {"loftq_config", "of an init_lora_weights that is refused"},
    {"corda_config", "of an init_lora_weights that is refused"},
    {"lora_ga_config", "of an init_lora_weights that is refused"},
    {"eva_config", "of initial adapters"},
    {"ensure_weight_tying", "of modules_to_save, which is refused"},
    {"qalora_group_size", "of use_qalora, which is refused"},
    {"megatron_core", "of megatron_config, which is refused"},
    {"merge_weights", "how it is computed, not what"}};

// "layers_to_transform": null or [], which are all, a layer, or layers that follow each other.
inline void read_layers(const json_members& m, index_t layers, lora_options& o) {
  const char* key = "layers_to_transform";
  const auto* v = m.find(key);
  if (!v || *v == nlohmann::json::array()) return;
  std::set<std::uint64_t> chosen;
  for (const auto& n : v->is_array() ? *v : nlohmann::json::array({*v})) {
    if (!n.is_number_unsigned() || n.get<std::uint64_t>() >= std::uint64_t(layers))
      m.refuse(key, "layers of the model, which has " + std::to_string(layers));
    chosen.insert(n.get<std::uint64_t>());
  }
  if (*chosen.rbegin() - *chosen.begin() + 1 != chosen.size()) m.refuse(key, "layers that follow each other");
  o.first_layer = index_t(*chosen.begin());
  o.layers = index_t(chosen.size());
}

// Rows of B of W_Q and W_K in theta, map.size() numbers, between the order of the files (halves) and that of
// the model.
template <class T>
void turn_adapter_rows(const config& c, const lora_map& map, T* theta, rope_pairs to) {
  if (c.pairs == rope_pairs::halves) return;
  std::vector<T> spare(std::size_t(c.head_dim * map.rank()));
  for (index_t i = 0; i < c.layers; ++i)
    for (const auto m : {layer_matrix::q, layer_matrix::k})
      if (const index_t b = map.at(i, m).b; b >= 0)
        turn_rope_rows(theta + b, m == layer_matrix::q ? c.heads : c.kv_heads, c.head_dim, map.rank(), to,
                       spare.data());
}

}  // namespace detail

/// What the text of PEFT's adapter_config.json says about adapters on a model of this shape; `name` stands
/// for the file in messages. Refuses every option that is neither implemented nor known to change nothing of
/// what an adapter computes: other kinds of adapters, biases, DoRA, adapters that act from a token on,
/// initial values that move the base weights, ranks or alphas that differ between layers, trained modules
/// beside the adapters, regular expressions, layers with gaps, keys that are not known.
inline lora_options parse_adapter_config(std::string_view text, const config& c, const std::string& name,
                                         const std::string& function = "load_lora") {
  const auto root = parse_json(text, function, name);
  const json_members m(root, function, name);
  if (m.text("peft_type", "") != "LORA") m.refuse("peft_type", "\"LORA\"");
  if (m.text("bias", "none") != "none") m.refuse("bias", "\"none\"");
  for (const char* key : {"fan_in_fan_out", "use_dora", "use_qalora", "lora_bias"})
    if (m.truth(key, false)) m.refuse(key, "false");
  // kinds that move the base weights (pissa, olora, corda, lora_ga, loftq) mean an adapter on another base
  if (const auto* v = m.find("init_lora_weights"); v && !v->is_boolean()) {
    const std::string kind = m.text("init_lora_weights", "");
    if (kind != "gaussian" && kind != "orthogonal" && kind != "eva" && kind != "mica")
      m.refuse(
          "init_lora_weights",
          "true, false, \"gaussian\", \"orthogonal\", \"eva\" or \"mica\", which leave the base weights as "
          "they are; convert the adapter when it is saved");
  }
  for (const char* key :
       {"rank_pattern", "alpha_pattern", "modules_to_save", "exclude_modules", "layer_replication",
        "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "arrow_config",
        "kasa_config", "monteclora_config", "velora_config", "use_bdlora", "megatron_config"})
    if (const auto* v = m.find(key); v && *v != false && !(v->is_structured() && v->empty()))
      m.refuse(key, "nothing, the option is not implemented");
  // the list that PEFT finds itself
  if (const auto* v = m.find("layers_pattern");
      v && !v->empty() && *v != "layers" && *v != nlohmann::json::array({"layers"}))
    m.refuse("layers_pattern", "\"layers\"");
  lora_options o;
  o.rank = m.integer("r");
  if (o.rank > 1 << 16) m.refuse("r", "a rank up to 65536");
  o.alpha = m.number("lora_alpha", 8);
  if (!(std::abs(o.alpha) <= 1e6)) m.refuse("lora_alpha", "a number up to 10^6");
  if (m.truth("use_rslora", false)) o.alpha *= std::sqrt(double(o.rank));  // alpha / sqrt(r), not alpha / r
  const auto named = detail::read_matrices(m, c.layers);
  o.adapted = named.adapted;
  o.first_layer = named.first;
  o.layers = named.layers;
  detail::read_layers(m, c.layers, o);
  m.refuse_unknown(detail::harmless_in_adapter_config);
  return o;
}

/// The text of an adapter_config.json that PEFT reads. `base_model` is a name or a folder, for its reader.
inline std::string adapter_config_text(const config& c, const lora_options& o,
                                       const std::string& base_model = {}) {
  nlohmann::ordered_json targets = nlohmann::ordered_json::array(), layers = nullptr;
  for (std::size_t i = 0; i < o.adapted.size(); ++i)
    if (const std::string name = layer_matrix_names[i]; o.adapted[i])
      targets.push_back(name.substr(name.find('.') + 1));
  const index_t adapted = o.layers == 0 ? c.layers - o.first_layer : o.layers;
  if (adapted != c.layers)
    for (index_t i = 0; i < adapted; ++i) layers.push_back(o.first_layer + i);
  nlohmann::ordered_json alpha = o.alpha;
  if (o.alpha == std::floor(o.alpha) && std::abs(o.alpha) < 1e15) alpha = index_t(o.alpha);
  nlohmann::ordered_json j{{"peft_type", "LORA"},
                           {"task_type", "CAUSAL_LM"},
                           {"base_model_name_or_path", base_model},
                           {"r", o.rank},
                           {"lora_alpha", alpha},
                           {"lora_dropout", 0.0},
                           {"target_modules", targets},
                           {"layers_to_transform", layers},
                           {"bias", "none"},
                           {"fan_in_fan_out", false},
                           {"modules_to_save", nullptr},
                           {"inference_mode", true}};
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

namespace detail {

// What a file of tensors says of the config beside it, for a reader to tell that the two belong together.
inline std::string lora_text(const lora_options& o) {
  std::string out = "r " + std::to_string(o.rank) + ", lora_alpha " + nlohmann::json(o.alpha).dump() +
                    ", layers " + std::to_string(o.first_layer) + " to " +
                    std::to_string(o.first_layer + o.layers - 1);
  for (std::size_t i = 0; i < o.adapted.size(); ++i)
    if (o.adapted[i]) out += std::string(", ") + layer_matrix_names[i];
  return out;
}
inline constexpr const char* lora_text_key = "unroll_lora";

}  // namespace detail

/// Adapters of these options on a model of shape `c`, from the tensors of an adapter_model.safetensors. Names
/// and shapes are compared before anything is allocated.
template <class T>
adapter<T> load_adapter_tensors(const config& c, const lora_options& o, const tensor_files& files,
                                load_options options = {}) {
  adapter<T> out;
  out.map = lora_map(c, o);
  check_tensors(files, out.map.names(), [](const std::string&) { return false; });
  const auto& metadata = files.front().metadata();
  if (const auto said = metadata.find(detail::lora_text_key), end = metadata.end(); said != end)
    if (const std::string text = detail::lora_text(out.map.options()); said->second != text)
      files.front().source().refuse("was written with other options than are beside it: " +
                                    detail::in_quotes(said->second) + ", not " + detail::in_quotes(text));
  out.theta = parameters<T>(out.map.size());
  read_tensors(files, out.map.names(), out.theta.data(), options.allow_non_finite);
  detail::turn_adapter_rows(c, out.map, out.theta.data(), c.pairs);
  return out;
}

/// Adapters from a folder that PEFT or save_lora wrote: adapter_config.json and adapter_model.safetensors.
/// They fit a model of shape `c`, in either convention of rope_pairs. Throws unroll::error that names file,
/// tensor and both values.
template <class T>
adapter<T> load_lora(const std::filesystem::path& folder, const config& c, load_options options = {}) {
  const char* function = "load_lora";
  check(c, function);
  const auto source = byte_source::open(folder / "adapter_config.json", function);
  const auto o = parse_adapter_config(source.read(0, source.size()), c, source.name(), function);
  const auto tensors = folder / "adapter_model.safetensors";
  if (std::error_code code; !std::filesystem::exists(tensors, code))
    refuse_torch_file(folder, "adapter_model.bin", function);
  std::vector<safetensors> files;
  files.emplace_back(byte_source::open(tensors, function));
  return load_adapter_tensors<T>(c, o, tensor_files(std::move(files)), options);
}

/// What save_lora writes.
struct lora_files {
  std::string config;   ///< adapter_config.json
  std::string tensors;  ///< adapter_model.safetensors
};

/// The bytes of both files (F32), under PEFT's names. Rows of B of W_Q and W_K are turned to the halves that
/// such files have. `where` stands for the tensors in messages.
template <class T>
lora_files lora_bytes(const config& c, const lora_map& map, params<const T> theta,
                      const std::string& base_model = {}, const std::string& where = "tensors") {
  check_size("lora_bytes", "theta", theta.size(), map.size());
  const lora_map named(c, map.options());  // whatever prefix `map` has
  check_size("lora_bytes", "map", map.size(), named.size());
  if (named.size() == 0) fail("lora_bytes", "map", "adapts no matrix");
  std::vector<T> turned(theta.begin(), theta.end());
  detail::turn_adapter_rows(c, named, turned.data(), rope_pairs::halves);
  const auto at = [&](const layout_block& b) -> const T* { return turned.data() + b.offset; };
  return {adapter_config_text(c, named.options(), base_model),
          safetensors_bytes(named.names(), at,
                            {{"format", "pt"}, {detail::lora_text_key, detail::lora_text(named.options())}},
                            where)};
}

/// Writes them into a folder, each in one step, the tensors first. They say which config belongs to them, so
/// that load_lora refuses a folder that was left between the two.
template <class T>
void save_lora(const std::filesystem::path& folder, const config& c, const lora_map& map,
               params<const T> theta, const std::string& base_model = {}) {
  const auto files = lora_bytes(c, map, theta, base_model,
                                unroll::detail::quoted_path(folder / "adapter_model.safetensors"));
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) unroll::detail::fail_file("save_lora", folder, "cannot be made: " + code.message());
  write_file(folder / "adapter_model.safetensors", files.tensors, "save_lora");
  write_file(folder / "adapter_config.json", files.config, "save_lora");
}

}  // namespace unroll::llama
