#pragma once

#include "unroll/text/tokenizer.hpp"

namespace unroll::llama {

namespace detail {

/// The merge of two pieces by name. find(text) is an id or -1, refuse(why) throws.
template <class Find, class Refuse>
merge named_merge(std::string_view left, std::string_view right, Find&& find, Refuse&& refuse) {
  const auto piece = [&](std::string_view text) {
    const token id = find(text);
    if (id < 0)
      refuse("of " + unroll::detail::in_quotes(left) + " and " + unroll::detail::in_quotes(right) + ", but " +
             unroll::detail::in_quotes(text) + " is no piece");
    return id;
  };
  return {piece(left), piece(right), piece(std::string(left).append(right))};
}

}  // namespace detail

/// A byte-level vocabulary of lists, as a GGUF file of model "gpt2" has them: pieces (normal ones in the
/// spelling of text/byte_level.hpp, " a" as "\u0120a"), and merges "left right" with one blank between the
/// two, the first one first. Pieces of kind control and user are looked for in a text, as they are
/// written, before it is cut. Of `options`, byte_level and prefix are as they must be here; what remains:
///
///   | tokenizer.ggml.pre | cuts | whole_pieces |
///   |---|---|---|
///   | llama-bpe | {cut_rule::llama3} | true |
///   | qwen2 | {cut_rule::qwen2} | false |
///   | smollm | {cut_rule::digits, cut_rule::gpt2} | false |
///   | gpt-2 | {cut_rule::gpt2} | false |
///
/// unk, bos and eos: -1 where there is none, bos also where none is put in front of a text. `name` stands
/// for the file in messages. Throws unroll::error on pieces that a tokenizer refuses, and on merges that are
/// not two pieces whose joined text is a third, each pair once.
inline tokenizer byte_level_tokenizer(std::vector<vocabulary_entry> pieces, view<const std::string> merges,
                                      tokenizer_options options, const std::string& name) {
  options.byte_level = true;
  options.prefix = false;
  detail::sealed_map<std::string_view, token, detail::text_hash> ids;  // of the texts in `pieces`
  ids.reserve(pieces.size());
  std::vector<added_text> added;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const vocabulary_entry& p = pieces[i];
    if (p.kind == piece_kind::normal) ids.add(p.text, token(i));
    const bool special = p.kind == piece_kind::control;
    if (special || p.kind == piece_kind::user) added.push_back({p.text, token(i), false, special});
  }
  ids.seal();
  const auto find = [&](std::string_view text) {
    const token* at = ids.find(text);
    return at ? *at : token(-1);
  };
  std::vector<merge> joins;
  joins.reserve(std::size_t(merges.size()));
  for (const std::string& m : merges) {
    const auto refuse = [&](const std::string& why) {
      fail("tokenizer", name, "has merge " + std::to_string(joins.size()) + " " + why);
    };
    const std::size_t blank = m.find(' ');
    if (blank == std::string::npos || m.find(' ', blank + 1) != std::string::npos)
      refuse(unroll::detail::in_quotes(m) + ", expected two pieces with a blank between them");
    const std::string_view both = m;
    joins.push_back(detail::named_merge(both.substr(0, blank), both.substr(blank + 1), find, refuse));
  }
  return {std::move(pieces), joins, std::move(added), options, name};
}

}  // namespace unroll::llama
