#pragma once

// The documents of a command of memory_llama: those to train on, and those that are held out.

#include "default_text.hpp"
#include "memory_command.hpp"

namespace program {

/// Texts to train on and texts that are held out.
struct text_options {
  std::string text = default_text(), held_out;

  void add(CLI::App* app) {
    app->add_option("--text", text, "a text file, or a folder of .txt files, each a document of its own")
        ->check(CLI::ExistingPath)
        ->capture_default_str();
    app->add_option("--held-out", held_out,
                    "the same for evaluation; by default the last tenth of each document of --text")
        ->check(CLI::ExistingPath);
  }
  std::string text_name() const { return "\"" + text + "\""; }
  std::string held_out_name() const {
    return held_out.empty() ? "the last tenths of " + text_name() : "\"" + held_out + "\"";
  }
};

inline corpus load_corpus(const text_options& o, const unroll::llama::tokenizer& words, index_t threads) {
  corpus c;
  const unroll::data::documents_options how{.bos = words.bos() >= 0, .threads = threads};
  c.train = unroll::data::documents(o.text, words, how);
  if (!o.held_out.empty()) {
    c.held_out = unroll::data::documents(o.held_out, words, how);
  } else {
    c = unroll::data::hold_out_ends(c.train);
  }
  if (std::none_of(c.train.begin(), c.train.end(), [](const auto& d) { return d.ids.size() >= 2; }))
    fail("memory_llama", "text", o.text_name() + " has no document of 2 tokens");
  return c;
}

/// Says how many documents have fewer than `least` tokens, and what follows for them; refuses texts of which
/// all have fewer. `option` and `name`: what names the texts, and what it names.
inline void check_documents(const unroll::data::documents& all, const char* option, const std::string& name,
                            index_t least, const std::string& otherwise) {
  const index_t too_short = all.shorter_than(least);
  if (too_short < all.size()) {
    if (too_short > 0)
      std::printf("%td of %td documents of %s have fewer than %td tokens: %s\n", too_short, all.size(),
                  name.c_str(), least, otherwise.c_str());
    return;
  }
  std::size_t longest = 0;
  for (const auto& d : all) longest = std::max(longest, d.ids.size());
  fail("memory_llama", option,
       name + " has no document of " + std::to_string(least) + " tokens: " + otherwise + "; the longest of " +
           std::to_string(all.size()) + " has " + std::to_string(longest));
}

}  // namespace program
