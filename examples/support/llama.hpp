#pragma once

// What the programs about Llamas share: a model with its vocabulary from files, a text, end tokens.

#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unroll/core/named_numbers.hpp>
#include <unroll/io/base_adapter.hpp>
#include <unroll/io/generation_config.hpp>
#include <unroll/io/llama_checkpoint.hpp>
#include <unroll/llama.hpp>
#include <unroll/text/tokenizer_file.hpp>

#include "device.hpp"

namespace program {

using unroll::llama::token;

/// The files that a model and its vocabulary come from, behind `more`.
inline named_files inputs_of(const std::string& model, const std::string& tokenizer, named_files more) {
  if (!model.empty()) more.emplace_back("--model", model);
  if (!tokenizer.empty())
    more.emplace_back("--tokenizer", tokenizer);
  else if (!model.empty())
    more.emplace_back("the tokenizer of --model", unroll::llama::find_tokenizer(model).string());
  return more;
}

/// "linear:2" or "ntk:4": what happens beyond the trained context; "length:200": the length at hand of a
/// model whose positions are dynamic or longrope; empty: what the model says.
inline void stretch(const char* program, unroll::llama::config& c, const std::string& positions) {
  using unroll::llama::position_policy;
  if (positions.empty()) return;
  const unroll::named_numbers s(positions);
  const bool length = s.name() == "length";
  if ((!length && s.name() != "linear" && s.name() != "ntk") || s.size() != 1)
    unroll::fail(program, "positions",
                 "\"" + positions + "\" is neither linear:FACTOR nor ntk:FACTOR nor length:TOKENS");
  const bool by_length = c.beyond == position_policy::dynamic || c.beyond == position_policy::longrope;
  if (length ? !by_length : c.beyond > position_policy::ntk)
    unroll::fail(program, "positions",
                 "are " + positions + ", those of the model are " +
                     unroll::llama::detail::position_names[std::size_t(c.beyond)]);
  if (length) {
    const double tokens = s.number(0, 0);
    if (!(tokens >= 1 && tokens <= 1e9 && tokens == std::floor(tokens)))
      unroll::fail(program, "positions", "\"" + positions + "\" is no length from 1 to 10^9");
    c.scaling.length = unroll::index_t(tokens);
  } else {
    c.beyond = s.name() == "linear" ? position_policy::linear : position_policy::ntk;
    c.position_factor = s.number(0, 1);
  }
  unroll::llama::check(c, program);
}

/// What a Llama computes with: float throughout, or float activations and bfloat16 weights.
using bf16_weights = unroll::numbers<float, unroll::bf16>;
template <class X>
using weight_of = typename unroll::exec::of<X>::numbers::weight;  // of on_device: as on the host
template <class X>
using parameter_of = typename unroll::exec::of<X>::numbers::parameter;

inline CLI::Option* add_weights(CLI::App* app, std::string& weights) {
  return app
      ->add_option(
          "--weights", weights,
          "how the weights of the Llama are held: float, or bf16, each rounded to bfloat16, in half of "
          "the memory; all else stays float, but on a device activations and memories are bfloat16 too")
      ->check(CLI::IsMember({"float", "bf16"}))
      ->capture_default_str();
}
/// f(std::type_identity<X>) with the numbers that --weights names, or on_device.
template <class F>
int with_weights(const device_choice& device, const std::string& weights, F&& f) {
  if (!device.on_host()) return f(std::type_identity<on_device>{});
  return weights == "bf16" ? f(std::type_identity<bf16_weights>{}) : f(std::type_identity<float>{});
}

/// A model, its vocabulary, and the ids at which its texts end: those that its folder names, else the end of
/// the vocabulary; and where another text begins.
template <class W>
struct language {
  unroll::llama::pretrained<W> model;
  unroll::llama::tokenizer words;
  std::vector<token> ends;
  unroll::llama::generation_defaults said = {};  ///< by its generation_config.json
};

/// `named` by the model, or the end of the vocabulary; and the begin of another text.
inline std::vector<token> end_tokens(const unroll::llama::tokenizer& words, std::vector<token> named = {}) {
  if (named.empty() && words.eos() >= 0) named.push_back(words.eos());
  if (words.bos() >= 0 && std::find(named.begin(), named.end(), words.bos()) == named.end())
    named.push_back(words.bos());
  return named;
}

/// `tokenizer` empty: the one beside the model. load(model) reads the weights; they may lie elsewhere, and
/// are empty then.
template <class W, class Load>
language<W> load_language(const std::string& model, const std::string& tokenizer, Load&& load) {
  namespace fs = std::filesystem;
  if (!fs::exists(model)) unroll::fail("model", "\"" + model + "\"", "does not exist");
  const fs::path path = tokenizer.empty() ? unroll::llama::find_tokenizer(model) : fs::path(tokenizer);
  auto words = unroll::llama::load_tokenizer(path);
  language<W> out{load(model), std::move(words), {}};
  const auto& shape = out.model.shape;
  check_vocabulary(out.words, shape, "\"" + path.string() + "\"");
  if (out.words.size() < shape.vocabulary)
    std::fprintf(stderr,
                 "\"%s\" has %td pieces, \"%s\" %td rows of embedding: those without a piece are never "
                 "written\n",
                 path.string().c_str(), out.words.size(), model.c_str(), shape.vocabulary);
  out.said = unroll::llama::load_generation_defaults(model, shape);
  out.ends = end_tokens(out.words, out.said.ends.value_or(std::vector<token>()));
  return out;
}

template <class W>
language<W> load_language(const std::string& model, const std::string& tokenizer) {
  return load_language<W>(model, tokenizer,
                          [](const std::string& path) { return unroll::llama::load_llama<W>(path); });
}
/// The same with the weights on a device. prepare(shape) completes the shape, and may refuse it, before there
/// is room.
template <class Prepare>
language<float> load_language_on(device_llama& device, bool half, const std::string& model,
                                 const std::string& tokenizer, Prepare&& prepare) {
  return load_language<float>(model, tokenizer, [&](const std::string& path) {
    unroll::llama::pretrained<float> out;
    const auto begin = [&](unroll::llama::config c) {
      prepare(c);
      device.begin(c);
      out.shape = c;
    };
    const auto put = [&](index_t first, const auto& part) { device.put(first, part); };
    if (half)
      unroll::llama::load_pieces<unroll::bf16>(path, begin, put);
    else
      unroll::llama::load_pieces<float>(path, begin, put);
    return out;
  });
}

inline CLI::Option* add_adapter(CLI::App* app, std::string& folder) {
  return app
      ->add_option(
          "--adapter", folder,
          "a folder that PEFT wrote, adapter_config.json and adapter_model.safetensors, for the model")
      ->check(CLI::ExistingDirectory);
}
/// An adapter of PEFT for the model. Changes the weights where PEFT does (see load_adapter), and where it is
/// merged, in which case no adapters are left.
template <class P, class W>
unroll::llama::adapter<P> load_adapter(language<W>& l, const std::string& folder, bool merge) {
  auto tuned = unroll::llama::load_adapter<P, W>(folder, l.model.shape, l.model.weights);
  if (!merge) return tuned;
  unroll::llama::merge_adapter<P, W>(l.model.shape, tuned.map, tuned.theta, l.model.weights);
  return {};
}

[[noreturn]] inline void refuse_adapter(const char* program, const std::string& folder) {
  unroll::fail(program, "--adapter",
               "\"" + folder + "\" is for the host: on a device adapters are not added yet");
}

/// How a command draws tokens: as its options say, else as a generation_config.json with "do_sample" does,
/// else from all probabilities as they are. A repetition_penalty of that file counts in any case.
struct drawing {
  bool greedy = false;
  unroll::llama::sampling how;
  CLI::App* app = nullptr;

  void add(CLI::App* command) {
    app = command;
    CLI::Option* first = app->add_flag("--greedy", greedy, "always the most probable token");
    add_not_negative(app, "--temperature", how.temperature, "divides the logits; 0: greedy")->excludes(first);
    app->add_option("--top-p", how.top_p, "the fewest most probable tokens that have this probability")
        ->check(CLI::Range(0.0, 1.0))
        ->check(positive)
        ->excludes(first)
        ->capture_default_str();
    app->add_option("--top-k", how.top_k, "the most probable tokens, so many; 0: all")
        ->check(CLI::Range(unroll::index_t{0}, unroll::index_t{1} << 31))
        ->excludes(first)
        ->capture_default_str();
    app->add_option("--repetition-penalty", how.repetition_penalty,
                    "divides the logits of tokens that the text has, where they are positive, and multiplies "
                    "the others")
        ->check(positive)
        ->capture_default_str();
  }
  /// Says on standard error what it takes from the file.
  unroll::llama::sampling of(const unroll::llama::generation_defaults& said) const {
    unroll::llama::sampling out;
    if (said.draws && !greedy) out = said.how;
    out.repetition_penalty = said.how.repetition_penalty;
    const bool asked = said.draws || out.repetition_penalty != 1;
    if (app->count("--temperature") > 0) out.temperature = how.temperature;
    if (app->count("--top-p") > 0) out.top_p = how.top_p;
    if (app->count("--top-k") > 0) out.top_k = how.top_k;
    if (app->count("--repetition-penalty") > 0) out.repetition_penalty = how.repetition_penalty;
    if (greedy) out.temperature = 0;
    if (asked)
      std::fprintf(
          stderr, "with generation_config.json: temperature %g, top-k %td, top-p %g, repetition penalty %g\n",
          out.temperature, out.top_k, out.top_p, out.repetition_penalty);
    return out;
  }
};
inline void write_drawing(nlohmann::ordered_json& d, const unroll::llama::sampling& how) {
  d["temperature"] = how.temperature;
  d["top_p"] = how.top_p;
  d["top_k"] = how.top_k;
  d["repetition_penalty"] = how.repetition_penalty;
}

/// What a config.json says of a text of this vocabulary.
template <class T>
unroll::llama::text_ids text_ids(const language<T>& l) {
  unroll::llama::text_ids ids{l.words.bos(), l.ends};
  if (ids.eos.size() > 1) std::erase(ids.eos, ids.bos);
  return ids;
}

/// The ids of a text, behind the one that begins texts where there is one; `name` stands for it in messages.
inline std::vector<token> encode_text(const unroll::llama::tokenizer& words, std::string_view text,
                                      const std::string& name) {
  if (text.empty()) unroll::fail("text", name, "is empty");
  const bool begins = words.bos() >= 0;
  std::vector<token> ids = words.encode(text, begins, name);
  if (ids.size() < (begins ? 2u : 1u)) unroll::fail("text", name, "has no tokens in this vocabulary");
  return ids;
}

}  // namespace program
