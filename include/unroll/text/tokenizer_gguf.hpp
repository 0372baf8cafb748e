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
  const auto texts = file.list<std::string>("tokenizer.ggml.tokens");
  const auto types = gguf_piece_list<std::int32_t>(file, "tokenizer.ggml.token_type", texts.size());
  const auto scores = gguf_piece_list<float>(file, "tokenizer.ggml.scores", texts.size());
  std::vector<vocabulary_entry> pieces;
  pieces.reserve(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i)
    pieces.push_back({texts[i], scores.empty() ? 0 : scores[i],
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
/// parse_special; of "llama" they are characters. Throws unroll::error, which names the file, on another
/// model or pre, on user-defined pieces of "llama", where a text would get an end, and as `tokenizer` and
/// byte_level_tokenizer do.
inline tokenizer parse_tokenizer_gguf(const gguf& file) {
  const std::string at = "tokenizer.ggml.";
  const auto model = file.get<std::string>(at + "model");
  if (model != "gpt2" && model != "llama")
    file.refuse_key(at + "model", unroll::detail::in_quotes(model), "\"gpt2\" or \"llama\"");
  const bool byte_level = model == "gpt2";
  if (file.get<bool>(at + "add_eos_token", false)) file.refuse_key(at + "add_eos_token", "true", "false");
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
  for (std::size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].kind == piece_kind::user)
      file.source().refuse("has the user-defined piece " + std::to_string(i) + ", " +
                           unroll::detail::in_quotes(pieces[i].text) +
                           ", which model \"llama\" does not read");
  options.blank = blank_mark;
  options.prefix = file.get<bool>(at + "add_space_prefix", true);
  return {std::move(pieces), options, name};
}

/// The ids of which each ends a text: eos_token_id, eot_token_id and eom_token_id of tokenizer.ggml. Throws
/// unroll::error on ids beyond a vocabulary of so many.
inline std::vector<token> gguf_end_tokens(const gguf& file, index_t vocabulary) {
  std::vector<token> ends;
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    const std::string key = std::string("tokenizer.ggml.") + name;
    const token id = detail::gguf_token(file, key, -1);
    if (id >= vocabulary)
      file.refuse_key(key, std::to_string(id), "an id below " + std::to_string(vocabulary));
    if (id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
  return ends;
}

}  // namespace unroll::llama
