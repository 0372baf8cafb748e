#pragma once

// What the programs about Llamas share: a model with its vocabulary from files, a text, end tokens.

#include <unroll/io/llama_checkpoint.hpp>
#include <unroll/io/tokenizer_file.hpp>
#include <unroll/llama.hpp>

#include "program.hpp"

namespace program {

using unroll::llama::token;

/// The vocabulary that lies beside a model: tokenizer.bin, tokenizer.json or tokenizer.model in its folder,
/// or the only tok*.bin or tok*.model there.
inline std::filesystem::path find_tokenizer(const std::filesystem::path& model) {
  namespace fs = std::filesystem;
  if (!fs::exists(model)) unroll::fail("model", "\"" + model.string() + "\"", "does not exist");
  const fs::path parent = model.parent_path();
  const fs::path folder = fs::is_directory(model) ? model : parent.empty() ? fs::path(".") : parent;
  for (const char* name : {"tokenizer.bin", "tokenizer.json", "tokenizer.model"})
    if (fs::exists(folder / name)) return folder / name;
  for (const char* extension : {".bin", ".model"}) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == extension && entry.path().filename().string().rfind("tok", 0) == 0)
        found.push_back(entry.path());
    if (found.size() == 1) return found.front();
    if (found.size() > 1)
      unroll::fail("tokenizer", "\"" + folder.string() + "\"",
                   "has several tok*" + std::string(extension) + ", name one with --tokenizer");
  }
  unroll::fail("tokenizer", "\"" + folder.string() + "\"",
               "has no tokenizer.bin, tokenizer.json, tokenizer.model or tok*.bin beside the model, name one "
               "with --tokenizer");
}

/// The files that a model and its vocabulary come from, behind `more`.
inline named_files inputs_of(const std::string& model, const std::string& tokenizer, named_files more) {
  if (!model.empty()) more.emplace_back("--model", model);
  if (!tokenizer.empty())
    more.emplace_back("--tokenizer", tokenizer);
  else if (!model.empty())
    more.emplace_back("the tokenizer of --model", find_tokenizer(model).string());
  return more;
}

/// "linear:2" or "ntk:4": what happens beyond the trained context; empty: what the model says.
inline void stretch(const char* program, unroll::llama::config& c, const std::string& positions) {
  if (positions.empty()) return;
  const spec s(positions);
  if ((s.name != "linear" && s.name != "ntk") || s.numbers.size() != 1)
    unroll::fail(program, "positions", "\"" + positions + "\" is neither linear:FACTOR nor ntk:FACTOR");
  c.beyond =
      s.name == "linear" ? unroll::llama::position_policy::linear : unroll::llama::position_policy::ntk;
  c.position_factor = s.numbers[0];
  unroll::llama::check(c, program);
}

template <class T>
struct language {
  unroll::llama::pretrained<T> model;
  unroll::llama::tokenizer words;
};

/// `tokenizer` empty: the one beside the model.
template <class T>
language<T> load_language(const std::string& model, const std::string& tokenizer) {
  const std::filesystem::path path =
      tokenizer.empty() ? find_tokenizer(model) : std::filesystem::path(tokenizer);
  auto words = unroll::llama::load_tokenizer(path);
  language<T> out{unroll::llama::load_llama<T>(model), std::move(words)};
  if (out.words.size() != out.model.shape.vocabulary)
    unroll::fail("tokenizer", "\"" + path.string() + "\"",
                 "has " + std::to_string(out.words.size()) + " pieces, the model \"" + model +
                     "\" has a vocabulary of " + std::to_string(out.model.shape.vocabulary));
  return out;
}

/// The ids of a text behind the one that begins texts; `name` stands for it in messages.
inline std::vector<token> encode_text(const unroll::llama::tokenizer& words, std::string_view text,
                                      const std::string& name) {
  if (text.empty()) unroll::fail("text", name, "is empty");
  std::vector<token> ids = words.encode(text, true, name);
  if (ids.size() < 2) unroll::fail("text", name, "has no tokens in this vocabulary");
  return ids;
}

/// What ends a generated text: the end token, and the begin of another text.
inline std::vector<token> end_tokens(const unroll::llama::tokenizer& words) {
  std::vector<token> ends;
  for (const token t : {words.bos(), words.eos()})
    if (t >= 0) ends.push_back(t);
  return ends;
}

}  // namespace program
