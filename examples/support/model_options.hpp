#pragma once

// The Llama of a command of memory_llama: from files, or a new one by its sizes; and its vocabulary.

#include "memory_command.hpp"

namespace program {

/// The position policy in a word, its factor, and what else it needs; empty where there is none.
inline std::string positions_text(const unroll::llama::config& c) {
  using unroll::llama::position_policy;
  if (c.beyond == position_policy::refuse) return "";
  std::string text = unroll::llama::detail::position_names[std::size_t(c.beyond)];
  text += ":" + json(c.position_factor).dump();
  if (c.beyond > position_policy::ntk) text += " " + unroll::llama::detail::scaling_json(c).dump();
  if (c.scaling.length > 0) text += " length:" + std::to_string(c.scaling.length);
  return text;
}

/// A model from a file or, without one, the shape of a new one.
struct model_options {
  std::string path, tokenizer, positions, named, adapter;
  device_choice device;
  unroll::llama::config new_shape{.hidden = 64, .layers = 4, .heads = 4, .context = 1024};

  void add(CLI::App* app, bool may_be_new) {
    auto* model =
        app->add_option("--model", path,
                        "a GGUF file, a checkpoint .bin, or a folder with config.json and safetensors")
            ->check(CLI::ExistingPath);
    app->add_option("--tokenizer", tokenizer,
                    may_be_new ? "tokenizer .bin, .json or .model; by default the one beside the model, or "
                                 "the 256 bytes for a new one"
                               : "tokenizer .bin, .json or .model; by default the one beside the model")
        ->check(CLI::ExistingPath);
    if (!may_be_new) model->required();
    add_adapter(app, adapter)->needs(model);
    if (may_be_new) add_shape(app);
    app->add_option(
        "--positions", positions,
        "beyond the trained context: linear:FACTOR or ntk:FACTOR, or length:TOKENS of a model with "
        "dynamic or longrope positions; by default what the model says");
    device.add(app);
  }
  void add_shape(CLI::App* app) {
    std::vector<std::string> names;
    for (const auto& known : published()) names.emplace_back(known.first);
    CLI::Option* config =
        app->add_option("--config", named, "the sizes of a published model, instead of those below")
            ->check(CLI::IsMember(names))
            ->excludes(app->get_option("--model"));
    const auto add = [&](const char* name, index_t& value, index_t least, const char* what) {
      app->add_option(name, value, what)
          ->check(CLI::Range(least, index_t{1} << 20))
          ->excludes(config)
          ->capture_default_str();
    };
    add("--hidden", new_shape.hidden, 2, "of a new model: its hidden size");
    add("--layers", new_shape.layers, 1, "its layers");
    add("--heads", new_shape.heads, 1, "its query heads; a head has hidden / heads numbers");
    add("--kv-heads", new_shape.kv_heads, 0, "its key-value heads; 0: as many as query heads");
    add("--mlp", new_shape.intermediate_size, 0, "its MLP size; 0: 8/3 of the hidden size, in steps of 32");
    add("--context", new_shape.context, 1, "its positions");
  }

  /// Sizes by name: those of the config.json of the published weights.
  static const std::vector<std::pair<const char*, unroll::llama::config>>& published() {
    const auto of = [](index_t hidden, index_t mlp, index_t layers, index_t heads, index_t kv_heads,
                       index_t vocabulary, index_t context, double base) {
      unroll::llama::config c{.hidden = hidden, .intermediate_size = mlp, .layers = layers, .heads = heads};
      c.kv_heads = kv_heads;
      c.head_dim = hidden / heads;
      c.vocabulary = vocabulary;
      c.context = context;
      c.rope_base = base;
      c.tied = false;
      return c;
    };
    static const std::vector<std::pair<const char*, unroll::llama::config>> all{
        {"llama2-7b", of(4096, 11008, 32, 32, 32, 32000, 4096, 1e4)},
        {"llama2-13b", of(5120, 13824, 40, 40, 40, 32000, 4096, 1e4)},
        {"llama3-8b", of(4096, 14336, 32, 32, 8, 128256, 8192, 5e5)}};
    return all;
  }
  /// The shape of a new model, completed.
  unroll::llama::config shape(index_t vocabulary) const {
    for (const auto& known : published())
      if (named == known.first) {
        unroll::llama::config c = known.second;
        c.vocabulary = std::max(c.vocabulary, vocabulary);
        stretch(c);
        unroll::llama::check(c, "memory_llama");
        return c;
      }
    unroll::llama::config c = new_shape;
    if (c.hidden % c.heads != 0)
      fail("memory_llama", "heads",
           "are " + std::to_string(c.heads) + ", do not divide the hidden size of " +
               std::to_string(c.hidden));
    c.head_dim = c.hidden / c.heads;
    if (c.kv_heads == 0) c.kv_heads = c.heads;
    if (c.intermediate_size == 0) c.intermediate_size = (8 * c.hidden / 3 + 31) / 32 * 32;
    c.vocabulary = vocabulary;
    stretch(c);
    unroll::llama::check(c, "memory_llama");
    return c;
  }
  /// That of the files, weights unread, or of a new model.
  unroll::llama::config shape_without_weights(index_t vocabulary) const {
    using namespace unroll;
    if (path.empty()) return shape(vocabulary);
    llama::config c;
    if (const auto file = std::filesystem::path(path) / "config.json"; std::filesystem::is_directory(path))
      c = llama::parse_config(read_file(file, "memory_llama"), "\"" + file.string() + "\"", "memory_llama");
    else if (is_gguf(byte_source::open(path, "memory_llama")))
      c = llama::gguf_config(gguf_files::open(path, "memory_llama"));
    else
      c = llama::load_llama<float>(path).shape;
    stretch(c);
    return c;
  }
  void stretch(unroll::llama::config& c) const { program::stretch("memory_llama", c, positions); }
  named_files inputs(named_files more) const {
    if (!adapter.empty()) more.emplace_back("--adapter", adapter);
    return inputs_of(path, tokenizer, std::move(more));
  }

  /// The model and its vocabulary, from files or new ones.
  template <class W>
  language<W> load(key k) const {
    if (!path.empty()) {
      auto loaded = load_language<W>(path, tokenizer);
      if (!adapter.empty())
        load_adapter<std::conditional_t<std::is_same_v<W, double>, double, float>>(loaded, adapter, true);
      stretch(loaded.model.shape);
      return loaded;
    }
    auto words =
        tokenizer.empty() ? unroll::llama::byte_tokenizer() : unroll::llama::load_tokenizer(tokenizer);
    unroll::llama::pretrained<W> model{shape(words.size()), {}};
    const unroll::llama::weight_map map(model.shape);
    model.weights = parameters<W>(map.size());
    if constexpr (std::is_floating_point_v<W>) {
      unroll::llama::init_weights<W>(map, model.weights, k);
    } else {
      parameters<float> exact(map.size());
      unroll::llama::init_weights<float>(map, exact, k);
      std::transform(exact.begin(), exact.end(), model.weights.begin(), [](float w) { return W(w); });
    }
    auto ends = end_tokens(words);
    return {std::move(model), std::move(words), std::move(ends)};
  }
  /// The same with the weights on a device: drawn there where there is no file. prepare(shape): see
  /// load_language_on.
  template <class Prepare>
  language<float> load_on(device_llama& on, bool half, key k, Prepare&& prepare) const {
    if (!adapter.empty()) refuse_adapter("memory_llama", adapter);
    const auto complete = [&](unroll::llama::config& c) {
      if (!path.empty()) stretch(c);
      prepare(c);
    };
    if (!path.empty()) return load_language_on(on, half, path, tokenizer, complete);
    auto words =
        tokenizer.empty() ? unroll::llama::byte_tokenizer() : unroll::llama::load_tokenizer(tokenizer);
    unroll::llama::pretrained<float> model{shape(words.size()), {}};
    complete(model.shape);
    on.begin(model.shape);
    on.draw(k);
    auto ends = end_tokens(words);
    return {std::move(model), std::move(words), std::move(ends)};
  }
};

inline std::string describe(const unroll::llama::config& c) {
  return text_of(
      "%td layers of %td (%td heads, %td of keys and values, MLP %td), vocabulary %td, %td positions",
      c.layers, c.hidden, c.heads, c.kv_heads, c.intermediate_size, c.vocabulary, c.positions());
}
inline json to_json(const unroll::llama::config& c) {
  return {{"hidden", c.hidden},         {"mlp", c.intermediate_size}, {"layers", c.layers},
          {"heads", c.heads},           {"kv_heads", c.kv_heads},     {"head", c.head_dim},
          {"vocabulary", c.vocabulary}, {"context", c.context},       {"positions", c.positions()}};
}

/// The files, by name and bytes, that say the vocabulary of a model: those that it was read from, or the
/// bytes.
inline std::vector<std::pair<std::string, std::string>> tokenizer_files(const model_options& o) {
  namespace fs = std::filesystem;
  if (o.path.empty() && o.tokenizer.empty())
    return {{"tokenizer.json", unroll::llama::byte_tokenizer_json()},
            {"tokenizer_config.json", unroll::llama::byte_tokenizer_config_json()}};
  fs::path from = o.tokenizer.empty() ? o.path : o.tokenizer;
  if (o.tokenizer.empty() || fs::is_directory(from)) from = unroll::llama::find_tokenizer(from);
  if (unroll::is_gguf(unroll::byte_source::open(from, "memory_llama")))
    fail("memory_llama", "tokenizer",
         "\"" + from.string() + "\" is a GGUF file, whose vocabulary is not written again");
  std::vector<std::pair<std::string, std::string>> files{
      {"tokenizer" + from.extension().string(), unroll::read_file(from)}};
  if (const auto config = from.parent_path() / "tokenizer_config.json";
      from.filename() == "tokenizer.json" && fs::exists(config))
    files.emplace_back("tokenizer_config.json", unroll::read_file(config));
  return files;
}

}  // namespace program
