#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "unroll/text/pre_tokenizer.hpp"

namespace unroll::llama {

namespace detail {

/// The code point that stands for a byte in the pieces of a byte-level vocabulary (Radford et al. 2019):
/// the printable ones of Latin-1 for themselves, the other 68 bytes, in ascending order, as U+0100 and on.
constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}
inline constexpr auto byte_letters = [] {
  std::array<char32_t, 256> codes{};
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) codes[b] = stands_for_itself(b) ? char32_t(b) : next++;
  return codes;
}();

/// Bytes as a byte-level vocabulary spells them: " a" as "\u0120a".
inline std::string byte_level_spelling(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const char32_t code = byte_letters[static_cast<unsigned char>(c)];
    if (code < 0x80) {
      out += char(code);
    } else {
      out += char(0xC0 | code >> 6);
      out += char(0x80 | (code & 0x3F));
    }
  }
  return out;
}

/// The bytes that such a spelling stands for; none where a character stands for no byte.
inline std::optional<std::string> spelled_bytes(std::string_view spelling) {
  std::string out;
  while (!spelling.empty()) {
    const std::size_t length = character_length(spelling);
    const char32_t code = code_point(spelling, length);
    unsigned byte = unsigned(code);
    if (code > 0xFF) {
      if (code > byte_letters[0xAD]) return {};
      byte = unsigned(std::find(byte_letters.begin(), byte_letters.end(), code) - byte_letters.begin());
    }
    if (code <= 0xFF && !stands_for_itself(byte)) return {};
    out += char(static_cast<unsigned char>(byte));
    spelling.remove_prefix(length);
  }
  return out;
}

}  // namespace detail

}  // namespace unroll::llama
