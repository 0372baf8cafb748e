#pragma once

// What the commands of llama share: their options, the model with its text, a progress line.

#include <nlohmann/json.hpp>

#include "llama.hpp"

namespace program {

struct llama_options {
  std::string model, tokenizer, text, prompt, json_file, positions, adapter, weights = "float";
  device_choice device;
  bool has_prompt = false, doubles = false, merge = false, streams = false;
  index_t threads = 1, window = 0, overlap = 0, sinks = 4, chunk = 1, tokens = 256;
  drawing draw;
  std::uint64_t seed = 1;

  /// Those of every command.
  void add(CLI::App* app) {
    app->add_option("--model", model,
                    "a GGUF file, a checkpoint .bin, or a folder with config.json and safetensors")
        ->required()
        ->check(CLI::ExistingPath);
    app->add_option("--tokenizer", tokenizer,
                    "tokenizer .bin, .json or .model; by default the one that lies beside the model")
        ->check(CLI::ExistingPath);
    CLI::Option* file = app->add_option("--text", text, "a text file")->check(CLI::ExistingFile);
    app->add_option("--prompt", prompt, "the text itself")->excludes(file);
    app->add_option(
        "--positions", positions,
        "beyond the trained context: linear:FACTOR or ntk:FACTOR, or length:TOKENS of a model with "
        "dynamic or longrope positions; by default what the model says");
    CLI::Option* tuned = add_adapter(app, adapter);
    app->add_flag("--merge", merge,
                  "add the adapter to the weights as it is loaded; by default it stays beside them")
        ->needs(tuned);
    CLI::Option* precise = app->add_flag("--double", doubles, "compute in double precision");
    add_weights(app, weights)->excludes(precise);
    device.add(app);
    app->add_option("--json", json_file, "write the results to this file")->check(writable);
  }
  /// Those of commands that cut a text into windows.
  void add_windows(CLI::App* app) {
    add_count(app, "--window", window, 0, 1'000'000'000, "inputs of a window; 0: all positions of the model");
    add_count(app, "--overlap", overlap, 0, 1'000'000'000,
              "inputs that a window repeats of the one before, without scoring");
    add_count(app, "--threads", threads, 1, 1024,
              "windows at the same time; the numbers do not depend on it");
  }
  /// Those of reading a text in one go.
  void add_streaming(CLI::App* app) {
    CLI::Option* stream = app->add_flag(
        "--stream", streams,
        "read the text in one go and keep the keys of its first --sinks and its last tokens, --window in all "
        "(StreamingLLM)");
    stream->excludes(app->get_option("--overlap"));
    add_count(app, "--sinks", sinks, 0, 1'000'000'000, "first tokens that stay; 0: a sliding window")
        ->needs(stream);
    add_count(app, "--chunk", chunk, 1, 1'000'000'000,
              "tokens at once: faster, but the first of them sees fewer keys")
        ->needs(stream);
  }
  /// Those of sampling.
  void add_sampling(CLI::App* app) {
    add_count(app, "--tokens", tokens, 0, 1'000'000'000, "at most so many");
    draw.add(app);
    add_seed(app, seed, "the same seed, the same text");
  }
};

/// The id that begins texts: the vocabulary's, else that of generation_config.json; nothing without either.
template <class W>
std::vector<token> begin_of_text(const language<W>& l) {
  const token begin = l.words.bos() >= 0 ? l.words.bos() : l.said.bos;
  return begin >= 0 ? std::vector<token>{begin} : std::vector<token>{};
}

/// The model with its adapter, and the text as tokens.
template <class X>
struct llama_job {
  using W = weight_of<X>;
  using P = parameter_of<X>;
  std::shared_ptr<device_llama> device;  ///< of on_device, whose weights are there
  program::language<W> language;
  unroll::llama::adapter<P> tuned;  ///< of --adapter where it was not merged
  std::vector<token> ids;
  std::string text;

  llama_job(const llama_options& o, bool may_be_empty)
      : device(o.device.on_host() ? nullptr : o.device.open(o.weights == "bf16")), language(load(o)) {
    if constexpr (!std::same_as<X, on_device>)
      if (!o.adapter.empty()) tuned = load_adapter<P>(language, o.adapter, o.merge);
    if (o.has_prompt || !o.text.empty()) {
      text = o.has_prompt ? o.prompt : unroll::read_file(o.text, "text");
    } else if (!may_be_empty) {
      unroll::fail("llama", "text", "is missing: --text FILE or --prompt TEXT");
    }
    if (text.empty() && may_be_empty)
      ids = begin_of_text(language);
    else
      ids = encode_text(language.words, text, o.has_prompt ? "--prompt" : "\"" + o.text + "\"");
    if (ids.empty())
      unroll::fail("llama", "text",
                   "is missing, and no token of this vocabulary begins texts: --text FILE or --prompt TEXT");
  }
  /// What the functions of Llamas take.
  unroll::llama::adapters<P> adapters() const {
    return {tuned.map.size() > 0 ? &tuned.map : nullptr, tuned.theta.data()};
  }

 private:
  program::language<W> load(const llama_options& o) const {
    const auto complete = [&](unroll::llama::config& c) { stretch("llama", c, o.positions); };
    if constexpr (std::same_as<X, on_device>) {
      if (!o.adapter.empty()) refuse_adapter("llama", o.adapter);
      const bool half = o.weights == "bf16";
      auto out = load_language_on(*device, half, o.model, o.tokenizer, [&](unroll::llama::config& c) {
        complete(c);
        device_plan p;
        p.weight_bytes = double(unroll::llama::weight_map(c).size()) * (half ? 2 : 4);
        check_fits(o.device.where, o.device.bytes(*device), p);
      });
      std::fprintf(stderr, "llama: on %s\n", device->name().c_str());
      return out;
    } else {
      auto out = load_language<W>(o.model, o.tokenizer);
      complete(out.model.shape);
      return out;
    }
  }
};

/// What every command writes first.
inline nlohmann::ordered_json llama_document(const char* command, const llama_options& o,
                                             const unroll::llama::config& c) {
  nlohmann::ordered_json d;
  d["command"] = command;
  d["model"] = o.model;
  d["precision"] = o.doubles ? "double" : "float";
  d["device"] = o.device.where;
  if (!o.doubles) d["weights"] = o.weights;
  if (!o.adapter.empty()) {
    d["adapter"] = o.adapter;
    d["merged"] = o.merge;
  }
  d["context"] = c.positions();
  return d;
}

/// Shows how many tokens are done and stops at Ctrl-C.
inline auto watch(const progress& line, const char* what, std::size_t tokens) {
  return [&line, what, tokens](index_t done) {
    line.show(std::string(what) + " " + std::to_string(done) + " / " + std::to_string(tokens) + " tokens");
    return !interrupted;
  };
}

}  // namespace program
