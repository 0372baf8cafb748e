#pragma once

// What the programs about Llamas share: a model with its vocabulary from files, a text, end tokens.

#include <CLI/CLI.hpp>
#include <cmath>
#include <unroll/core/named_numbers.hpp>
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
  out.ends = end_tokens(out.words, unroll::llama::load_end_tokens(model, shape));
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
