#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/error.hpp"

namespace unroll::llama::detail {

/// Refuses a table by which SentencePiece changes characters (nmt_nfkc and its like) that would lead its
/// library out of the table or of its room for the rules that fit a text (32 of them), or make a text more
/// than 64 times as long: the library itself believes it.
///
///   u32 bytes of the trie, the trie, texts that end with 0 each
///
/// The trie is a double array of u32 units (Darts-clone). Unit i without bit 31 leads by byte b to unit
/// (i ^ offset) ^ b, which has b in its low 8 bits, offset = (unit >> 10) << (unit >> 9 & 1) * 8, and where
/// it has bit 8, unit i ^ offset holds in its low 31 bits where the text begins that replaces what was read.
/// Of unit 0, where a text begins, the offset alone is looked at.
inline void check_character_table(std::string_view table, const std::string& name) {
  static constexpr std::size_t longest = 64;  // nmt_nfkc has one of 33 bytes
  static constexpr unsigned most_read = 32;   // by a rule, and so as many rules inside each other at most
  const auto refuse = [&](const std::string& why) {
    fail("load_tokenizer", name,
         "changes characters by a table of " + std::to_string(table.size()) + " bytes " + why);
  };
  const auto number = [&](std::size_t at) {
    std::uint32_t n = 0;
    std::memcpy(&n, table.data() + at, 4);
    return n;
  };
  if (table.size() < 8) refuse("that is cut off");
  const std::size_t bytes = number(0), units = bytes / 4;
  if (bytes % 4 != 0 || units == 0 || bytes > table.size() - 4)
    refuse("whose trie has " + std::to_string(bytes) + " bytes");
  const std::string_view texts = table.substr(4 + bytes);
  if (texts.empty() || texts.back() != '\0') refuse("whose last text has no end");
  const auto unit_at = [&](std::size_t i) { return number(4 + 4 * i); };
  const auto leads = [&](std::size_t i) { return i == 0 || unit_at(i) >> 31 == 0; };
  const auto base_of = [&](std::size_t i) {
    const std::uint32_t unit = unit_at(i);
    return i ^ (std::size_t(unit >> 10) << (unit >> 9 & 1) * 8);
  };
  for (std::size_t i = 0; i < units; ++i) {
    if (!leads(i)) continue;
    const std::uint32_t unit = unit_at(i);
    const std::size_t base = base_of(i);
    const auto at = [&] { return "whose unit " + std::to_string(i) + " leads to "; };
    if ((base | 255) >= units)
      refuse(at() + "unit " + std::to_string(base | 255) + " of " + std::to_string(units));
    if ((unit >> 8 & 1) == 0) continue;
    const std::size_t text = unit_at(base) & 0x7FFFFFFF;
    if (text >= texts.size())
      refuse(at() + "the text at byte " + std::to_string(text) + " of " + std::to_string(texts.size()));
    if (texts.substr(text, longest + 1).find('\0') == std::string_view::npos)
      refuse(at() + "a text of more than " + std::to_string(longest) + " bytes");
  }
  // One more than the bytes read on the longest way to each base; 0: there is none.
  std::vector<std::uint8_t> ways(units, 0);
  ways[base_of(0)] = 1;
  for (bool longer = true; longer;) {
    longer = false;
    for (std::size_t i = 0; i < units; ++i) {
      const std::size_t from = i ^ (unit_at(i) & 255);
      if (unit_at(i) >> 31 != 0 || from >= units || ways[from] == 0) continue;
      std::uint8_t& way = ways[base_of(i)];
      if (way > ways[from]) continue;
      if (ways[from] > most_read)
        refuse("whose rules read more than " + std::to_string(most_read) + " bytes");
      way = std::uint8_t(ways[from] + 1);
      longer = true;
    }
  }
}

}  // namespace unroll::llama::detail
