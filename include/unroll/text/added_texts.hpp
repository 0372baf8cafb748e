#pragma once

#include <array>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

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
/// that begin at one place.
class added_texts final {
 public:
  /// False, and nothing is added, where another id has this text.
  bool add(const added_text& a) {
    auto& same_size = all_[a.text.size()];
    if (const auto at = same_size.find(a.text); at != same_size.end()) return at->second.id == a.id;
    starts_[static_cast<unsigned char>(a.text[0])] = true;
    same_size.emplace(a.text, a);
    return true;
  }

  /// Calls `rest` with the stretches of n bytes between the added texts; these become ids. O(n) times the
  /// sum of the different sizes of added texts at worst.
  template <class Rest>
  void split(std::string_view text, std::vector<token>& ids, Rest&& rest) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size() && !all_.empty();) {
      const added_text* found =
          starts_[static_cast<unsigned char>(text[at])] ? find(text.substr(at)) : nullptr;
      if (!found) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at += found->text.size();
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
  const added_text* find(std::string_view text) const {
    for (auto of_size = all_.rbegin(); of_size != all_.rend(); ++of_size)
      if (const auto at = of_size->second.find(text.substr(0, of_size->first)); at != of_size->second.end())
        return &at->second;
    return nullptr;
  }

  using texts = std::unordered_map<std::string, added_text, detail::text_hash, detail::text_equal>;
  std::map<std::size_t, texts> all_;  // by size
  std::array<bool, 256> starts_{};
};

}  // namespace unroll::llama
