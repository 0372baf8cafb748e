#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "unroll/text/vocabulary.hpp"

namespace unroll::llama::detail {

/// Words of a text that have been encoded, and where their ids stand. Every word has four slots by its hash;
/// where all are another's, one of those is forgotten, so that no words make a search long.
class word_cache {
 public:
  struct slot {
    std::string_view word;  ///< empty: free
    std::size_t from = 0, count = 0;
  };

  /// For a text of so many bytes; at most 2^16 slots.
  explicit word_cache(std::size_t bytes) {
    std::size_t sets = 1;
    while (4 * sets < std::min<std::size_t>(bytes / 4, 1 << 16)) sets *= 2;
    slots_.resize(4 * sets);
  }
  /// The slot that has the word, or the one that it takes.
  slot& slot_of(std::string_view word) {
    const std::size_t hash = text_hash()(word), first = 4 * hash & (slots_.size() - 1);
    for (std::size_t i = first; i < first + 4; ++i)
      if (slots_[i].word == word || slots_[i].word.empty()) return slots_[i];
    return slots_[first + (hash >> 62)];
  }

 private:
  std::vector<slot> slots_;
};

}  // namespace unroll::llama::detail
