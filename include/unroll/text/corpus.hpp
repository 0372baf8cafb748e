#pragma once

#include <cstdint>
#include <utility>

#include "unroll/io/hash.hpp"
#include "unroll/text/documents.hpp"

namespace unroll::data {

/// Texts to train on and texts that are held out.
struct corpus {
  documents train;     ///< what a run learns from
  documents held_out;  ///< what it is measured with
};

/// Holds the last 1/parts of the ids of each document out, rounded down.
inline corpus hold_out_ends(const documents& all, index_t parts = 10) {
  check_at_least("hold_out_ends", "parts", parts, 2);
  corpus c;
  for (const document& d : all) {
    const auto cut = d.ids.end() - std::ptrdiff_t(d.ids.size()) / parts;
    c.train.add(d.name, {d.ids.begin(), cut});
    c.held_out.add(d.name, {cut, d.ids.end()});
  }
  return c;
}

/// Mean bytes that an id stands for, marks such as the begin of a text left out; 1 where there is none.
inline double bytes_per_token(const documents& all, const llama::tokenizer& words) {
  double bytes = 0, tokens = 0;
  for (const document& d : all)
    for (const llama::token t : d.ids) {
      if (words.kind(t) == llama::piece_kind::control) continue;
      bytes += double(words.piece(t).size());
      ++tokens;
    }
  return tokens > 0 ? bytes / tokens : 1;
}

/// Of all ids in their documents, for a run to know what it belongs to.
inline std::uint64_t hash_of(const documents& all) {
  std::uint64_t h = 0;
  for (const document& d : all) h = h * 31 + fnv1a(d.ids.data(), d.ids.size() * sizeof(llama::token));
  return h;
}

}  // namespace unroll::data
