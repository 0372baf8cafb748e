#pragma once

#include "unroll/io/gguf.hpp"
#include "unroll/text/byte_level_tokenizer.hpp"

namespace unroll::llama {

namespace detail {

// token_type of GGUF: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. An unused piece is a
// normal one that no merge makes.
inline piece_kind gguf_piece_kind(const gguf& file, std::int32_t type) {
  switch (type) {
    case 2:
      return piece_kind::unknown;
    case 3:
      return piece_kind::control;
    case 4:
      return piece_kind::user;
    case 6:
      return piece_kind::byte;
    default:
      if (type != 1 && type != 5)
        file.refuse_key("tokenizer.ggml.token_type", std::to_string(type), "numbers from 1 to 6");
      return piece_kind::normal;
  }
}

// The list `key`, as long as the vocabulary, or nothing.
template <class T>
std::vector<T> gguf_piece_list(const gguf& file, const std::string& key, std::size_t pieces) {
  if (!file.has(key)) return {};
  auto all = file.list<T>(key);
  if (all.size() != pieces)
    file.refuse_key(key, "a list of " + std::to_string(all.size()),
                    "one for each of " + std::to_string(pieces) + " tokenizer.ggml.tokens");
  return all;
}

inline std::vector<vocabulary_entry> gguf_pieces(const gguf& file) {
  auto texts = file.list<std::string>("tokenizer.ggml.tokens");
  const auto types = gguf_piece_list<std::int32_t>(file, "tokenizer.ggml.token_type", texts.size());
  const auto scores = gguf_piece_list<float>(file, "tokenizer.ggml.scores", texts.size());
  std::vector<vocabulary_entry> pieces;
  pieces.reserve(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i)
    pieces.push_back({std::move(texts[i]), scores.empty() ? 0 : scores[i],
                      types.empty() ? piece_kind::normal : gguf_piece_kind(file, types[i])});
  return pieces;
}

// Cuts and whole_pieces of the byte-level vocabulary that tokenizer.ggml.pre names.
inline tokenizer_options gguf_pre_tokenizer(const gguf& file) {
  const std::string key = "tokenizer.ggml.pre";
  const auto pre = file.get<std::string>(key, "");
  if (pre == "llama-bpe") return {.cuts = {cut_rule::llama3}, .whole_pieces = true};
  if (pre == "qwen2") return {.cuts = {cut_rule::qwen2}};
  if (pre == "smollm") return {.cuts = {cut_rule::digits, cut_rule::gpt2}};
  if (pre == "gpt-2") return {.cuts = {cut_rule::gpt2}};
  file.refuse_key(key, pre.empty() ? "absent" : unroll::detail::in_quotes(pre),
                  "\"llama-bpe\", \"qwen2\", \"smollm\" or \"gpt-2\"");
}

// Keys that nobody here reads may change the ids.
inline void refuse_unknown_vocabulary_keys(const gguf& file) {
  static constexpr std::string_view known[] = {"model",
                                               "pre",
                                               "tokens",
                                               "token_type",
                                               "scores",
                                               "merges",
                                               "bos_token_id",
                                               "eos_token_id",
                                               "eot_token_id",
                                               "eom_token_id",
                                               "fim_pad_token_id",
                                               "fim_rep_token_id",
                                               "fim_sep_token_id",
                                               "unknown_token_id",
                                               "add_bos_token",
                                               "add_eos_token",
                                               "add_sep_token",
                                               "add_space_prefix"};
  static constexpr harmless_key harmless[] = {
      {"token_type_count", "of BERT's sentences"},
      {"padding_token_id", "texts are not filled up"},
      {"seperator_token_id", "stands between two texts; spelled so"},
      {"separator_token_id", "the same"},
      {"cls_token_id", "of BERT"},
      {"mask_token_id", "of BERT"},
      {"fim_pre_token_id", "for who writes the middle of a text"},
      {"fim_suf_token_id", "the same"},
      {"fim_mid_token_id", "the same"},
      {"prefix_token_id", "the same, before it was named so"},
      {"suffix_token_id", "the same"},
      {"middle_token_id", "the same"},
      {"remove_extra_whitespaces", "of model \"t5\" in llama.cpp"},
  };
  file.refuse_unknown("tokenizer.ggml.", known, harmless);
  for (const char* key : {"tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_sep_token"})
    if (file.get<bool>(key, false)) file.refuse_key(key, "true", "false");
}

inline token gguf_token(const gguf& file, const std::string& key, token otherwise) {
  if (!file.has(key)) return otherwise;
  const auto id = file.get<std::uint32_t>(key);
  if (id >= std::uint32_t{1} << 31) file.refuse_key(key, std::to_string(id), "an id below 2^31");
  return token(id);
}

}  // namespace detail

/// The vocabulary in a GGUF file, keys tokenizer.ggml.*: model "gpt2", byte-level pairs, with
/// tokenizer.ggml.pre "llama-bpe", "qwen2", "smollm" or "gpt-2"; or model "llama", SentencePiece's pairs by
/// scores. Defaults are llama.cpp's (llama-cpp-python 0.3.36): scores 0, kinds normal, add_bos_token true for
/// "llama" and "llama-bpe", begin, end and unknown 1, 2 and 0 for "llama". The begin is there only where it
/// is put in front of texts. Names of control pieces are found in texts of "gpt2", as with llama.cpp's
/// parse_special; of "llama" they are characters. User-defined pieces are found before all else, the
/// leftmost first and of those the longest, and what is behind one begins with a blank of its own;
/// llama.cpp finds the longest first, which differs where two overlap. Throws unroll::error, which names the
/// file, on another model or pre, on keys that nobody knows, where a text would get an end, and as
/// `tokenizer` and byte_level_tokenizer do.
inline tokenizer parse_tokenizer_gguf(const gguf& file) {
  const std::string at = "tokenizer.ggml.";
  const auto model = file.get<std::string>(at + "model");
  if (model != "gpt2" && model != "llama")
    file.refuse_key(at + "model", unroll::detail::in_quotes(model), "\"gpt2\" or \"llama\"");
  const bool byte_level = model == "gpt2";
  detail::refuse_unknown_vocabulary_keys(file);
  std::vector<vocabulary_entry> pieces = detail::gguf_pieces(file);
  tokenizer_options options = byte_level ? detail::gguf_pre_tokenizer(file) : tokenizer_options{};
  const bool adds_bos = file.get<bool>(at + "add_bos_token", !byte_level || options.whole_pieces);
  options.bos = adds_bos ? detail::gguf_token(file, at + "bos_token_id", byte_level ? -1 : 1) : -1;
  options.eos = detail::gguf_token(file, at + "eos_token_id", byte_level ? -1 : 2);
  options.unk = detail::gguf_token(file, at + "unknown_token_id", byte_level ? -1 : 0);
  if (adds_bos && options.bos < 0)
    file.refuse_key(at + "bos_token_id", "absent", "an id, as add_bos_token is true");
  const std::string& name = file.source().name();
  if (byte_level)
    return byte_level_tokenizer(std::move(pieces), file.list<std::string>(at + "merges"), options, name);
  std::vector<added_text> added;
  for (std::size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].kind == piece_kind::user) added.push_back({pieces[i].text, token(i)});
  options.blank = blank_mark;
  options.prefix = file.get<bool>(at + "add_space_prefix", true);
  return {std::move(pieces), options, name, std::move(added)};
}

/// The ids of which each ends a text: those of eos, eot, eom, fim_pad, fim_rep and fim_sep in
/// tokenizer.ggml.NAME_token_id, as llama.cpp takes them. Throws unroll::error on ids beyond a vocabulary of
/// so many.
inline std::vector<token> gguf_end_tokens(const gguf& file, index_t vocabulary) {
  std::vector<token> ends;
  for (const char* name : {"eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"}) {
    const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    const token id = detail::gguf_token(file, key, -1);
    if (id >= vocabulary)
      file.refuse_key(key, std::to_string(id), "an id below " + std::to_string(vocabulary));
    if (id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
  return ends;
}

}  // namespace unroll::llama
