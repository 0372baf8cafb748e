#pragma once

#include "unroll/io/adapter_config.hpp"
#include "unroll/io/llama_checkpoint.hpp"

namespace unroll::llama {

/// Adapters from files.
template <class T>
struct adapter {
  lora_map map;
  parameters<T> theta;  ///< laid out by map
  bool dora = false;    ///< B holds magnitudes, so that its gradient is not that of the file's B
};

namespace detail {

// Rows of B of W_Q and W_K, and of their biases, in theta, map.size() numbers, between the order of the files
// (halves) and that of the model.
template <class T>
void turn_adapter_rows(const config& c, const lora_map& map, T* theta, rope_pairs to) {
  if (c.pairs == rope_pairs::halves) return;
  std::vector<T> spare;
  for (index_t i = 0; i < c.layers; ++i)
    for (const auto m : {layer_matrix::q, layer_matrix::k}) {
      const auto f = map.at(i, m);
      if (f.b < 0) continue;
      spare.resize(std::size_t(c.head_dim * f.rank));
      const index_t heads = m == layer_matrix::q ? c.heads : c.kv_heads;
      turn_rope_rows(theta + f.b, heads, c.head_dim, f.rank, to, spare.data());
      if (f.bias >= 0) turn_rope_rows(theta + f.bias, heads, c.head_dim, 1, to, spare.data());
    }
}

// What a file of tensors says of the config beside it, for a reader to tell that the two belong together.
inline std::string lora_text(const lora_options& o) {
  if (!o.modules.empty()) {
    std::string out = o.bias ? "bias" : "no bias";
    for (const lora_module& m : o.modules)
      out += ", " + module_name(m.layer, m.matrix) + " r " + std::to_string(m.rank) + " scale " +
             nlohmann::json(m.scale).dump();
    return out;
  }
  std::string out = "r " + std::to_string(o.rank) + ", lora_alpha " + nlohmann::json(o.alpha).dump() +
                    ", layers " + std::to_string(o.first_layer) + " to " +
                    std::to_string(o.first_layer + o.layers - 1);
  for (std::size_t i = 0; i < o.adapted.size(); ++i)
    if (o.adapted[i]) out += std::string(", ") + layer_matrix_names[i];
  return o.bias ? out + ", bias" : out;
}
inline constexpr const char* lora_text_key = "unroll_lora";

// The magnitudes of DoRA, one for every output of an adapted matrix.
inline layout magnitude_layout(const config& c, const lora_map& map) {
  layout out;
  for (index_t i = 0; i < c.layers; ++i)
    for (std::size_t m = 0; m < layer_matrix_names.size(); ++m)
      if (const auto f = map.at(i, layer_matrix(m)); f.a >= 0)
        out.add("base_model.model." + module_name(i, layer_matrix(m)) + ".lora_magnitude_vector", f.out);
  return out;
}

// adapter_model.safetensors of a folder.
inline tensor_files adapter_tensors(const std::filesystem::path& folder, const char* function) {
  const auto tensors = folder / "adapter_model.safetensors";
  if (std::error_code code; !std::filesystem::exists(tensors, code))
    refuse_torch_file(folder, "adapter_model.bin", function);
  std::vector<safetensors> files;
  files.emplace_back(byte_source::open(tensors, function));
  return tensor_files(std::move(files));
}

}  // namespace detail

/// Adapters of these options on a model of shape `c`, from the tensors of an adapter_model.safetensors. Names
/// and shapes are compared before anything is allocated. WRITES the magnitudes of DoRA to `magnitudes`, those
/// of the adapted matrices one behind the other, unless it is null.
template <class T>
adapter<T> load_adapter_tensors(const config& c, const lora_options& o, const tensor_files& files,
                                load_options options = {}, std::vector<T>* magnitudes = nullptr) {
  adapter<T> out;
  out.map = lora_map(c, o);
  const layout beside = magnitudes ? detail::magnitude_layout(c, out.map) : layout();
  check_tensors(files, out.map.names(), [&](const std::string& name) {
    return magnitudes && name.ends_with(".lora_magnitude_vector");
  });
  check_tensors(files, beside,
                [&](const std::string& name) { return !name.ends_with(".lora_magnitude_vector"); });
  const auto& metadata = files.front().metadata();
  if (const auto said = metadata.find(detail::lora_text_key), end = metadata.end(); said != end)
    if (const std::string text = detail::lora_text(out.map.options()); said->second != text)
      files.front().source().refuse("was written with other options than are beside it: " +
                                    detail::in_quotes(said->second) + ", not " + detail::in_quotes(text));
  out.theta = parameters<T>(out.map.size());
  read_tensors(files, out.map.names(), out.theta.data(), options.allow_non_finite);
  detail::turn_adapter_rows(c, out.map, out.theta.data(), c.pairs);
  if (!magnitudes) return out;
  magnitudes->resize(std::size_t(beside.size()));
  read_tensors(files, beside, magnitudes->data(), options.allow_non_finite);
  std::vector<T> spare(std::size_t(c.head_dim));
  for (const layout_block& b : beside.blocks()) {
    const bool query = b.name.find(".q_proj.") != std::string::npos;
    if (c.pairs == rope_pairs::neighbours && (query || b.name.find(".k_proj.") != std::string::npos))
      detail::turn_rope_rows(magnitudes->data() + b.offset, query ? c.heads : c.kv_heads, c.head_dim, 1,
                             c.pairs, spare.data());
  }
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
  return load_adapter_tensors<T>(c, o, detail::adapter_tensors(folder, function), options);
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
  const lora_map read(c, detail::as_read(c, map.options()));
  std::vector<T> turned(theta.begin(), theta.end());
  detail::turn_adapter_rows(c, named, turned.data(), rope_pairs::halves);
  const auto at = [&](const layout_block& b) -> const T* { return turned.data() + b.offset; };
  return {adapter_config_text(c, named.options(), base_model),
          safetensors_bytes(named.names(), at,
                            {{"format", "pt"}, {detail::lora_text_key, detail::lora_text(read.options())}},
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
