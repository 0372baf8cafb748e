#pragma once

#include <set>

#include "unroll/io/json.hpp"
#include "unroll/io/module_pattern.hpp"
#include "unroll/llama/lora.hpp"

namespace unroll::llama {

/// What PEFT does to the base weights W [out, in] when it loads an adapter, before it adds scale B A. `pissa`
/// (Meng et al. 2024, arXiv 2404.02948): the part of the `rank` largest singular values goes out. `olora`
/// (Büyükakyüz 2024, arXiv 2406.01775): scale Q_r R_r goes out, with Q_r the first `rank` columns of Q and
/// R_r the first rows of R in W = Q R.
enum class base_change { none, pissa, olora };

/// What an adapter_config.json says.
struct adapter_options {
  lora_options lora;                     ///< the adapters
  base_change base = base_change::none;  ///< what PEFT does before it adds them
  bool dora = false;                     ///< magnitudes of the outputs (Liu et al. 2024, arXiv 2402.09353)
};

namespace detail {

using unroll::detail::in_quotes;

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

// The name of a module in transformers' Llama, and whether it is a matrix that can have an adapter.
struct llama_module {
  std::string name;
  bool adaptable = false;
  index_t layer = 0;
  layer_matrix matrix = layer_matrix::q;
};

inline std::string module_name(index_t layer, layer_matrix m) {
  return "model.layers." + std::to_string(layer) + "." + layer_matrix_names[std::size_t(m)];
}

// All of them, by layer and matrix.
inline std::vector<llama_module> modules_of(const config& c) {
  std::vector<llama_module> out;
  for (const char* name :
       {"model", "model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head"})
    out.push_back({name});
  for (index_t i = 0; i < c.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i);
    for (const char* name :
         {"", ".self_attn", ".mlp", ".mlp.act_fn", ".input_layernorm", ".post_attention_layernorm"})
      out.push_back({layer + name});
    for (std::size_t m = 0; m < layer_matrix_names.size(); ++m)
      out.push_back({module_name(i, layer_matrix(m)), true, i, layer_matrix(m)});
  }
  return out;
}

// A pattern of the member `key`, wrapped as PEFT does; refused by name where std::regex would read it
// otherwise.
inline unroll::detail::module_pattern read_pattern(const json_members& m, const char* key,
                                                   const std::string& pattern, const char* before = "",
                                                   const char* after = "") {
  std::string why = unroll::detail::pattern_check::refusal(pattern);
  if (why.empty()) try {
      return unroll::detail::module_pattern(before + pattern + after);
    } catch (const std::regex_error& e) {
      why = e.what();
    }
  m.refuse(key, "a regular expression that std::regex reads as Python does: " + in_quotes(pattern) + " has " +
                    why);
}

// PEFT: key == name, or key ends with "." + name.
inline bool is_or_ends(const std::string& key, const std::string& name) {
  return key == name ||
         (key.size() > name.size() && key.ends_with(name) && key[key.size() - name.size() - 1] == '.');
}

inline std::vector<std::string> read_names(const json_members& m, const char* key) {
  std::vector<std::string> out;
  for (const auto& name : *m.find(key))
    if (name.is_string())
      out.push_back(name.get<std::string>());
    else
      m.refuse(key, "names among q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj");
  return out;
}

// "layers_to_transform": null or [], which are all, a layer, or several.
inline std::set<index_t> read_layers(const json_members& m, index_t layers) {
  const char* key = "layers_to_transform";
  std::set<index_t> chosen;
  const auto* v = m.find(key);
  if (!v) return chosen;
  for (const auto& n : v->is_array() ? *v : nlohmann::json::array({*v})) {
    if (!n.is_number_unsigned() || n.get<std::uint64_t>() >= std::uint64_t(layers))
      m.refuse(key, "layers of the model, which has " + std::to_string(layers));
    chosen.insert(n.get<index_t>());
  }
  return chosen;
}

// What "target_modules" and "layers_to_transform" choose, by PEFT's rule (0.21.2): a name is a module's own,
// or what it ends with behind a dot, and only then the layers count; a text is a regular expression of the
// whole name.
inline std::vector<llama_module> read_targets(const json_members& m, const config& c) {
  const char* key = "target_modules";
  const auto* v = m.find(key);
  const auto all = modules_of(c);
  const auto layers = read_layers(m, c.layers);
  std::vector<bool> chosen(all.size());
  const auto in_layers = [&](const llama_module& module) {
    return layers.empty() || (module.adaptable && layers.contains(module.layer));
  };
  if (v && *v == "all-linear") {
    for (std::size_t i = 0; i < all.size(); ++i) chosen[i] = all[i].adaptable && in_layers(all[i]);
  } else if (v && v->is_string()) {
    if (!layers.empty()) m.refuse("layers_to_transform", "null beside a regular expression");
    const auto pattern = read_pattern(m, key, v->get<std::string>());
    for (std::size_t i = 0; i < all.size(); ++i) chosen[i] = pattern.matches(all[i].name);
  } else {
    if (!v || !v->is_array() || v->empty()) m.refuse(key, "a list of projections, or a regular expression");
    for (const std::string& name : read_names(m, key)) {
      bool found = false, others = false;
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (!is_or_ends(all[i].name, name)) continue;
        (all[i].adaptable ? found : others) = true;
        if (name == all[i].name || in_layers(all[i])) chosen[i] = true;
      }
      if (!found || others)
        m.refuse(key,
                 in_quotes(name) +
                     " to be one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, alone or "
                     "of a layer up to " +
                     std::to_string(c.layers - 1));
    }
  }
  if (const auto* excluded = m.find("exclude_modules"); excluded && !excluded->empty()) {
    const char* other = "exclude_modules";
    if (!excluded->is_string() && !excluded->is_array())
      m.refuse(other, "a list of names, or a regular expression");
    if (excluded->is_string()) {
      const auto pattern = read_pattern(m, other, excluded->get<std::string>());
      for (std::size_t i = 0; i < all.size(); ++i)
        if (pattern.matches(all[i].name)) chosen[i] = false;
    } else {
      for (const std::string& name : read_names(m, other))
        for (std::size_t i = 0; i < all.size(); ++i)
          if (is_or_ends(all[i].name, name)) chosen[i] = false;
    }
  }
  std::vector<llama_module> out;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!chosen[i]) continue;
    if (!all[i].adaptable)
      m.refuse(
          key,
          "adapters of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj only; it takes " +
              in_quotes(all[i].name));
    out.push_back(all[i]);
  }
  if (out.empty()) m.refuse(key, "a matrix of the model, which none is");
  return out;
}

// The keys of the object `name` in the object that a text is, in the order of the text; nlohmann::json sorts
// them, and nlohmann::ordered_json takes a time that grows with the square of their number.
inline std::vector<std::string> ordered_keys(std::string_view text, const char* name) {
  using json = nlohmann::json;
  std::vector<std::string> keys;
  bool inside = false;
  const json::parser_callback_t see = [&](int depth, json::parse_event_t event, json& key) {
    if (event != json::parse_event_t::key) return true;
    if (depth == 1) inside = key == name;
    if (depth == 2 && inside) keys.push_back(key.get<std::string>());
    return true;
  };
  const json ignored = json::parse(text, see);
  return keys;
}

// "rank_pattern" or "alpha_pattern": numbers by regular expressions, of which PEFT takes the first, in the
// order of the file, that matches a module's name from a dot or the beginning on.
class number_pattern {
 public:
  number_pattern(const json_members& m, std::string_view text, const char* key, index_t layers) {
    const auto* v = m.find(key);
    if (!v) return;
    if (!v->is_object()) m.refuse(key, "an object of numbers by names");
    // each is tried on each module: what names every module is enough
    const std::size_t most = std::max<std::size_t>(4096, std::size_t(layers) * 7 * 64);
    std::size_t characters = 0;
    for (const auto& [pattern, number] : v->items())
      if (!number.is_number())
        m.refuse(key, "an object of numbers by names");
      else if (characters += unroll::detail::pattern_check::size(pattern); characters > most)
        m.refuse(key, "patterns of at most " + std::to_string(most) + " characters together");
    for (const std::string& pattern : ordered_keys(text, key))
      rules_.emplace_back(read_pattern(m, key, pattern, "(.*\\.)?(", ")"), v->at(pattern).get<double>());
  }
  double of(const std::string& name, double otherwise) const {
    for (const auto& [pattern, number] : rules_)
      if (pattern.matches(name)) return number;
    return otherwise;
  }

 private:
  std::vector<std::pair<unroll::detail::module_pattern, double>> rules_;
};

// An adapted module with its numbers.
struct adapted_module {
  llama_module at;
  index_t rank;
  double alpha;
};

// Options of all these: by matrices and layers where they have one rank and one alpha and the same matrices
// in layers that follow each other, else one by one.
inline lora_options options_of(const std::vector<adapted_module>& modules, index_t layers, bool all_layers) {
  lora_options o;
  o.rank = modules.front().rank;
  o.alpha = modules.front().alpha;
  o.adapted.fill(false);
  o.first_layer = modules.front().at.layer;
  o.layers = modules.back().at.layer - o.first_layer + 1;
  std::size_t matrices = 0;
  bool equal = true;
  for (const auto& m : modules) {
    bool& adapted = o.adapted[std::size_t(m.at.matrix)];
    matrices += !adapted;
    adapted = true;
    equal = equal && m.rank == o.rank && m.alpha == o.alpha;
  }
  if (!equal || matrices * std::size_t(o.layers) != modules.size())
    for (const auto& m : modules)
      o.modules.push_back({m.at.layer, m.at.matrix, m.rank, m.alpha / double(m.rank)});
  if (all_layers && o.layers == layers) o.layers = 0;
  return o;
}

}  // namespace detail

/// What the text of PEFT's adapter_config.json says about adapters on a model of this shape; `name` stands
/// for the file in messages. Refuses every option that is neither implemented nor known to change nothing of
/// what an adapter computes: other kinds of adapters, biases of the base, adapters that act from a token on,
/// trained modules beside the adapters, keys that are not known; and initial values that move the base
/// weights, and DoRA, unless the caller has the base weights at hand. PEFT (0.21.2) sorts the keys of
/// rank_pattern and alpha_pattern when it saves, so that another rule may be the first when it loads what it
/// has saved: the order of the file counts here as there. Patterns are refused that would take long.
inline adapter_options parse_adapter_options(std::string_view text, const config& c, const std::string& name,
                                             const std::string& function = "load_adapter",
                                             bool base_at_hand = true) {
  const auto root = parse_json(text, function, name);
  const json_members m(root, function, name);
  adapter_options out;
  if (m.text("peft_type", "") != "LORA") m.refuse("peft_type", "\"LORA\"");
  if (m.text("bias", "none") != "none") m.refuse("bias", "\"none\"");
  for (const char* key : {"fan_in_fan_out", "use_qalora"})
    if (m.truth(key, false)) m.refuse(key, "false");
  out.dora = m.truth("use_dora", false);
  if (out.dora && !base_at_hand) m.refuse("use_dora", "false");
  const bool bias = m.truth("lora_bias", false);
  // other kinds that move the base weights (corda, lora_ga, loftq, pissa_niter_N) do it by data or by chance
  if (const auto* v = m.find("init_lora_weights"); v && !v->is_boolean()) {
    const std::string kind = m.text("init_lora_weights", "");
    if (base_at_hand && kind == "pissa") out.base = base_change::pissa;
    if (base_at_hand && kind == "olora") out.base = base_change::olora;
    if (out.base == base_change::none && kind != "gaussian" && kind != "orthogonal" && kind != "eva" &&
        kind != "mica")
      m.refuse(
          "init_lora_weights",
          "true, false, \"gaussian\", \"orthogonal\", \"eva\" or \"mica\", which leave the base weights as "
          "they are" +
              std::string(base_at_hand ? ", \"pissa\" or \"olora\"" : "") +
              "; convert the adapter when it is saved");
    if (bias) m.refuse("lora_bias", "false beside that init_lora_weights, as PEFT does");
  }
  if (bias && out.dora) m.refuse("lora_bias", "false beside use_dora, as PEFT does");
  for (const char* key : {"modules_to_save", "layer_replication", "target_parameters",
                          "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config",
                          "monteclora_config", "velora_config", "use_bdlora", "megatron_config"})
    if (const auto* v = m.find(key); v && *v != false && !(v->is_structured() && v->empty()))
      m.refuse(key, "nothing, the option is not implemented");
  // the list that PEFT finds itself
  if (const auto* v = m.find("layers_pattern");
      v && !v->empty() && *v != "layers" && *v != nlohmann::json::array({"layers"}))
    m.refuse("layers_pattern", "\"layers\"");
  const index_t rank = m.integer("r");
  const double alpha = m.number("lora_alpha", 8);
  const bool by_root = m.truth("use_rslora", false);  // alpha / sqrt(r), not alpha / r
  const detail::number_pattern ranks(m, text, "rank_pattern", c.layers),
      alphas(m, text, "alpha_pattern", c.layers);
  std::vector<detail::adapted_module> modules;
  for (const auto& module : detail::read_targets(m, c)) {
    const double r = ranks.of(module.name, double(rank)), a = alphas.of(module.name, alpha);
    if (!(r >= 1 && r <= 1 << 16 && r == std::floor(r)))
      m.refuse(r == double(rank) ? "r" : "rank_pattern", "a rank up to 65536");
    if (!(std::abs(a) <= 1e6)) m.refuse(a == alpha ? "lora_alpha" : "alpha_pattern", "a number up to 10^6");
    modules.push_back({module, index_t(r), by_root ? a * std::sqrt(r) : a});
  }
  const auto* layers = m.find("layers_to_transform");
  out.lora = detail::options_of(modules, c.layers, !layers || layers->empty());
  out.lora.bias = bias;
  m.refuse_unknown(detail::harmless_in_adapter_config);
  return out;
}

/// The same of adapters that leave the base weights alone; the others are refused by name.
inline lora_options parse_adapter_config(std::string_view text, const config& c, const std::string& name,
                                         const std::string& function = "load_lora") {
  return parse_adapter_options(text, c, name, function, false).lora;
}

namespace detail {

// The lora_alpha of an adapter with a scale of its own.
inline double alpha_of(const lora_module& m) { return m.scale * double(m.rank); }

// The options that a reader makes of adapter_config_text(c, o).
inline lora_options as_read(const config& c, const lora_options& o) {
  if (o.modules.empty()) return o;
  std::vector<adapted_module> modules;
  for (const lora_module& m : o.modules)
    modules.push_back({{module_name(m.layer, m.matrix), true, m.layer, m.matrix}, m.rank, alpha_of(m)});
  lora_options out = options_of(modules, c.layers, true);
  out.bias = o.bias;
  return out;
}

}  // namespace detail

/// The text of an adapter_config.json that PEFT reads. `base_model` is a name or a folder, for its reader. A
/// scale of one of o.modules that no lora_alpha gives comes back as the number beside it.
inline std::string adapter_config_text(const config& c, const lora_options& o,
                                       const std::string& base_model = {}) {
  using json = nlohmann::ordered_json;
  const auto number = [](double x) {
    return x == std::floor(x) && std::abs(x) < 1e15 ? json(index_t(x)) : json(x);
  };
  json targets = json::array(), layers = nullptr, ranks = json::object(), alphas = json::object();
  index_t rank = o.rank;
  double alpha = o.alpha;
  if (!o.modules.empty()) {
    rank = o.modules.front().rank;
    alpha = detail::alpha_of(o.modules.front());
    for (const lora_module& m : o.modules) {
      const std::string name = detail::module_name(m.layer, m.matrix);
      std::string pattern;  // which matches this name alone, whatever the order
      for (const char x : name) pattern += x == '.' ? "\\." : std::string(1, x);
      targets.push_back(name);
      if (m.rank != rank) ranks[pattern] = m.rank;
      if (const double a = detail::alpha_of(m); a != alpha) alphas[pattern] = number(a);
    }
  } else {
    for (std::size_t i = 0; i < o.adapted.size(); ++i)
      if (const std::string name = layer_matrix_names[i]; o.adapted[i])
        targets.push_back(name.substr(name.find('.') + 1));
    const index_t adapted = o.layers == 0 ? c.layers - o.first_layer : o.layers;
    if (adapted != c.layers)
      for (index_t i = 0; i < adapted; ++i) layers.push_back(o.first_layer + i);
  }
  json j{{"peft_type", "LORA"},
         {"task_type", "CAUSAL_LM"},
         {"base_model_name_or_path", base_model},
         {"r", rank},
         {"lora_alpha", number(alpha)},
         {"lora_dropout", 0.0},
         {"target_modules", targets},
         {"layers_to_transform", layers},
         {"bias", "none"},
         {"fan_in_fan_out", false},
         {"modules_to_save", nullptr},
         {"inference_mode", true}};
  if (!ranks.empty()) j["rank_pattern"] = ranks;
  if (!alphas.empty()) j["alpha_pattern"] = alphas;
  if (o.bias) j["lora_bias"] = true;
  return j.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace unroll::llama
