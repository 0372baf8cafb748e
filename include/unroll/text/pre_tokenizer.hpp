#pragma once

#include <array>
#include <string_view>

#include "unroll/core/view.hpp"
#include "unroll/text/unicode_categories.hpp"
#include "unroll/text/vocabulary.hpp"

namespace unroll::llama {

namespace detail {

/// What the rules below ask of a character. What is no UTF-8 is a sign of one byte.
enum class character_kind : unsigned char { space, letter, number, sign };

struct character {
  std::size_t length;
  char32_t code;  ///< of no character where it is no UTF-8
  character_kind kind;
};

inline constexpr char32_t no_character = 0x110000;

/// The code point of the UTF-8 character that `text`, not empty, begins with, or no_character.
inline char32_t code_point(std::string_view text, std::size_t length) {
  const auto byte = [&](std::size_t i) { return char32_t(static_cast<unsigned char>(text[i])); };
  if (length == 1) return byte(0) < 0x80 ? byte(0) : no_character;
  char32_t code = byte(0) & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) code = code << 6 | (byte(i) & 0x3F);
  return code;
}

/// \s of the expressions: Unicode's White_Space.
constexpr bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

constexpr character_kind kind_of(char32_t code) {
  if (is_space(code)) return character_kind::space;
  if (in_runs(letter_runs, code)) return character_kind::letter;
  return in_runs(number_runs, code) ? character_kind::number : character_kind::sign;
}

inline constexpr auto ascii_kinds = [] {
  std::array<character_kind, 128> kinds{};
  for (char32_t c = 0; c < 128; ++c) kinds[c] = kind_of(c);
  return kinds;
}();

/// The character that `text`, not empty, begins with.
inline character first_character(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text[0]);
  if (byte < 128) return {1, byte, ascii_kinds[byte]};
  const std::size_t length = character_length(text);
  const char32_t code = code_point(text, length);
  return {length, code, kind_of(code)};
}

/// Bytes of the characters that `text` begins with and `wanted` wants, `most` at most.
template <class Wanted>
std::size_t run_length(std::string_view text, Wanted&& wanted, std::size_t most = std::size_t(-1)) {
  std::size_t n = 0;
  for (std::size_t count = 0; n < text.size() && count < most; ++count) {
    const character c = first_character(text.substr(n));
    if (!wanted(c)) break;
    n += c.length;
  }
  return n;
}
inline std::size_t run_length(std::string_view text, character_kind kind,
                              std::size_t most = std::size_t(-1)) {
  return run_length(
      text, [kind](const character& c) { return c.kind == kind; }, most);
}

constexpr bool is_line_end(char32_t c) { return c == '\r' || c == '\n'; }

/// 's|'t|'re|'ve|'m|'ll|'d, of any case where `fold` says so: then also U+017F, a long s.
inline std::size_t contraction_length(std::string_view text, bool fold) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto at = [&](std::size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return fold && c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  };
  const char a = at(1), b = at(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return fold && text.substr(1).starts_with("\xC5\xBF") ? 3 : 0;
}

/// \s+(?!\S)|\s+ of a text that begins with white space: all of it, but the last character of it where
/// something follows and it is not the only one.
inline std::size_t space_length(std::string_view text) {
  std::size_t n = 0, last = 0;
  while (n < text.size()) {
    const character c = first_character(text.substr(n));
    if (c.kind != character_kind::space) return n > last ? n - last : n;
    n += c.length;
    last = c.length;
  }
  return n;
}

/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ (Radford et al. 2019)
inline std::size_t gpt2_length(std::string_view text) {
  if (const std::size_t n = contraction_length(text, false)) return n;
  const std::size_t blank = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const auto kind = first_character(text.substr(blank)).kind;
  return kind == character_kind::space ? space_length(text) : blank + run_length(text.substr(blank), kind);
}

/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|
/// \s*[\r\n]+|\s+(?!\S)|\s+ (Llama 3: 3 digits)
inline std::size_t llama3_length(std::string_view text, std::size_t digits) {
  if (const std::size_t n = contraction_length(text, true)) return n;
  const character first = first_character(text);
  if (first.kind == character_kind::letter) return run_length(text, character_kind::letter);
  if (first.kind == character_kind::number) return run_length(text, character_kind::number, digits);
  if (!is_line_end(first.code))
    if (const std::size_t n = run_length(text.substr(first.length), character_kind::letter))
      return first.length + n;
  const std::size_t blank = text[0] == ' ' ? 1 : 0;
  if (const std::size_t n = run_length(text.substr(blank), character_kind::sign))
    return blank + n +
           run_length(text.substr(blank + n), [](const character& c) { return is_line_end(c.code); });
  const std::string_view spaces = text.substr(0, run_length(text, character_kind::space));
  const std::size_t line_end = spaces.find_last_of("\r\n");
  return line_end != std::string_view::npos ? line_end + 1 : space_length(text);
}

/// Whether a rule for digits sees one: \p{N} of a newer Unicode than that of the expressions.
inline bool is_digit(const character& c) {
  return c.kind == character_kind::number || (c.code > 0x7F && in_runs(later_number_runs, c.code));
}

inline std::size_t digits_length(std::string_view text, std::size_t most) {
  const std::size_t n = run_length(text, is_digit, most);
  return n > 0 ? n : run_length(text, [](const character& c) { return !is_digit(c); });
}

/// A word begins at each mark U+2581.
inline std::size_t word_length(std::string_view text) {
  return std::min(text.find(blank_mark, text.starts_with(blank_mark) ? blank_mark.size() : 0), text.size());
}

/// Bytes of the first of the pieces into which the rule cuts `text`, not empty.
inline std::size_t piece_length(cut_rule rule, std::string_view text) {
  switch (rule) {
    case cut_rule::gpt2:
      return gpt2_length(text);
    case cut_rule::llama3:
      return llama3_length(text, 3);
    case cut_rule::qwen2:
      return llama3_length(text, 1);
    case cut_rule::digits:
      return digits_length(text, 1);
    case cut_rule::digit_runs:
      return digits_length(text, std::size_t(-1));
    case cut_rule::words:
      return word_length(text);
  }
  return text.size();
}

}  // namespace detail

/// Cuts a text of n bytes by the first rule, each piece by the next one, and so on, in O(n), and calls
/// visit(piece) with what comes out; without rules with the text. The pieces are never empty, and side by
/// side they are the text. A rule sees its piece alone: the end of a piece is the end of a text to it.
template <class Visit>
void pre_tokenize(std::string_view text, view<const cut_rule> rules, Visit&& visit) {
  if (rules.empty()) {
    if (!text.empty()) visit(text);
    return;
  }
  while (!text.empty()) {
    const std::size_t n = detail::piece_length(rules[0], text);
    pre_tokenize(text.substr(0, n), rules.part(1, rules.size() - 1), visit);
    text.remove_prefix(n);
  }
}

}  // namespace unroll::llama
