#pragma once

#include <string>
#include <utility>
#include <vector>

#include "unroll/text/byte_pairs.hpp"
#include "unroll/text/vocabulary.hpp"

namespace unroll::llama::detail {

/// Of each of `size` pieces the longest other one that it begins with, or -1; `texts`: of the pieces that
/// count, with their ids. In sorted order the texts that begin a text stand before it, each beginning the
/// next one of them.
inline std::vector<token> longest_begins(std::vector<std::pair<std::string, token>> texts, std::size_t size) {
  std::vector<token> out(size, -1);
  std::vector<std::size_t> open;
  std::sort(texts.begin(), texts.end());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto& [text, id] = texts[i];
    while (!open.empty() && !text.starts_with(texts[open.back()].first)) open.pop_back();
    if (!open.empty()) out[std::size_t(id)] = texts[open.back()].second;
    open.push_back(i);
  }
  return out;
}

/// Adds the joins of a vocabulary with scores, not sealed: every cut of a normal piece into two normal
/// pieces; its rank is the place of the piece's score among all scores. The pieces that a piece begins with
/// are a chain (the longest, the longest that this begins with, ...), and so are those that it ends with: one
/// walk along each finds all cuts, in O(n log n) of all n bytes, which are also as many as there can be
/// joins.
inline void add_score_joins(const std::vector<vocabulary_entry>& pieces, byte_pairs& joins) {
  std::vector<std::pair<std::string, token>> forwards, backwards;
  std::vector<float> scores;
  std::size_t longest = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string& text = pieces[i].text;
    if (pieces[i].kind != piece_kind::normal) continue;
    forwards.emplace_back(text, token(i));
    backwards.emplace_back(reversed(text), token(i));
    scores.push_back(pieces[i].score);
    longest = std::max(longest, text.size());
  }
  std::sort(scores.begin(), scores.end());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  const auto begins = longest_begins(std::move(forwards), pieces.size());
  const auto ends = longest_begins(std::move(backwards), pieces.size());
  std::vector<token> of_length(longest + 1, -1);  // the pieces that the one at hand begins with
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].kind != piece_kind::normal || begins[i] < 0 || ends[i] < 0) continue;
    const auto length = [&](token id) { return pieces[std::size_t(id)].text.size(); };
    const auto along = [](const std::vector<token>& chain, token from, auto&& visit) {
      for (token id = from; id >= 0; id = chain[std::size_t(id)]) visit(id);
    };
    const auto rank =
        std::uint32_t(scores.end() - std::lower_bound(scores.begin(), scores.end(), pieces[i].score));
    along(begins, begins[i], [&](token left) { of_length[length(left)] = left; });
    along(ends, ends[i], [&](token right) {
      const token left = of_length[length(token(i)) - length(right)];
      if (left >= 0) joins.add(left, right, {rank, token(i)});
    });
    along(begins, begins[i], [&](token left) { of_length[length(left)] = -1; });
  }
}

}  // namespace unroll::llama::detail
