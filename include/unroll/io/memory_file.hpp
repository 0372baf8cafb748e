#pragma once

#include "unroll/io/lora_file.hpp"
#include "unroll/io/rope_scaling.hpp"
#include "unroll/io/sealed_folder.hpp"
#include "unroll/io/weight_hash.hpp"
#include "unroll/memory/memory_llama/model.hpp"

namespace unroll::llama {

/// Options as members of an object, graphs apart; ranks and alphas are those of the encoder.
inline nlohmann::json to_json(const memory_options& o) {
  return {{"segment", o.segment},
          {"ratio", o.ratio},
          {"lora_rank", o.encoder.rank},
          {"lora_alpha", o.encoder.alpha},
          {"mask", o.mask == memory_mask::causal ? "causal" : "coverage"},
          {"memory_positions", o.positions == memory_positions::following ? "following" : "coverage"},
          {"separate_tokens", o.separate_tokens},
          {"recurrent", o.recurrent}};
}

namespace detail {

inline constexpr std::array<const char*, 3> precision_names{"f32", "bf16", "f16"};  // by precision

// The place of a text in a list of names; refuses others.
template <std::size_t N>
std::size_t one_of(const json_members& m, const char* key, const std::array<const char*, N>& names) {
  const std::string text = m.text(key, "");
  const auto at = std::find(names.begin(), names.end(), text);
  if (at == names.end()) {
    std::string expected;
    for (const char* n : names) expected += (expected.empty() ? "" : " or ") + in_quotes(n);
    m.refuse(key, expected);
  }
  return std::size_t(at - names.begin());
}

inline layout memory_tokens_layout(const config& c, const memory_options& o) {
  layout l;
  l.add("memory_tokens", c.hidden, o.separate_tokens ? o.memory_tokens() : 1);
  return l;
}

}  // namespace detail

/// The hash of a frozen Llama rounded to a precision, see weight_hash.
template <class H>
concept hashes_weights = requires(H&& hash, precision p) {
  { hash(p) } -> std::same_as<std::uint64_t>;
};

/// Writes the trainable parameters of a memory model into a folder: `encoder` and `head`, each as PEFT writes
/// adapters, memory_tokens.safetensors, and memory.json, which says the options, what the frozen Llama was,
/// and the hash of every file. Killed at any point, the folder is wholly the old one, wholly the new one, or
/// refused. `base_model` is a name or a folder, for readers. `hash` is asked three times.
template <class T, hashes_weights Hash>
void save_memory(const std::filesystem::path& folder, const config& c, const memory_options& o,
                 params<const T> theta, Hash&& hash, const std::string& base_model = {}) {
  const memory_map map(c, o);
  check_size("save_memory", "theta", theta.size(), map.size());
  sealed_folder s{to_json(o), {}};
  const auto add = [&](const std::string& name, const lora_map& adapters, params<const T> part) {
    if (adapters.size() == 0) return;
    const std::string tensors = name + "/adapter_model.safetensors";
    auto files = lora_bytes(c, adapters, part, base_model, unroll::detail::quoted_path(folder / tensors));
    s.files[name + "/adapter_config.json"] = std::move(files.config);
    s.files[tensors] = std::move(files.tensors);
  };
  add("encoder", map.encoder(), map.encoder_part(theta));
  add("head", map.transfer_head(), map.transfer_head_part(theta));
  const auto tokens = map.memory_part(theta);
  s.files["memory_tokens.safetensors"] = safetensors_bytes(
      detail::memory_tokens_layout(c, o), [&](const layout_block&) -> const T* { return tokens.data(); },
      {{"format", "pt"}}, unroll::detail::quoted_path(folder / "memory_tokens.safetensors"));
  s.values["positions"] = detail::position_names[std::size_t(c.beyond)];
  s.values["position_factor"] = c.position_factor;
  if (c.scaling != position_scaling{}) {
    nlohmann::json scaling = detail::scaling_json(c);
    if (c.scaling.length > 0) scaling["length"] = c.scaling.length;
    s.values["position_scaling"] = scaling;
  }
  nlohmann::json base{{"rope_theta", c.rope_base}, {"rms_norm_eps", c.norm_epsilon}};
  for (const auto p : {precision::f32, precision::bf16, precision::f16})
    base[detail::precision_names[std::size_t(p)]] = hash_text(hash(p));
  s.values["base"] = base;
  save_sealed(folder, "memory.json", s, "save_memory");
  for (const std::string part : {"encoder", "head"}) {
    if (s.files.contains(part + "/adapter_config.json")) continue;
    std::error_code code;  // what another model left there is named by nothing
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      std::filesystem::remove(folder / part / file, code);
    std::filesystem::remove(folder / part, code);  // where it is empty
  }
}
/// The same of a model on the host.
template <class X>
void save_memory(const std::filesystem::path& folder, const memory_llama<X>& model,
                 params<const typename memory_llama<X>::P> theta, const std::string& base_model = {}) {
  const auto hash = [&](precision p) { return weight_hash(model.shape(), model.weights(), p); };
  save_memory<typename memory_llama<X>::P>(folder, model.shape(), model.options(), theta, hash, base_model);
}

/// A folder that save_memory wrote. The constructor reads and compares all of it, so that what is asked later
/// is of one save. Throws unroll::error that names the file.
class memory_folder {
 public:
  explicit memory_folder(const std::filesystem::path& folder)
      : folder_(folder), sealed_(load_sealed(folder, "memory.json", function)) {
    const json_members m(sealed_.values, function, name("memory.json"));
    options_.segment = m.integer("segment");
    options_.ratio = m.integer("ratio");
    options_.encoder.rank = m.integer("lora_rank");
    options_.encoder.alpha = m.number("lora_alpha", 0);
    options_.mask = memory_mask(detail::one_of(m, "mask", std::array{"coverage", "causal"}));
    options_.positions =
        memory_positions(detail::one_of(m, "memory_positions", std::array{"coverage", "following"}));
    options_.separate_tokens = m.truth("separate_tokens", false);
    options_.recurrent = m.truth("recurrent", false);
    trained_.beyond = position_policy(detail::one_of(m, "positions", detail::position_names));
    trained_.position_factor = m.number("position_factor", 1);
    if (const auto* scaling = m.find("position_scaling")) {
      const json_members p(*scaling, function, m.name() + ", position_scaling");
      detail::read_scaling(p, trained_);
      trained_.scaling.length = p.integer("length", 0);
      p.refuse_unknown();
    }
    if (!m.find("base")) m.refuse("base", "hashes of the frozen weights");
    const json_members b(*m.find("base"), function, m.name() + ", base");
    trained_.rope_base = b.number("rope_theta", 0);
    trained_.norm_epsilon = b.number("rms_norm_eps", 0);
    for (std::size_t i = 0; i < base_.size(); ++i) base_[i] = b.text(detail::precision_names[i], "");
    b.refuse_unknown();
    m.refuse_unknown();
  }

  /// The positions that the adapters were trained with: sets beyond, position_factor and scaling, nothing
  /// else.
  void set_positions(config& c) const {
    c.beyond = trained_.beyond;
    c.position_factor = trained_.position_factor;
    c.scaling = trained_.scaling;
  }

  /// Options on a Llama of this shape; graphs as by default. Refuses adapters that contradict memory.json.
  memory_options options(const config& c) const {
    memory_options o = options_;
    const auto has = [&](const std::string& part) {
      return sealed_.files.contains(part + "/adapter_config.json") ||
             sealed_.files.contains(part + "/adapter_model.safetensors");
    };
    if (has("encoder"))
      o.encoder = adapters("encoder", c);
    else
      o.encoder.adapted.fill(false);
    if (o.encoder.rank != options_.encoder.rank || o.encoder.alpha != options_.encoder.alpha)
      fail(function, name("encoder/adapter_config.json"),
           "has rank " + std::to_string(o.encoder.rank) + " and alpha " + std::to_string(o.encoder.alpha) +
               ", memory.json says " + std::to_string(options_.encoder.rank) + " and " +
               std::to_string(options_.encoder.alpha));
    if (has("head"))
      o.transfer_head = adapters("head", c);
    else
      o.transfer_head.adapted.fill(false);
    check(o, c, std::string(function) + ": " + name("memory.json"));
    return o;
  }

  /// How a Llama differs from the one that the adapters were trained on, for a message; empty where it does
  /// not. `hash` is asked once, three times where they differ.
  template <hashes_weights Hash>
  std::string other_base(const config& c, Hash&& hash) const {
    const auto differs = [](const std::string& what, double is, double was) {
      return what + " is " + nlohmann::json(is).dump() + ", it was " + nlohmann::json(was).dump();
    };
    if (c.rope_base != trained_.rope_base) return differs("rope_theta", c.rope_base, trained_.rope_base);
    if (c.norm_epsilon != trained_.norm_epsilon)
      return differs("rms_norm_eps", c.norm_epsilon, trained_.norm_epsilon);
    const std::string is = hash_text(hash(precision::f32)), &was = base_[0];
    if (is == was) return {};
    for (const auto p : {precision::bf16, precision::f16}) {
      const std::string name = detail::precision_names[std::size_t(p)];
      if (is == base_[std::size_t(p)]) return "its weights are those of then, rounded to " + name;
      if (hash_text(hash(p)) == was)
        return "its weights are those of then in higher precision: then they were rounded to " + name;
    }
    return "its weights have hash " + is + ", it was " + was;
  }
  /// The same of weights laid out by weight_map(c).
  template <class T>
  std::string other_base(const config& c, params<const T> weights) const {
    return other_base(c, [&](precision p) { return weight_hash(c, weights, p); });
  }

  /// Parameters laid out by memory_map(c, options(c)).
  template <class T>
  parameters<T> read(const config& c, load_options how = {}) const {
    const memory_options o = options(c);
    const memory_map map(c, o);
    parameters<T> theta(map.size());
    const params<T> flat(theta);
    const auto copy = [&](const std::string& part, const lora_options& l, params<T> to) {
      if (to.size() == 0) return;
      const auto a = load_adapter_tensors<T>(c, l, tensors(part + "/adapter_model.safetensors"), how);
      std::copy(a.theta.begin(), a.theta.end(), to.begin());
    };
    copy("encoder", o.encoder, map.encoder_part(flat));
    copy("head", o.transfer_head, map.transfer_head_part(flat));
    const auto names = detail::memory_tokens_layout(c, o);
    const auto files = tensors("memory_tokens.safetensors");
    check_tensors(files, names, [](const std::string&) { return false; });
    read_tensors(files, names, map.memory_part(flat).data(), how.allow_non_finite);
    return theta;
  }

 private:
  static constexpr const char* function = "load_memory";

  std::string name(const std::string& file) const { return unroll::detail::quoted_path(folder_ / file); }
  const std::string& bytes(const std::string& file) const {
    const auto at = sealed_.files.find(file);
    if (at == sealed_.files.end()) fail(function, name("memory.json"), "names no " + file);
    return at->second;
  }
  lora_options adapters(const std::string& part, const config& c) const {
    const std::string file = part + "/adapter_config.json";
    return parse_adapter_config(bytes(file), c, name(file), function);
  }
  tensor_files tensors(const std::string& file) const {
    std::vector<safetensors> files;
    files.emplace_back(byte_source::memory(bytes(file), name(file), function));
    return tensor_files(std::move(files));
  }

  std::filesystem::path folder_;
  sealed_folder sealed_;
  memory_options options_;
  config trained_;  // what is known of it
  std::array<std::string, 3> base_;
};

}  // namespace unroll::llama
