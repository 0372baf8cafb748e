#pragma once

#include <array>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "unroll/text/byte_pairs.hpp"
#include "unroll/text/pre_tokenizer.hpp"

namespace unroll::llama {

namespace detail {

/// Unicode's White_Space, in UTF-8.
inline constexpr std::string_view white_space[] = {
    "\t",           "\n",           "\v",           "\f",           "\r",           " ",
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81", "\xE2\x80\x82",
    "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88",
    "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F",
    "\xE3\x80\x80"};

/// Bytes of the white space that `text` begins with.
inline std::size_t space_in_front(std::string_view text) {
  for (std::size_t n = 0;;) {
    const auto found = std::find_if(std::begin(white_space), std::end(white_space),
                                    [&](std::string_view s) { return text.substr(n).starts_with(s); });
    if (found == std::end(white_space)) return n;
    n += found->size();
  }
}
/// Bytes of the white space that `text` ends with.
inline std::size_t space_behind(std::string_view text) {
  for (std::size_t n = 0;;) {
    const auto found = std::find_if(std::begin(white_space), std::end(white_space), [&](std::string_view s) {
      return text.substr(0, text.size() - n).ends_with(s);
    });
    if (found == std::end(white_space)) return n;
    n += found->size();
  }
}

/// Whether `text` begins with a character of a word, \w.
inline bool word_in_front(std::string_view text) {
  if (text.empty()) return false;
  const char32_t code = first_character(text).code;
  return in_runs(letter_runs, code) || in_runs(word_runs, code);
}
/// Whether `text` ends with one.
inline bool word_behind(std::string_view text) {
  std::size_t n = std::min<std::size_t>(text.size(), 1);
  while (n < text.size() && n < 4 && (static_cast<unsigned char>(text[text.size() - n]) & 0xC0) == 0x80) ++n;
  const std::string_view last = text.substr(text.size() - n);
  return n > 0 && character_length(last) == n && word_in_front(last);
}

}  // namespace detail

/// Finds added texts inside a text as HuggingFace's tokenizers does: the leftmost, and the longest of those
/// that begin at one place. They are looked for from the end of the text on, by the automaton of Aho and
/// Corasick (1975) for the texts read backwards: in each of its states it knows the longest one that begins
/// there.
class added_texts final {
 public:
  /// False, and nothing is added, where another id has this text.
  bool add(const added_text& a) {
    const auto [at, is_new] = backwards_.try_emplace(detail::reversed(a.text), a);
    return is_new || at->second.id == a.id;
  }

  /// Ends the adding, in O(n log n) of all bytes.
  void seal() {
    std::vector<std::uint32_t> depth{0}, before{0}, path{0};  // path: the states of a text's begins
    std::string byte_of{'\0'};
    longest_ = {none};
    std::string_view last;
    for (const auto& [text, added] : backwards_) {  // in their order, so that equal begins stand together
      std::size_t same = 0;
      while (same < std::min(last.size(), text.size()) && last[same] == text[same]) ++same;
      path.resize(same + 1);
      for (std::size_t i = same; i < text.size(); ++i) {
        next_.add(token(path.back()), byte_value(text[i]), std::uint32_t(longest_.size()));
        before.push_back(path.back());
        depth.push_back(std::uint32_t(i + 1));
        byte_of += text[i];
        path.push_back(std::uint32_t(longest_.size()));
        longest_.push_back(none);
      }
      longest_[path.back()] = std::uint32_t(all_.size());
      all_.push_back(added);
      last = text;
    }
    next_.seal();
    std::vector<std::uint32_t> order(longest_.size());
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return depth[a] < depth[b]; });
    shorter_.assign(longest_.size(), 0);
    for (const std::uint32_t state : order) {
      if (depth[state] > 1) shorter_[state] = behind(shorter_[before[state]], byte_of[state]);
      if (longest_[state] == none) longest_[state] = longest_[shorter_[state]];
    }
    backwards_.clear();
  }

  /// Calls `rest` with the stretches of n bytes between the added texts; these become ids. O(n).
  template <class Rest>
  void split(std::string_view text, std::vector<token>& ids, Rest&& rest) const {
    std::size_t done = 0, at = 0;
    const auto all = places(text);
    for (std::size_t i = all.size(); i-- > 0;) {  // from the first one in the text on
      const auto [place, which] = all[i];
      if (place < at) continue;
      const added_text* found = &all_[which];
      std::size_t begin = place, end = at = begin + found->text.size();
      if (found->single_word &&
          (detail::word_behind(text.substr(0, begin)) || detail::word_in_front(text.substr(end))))
        continue;
      if (found->eats_left)
        begin = begin <= done ? done : begin - detail::space_behind(text.substr(done, begin - done));
      if (found->eats_right) {
        end = std::max(end, done);  // an earlier one has eaten the white space up to `done`
        end += detail::space_in_front(text.substr(end));
      }
      if (begin > done) rest(text.substr(done, begin - done));
      if (begin < end) ids.push_back(found->id);  // else another one has eaten it
      done = std::max(begin, end);
    }
    if (done < text.size()) rest(text.substr(done));
  }

 private:
  static token byte_value(char c) { return token(static_cast<unsigned char>(c)); }
  /// The state behind one more byte: that of the longest begin of an added text that the bytes end with.
  std::uint32_t behind(std::uint32_t state, char c) const {
    for (;; state = shorter_[state]) {
      const std::uint32_t* next = next_.find(token(state), byte_value(c));
      if (next) return *next;
      if (state == 0) return 0;
    }
  }
  /// Where in the text an added one begins, from the last place on, and which: the longest.
  std::vector<std::pair<std::size_t, std::uint32_t>> places(std::string_view text) const {
    std::vector<std::pair<std::size_t, std::uint32_t>> out;
    if (all_.empty()) return out;
    std::array<std::uint32_t, 256> first{};
    for (int c = 0; c < 256; ++c)
      if (const std::uint32_t* next = next_.find(0, c)) first[std::size_t(c)] = *next;
    std::uint32_t state = 0;
    for (std::size_t at = text.size(); at-- > 0;) {
      state = state == 0 ? first[static_cast<unsigned char>(text[at])] : behind(state, text[at]);
      if (longest_[state] != none) out.emplace_back(at, longest_[state]);
    }
    return out;
  }

  static constexpr std::uint32_t none = 0xFFFFFFFF;
  std::map<std::string, added_text> backwards_;  // by their bytes, the last one first; until they are sealed
  std::vector<added_text> all_;
  detail::pair_map<std::uint32_t> next_;  // of a state and a byte
  std::vector<std::uint32_t> longest_;    // the one that ends in a state
  std::vector<std::uint32_t> shorter_;    // the state of the longest begin that a state ends with
};

}  // namespace unroll::llama
