#pragma once

#include <cstring>

#include "unroll/io/file.hpp"
#include "unroll/text/tokenizer.hpp"

namespace unroll::llama {

/// Reads the bytes of a vocabulary .bin (the format of llama2.c, little-endian): int32 longest piece, then
/// for every id float32 score, int32 length, the bytes, to the end of the file. Ids: 0 unk, 1 bos, 2 eos,
/// pieces named "<0x00>" to "<0xFF>" are bytes; a text is encoded behind one blank. `name` stands for the
/// file in messages. Throws unroll::error on whatever does not fit the file, and on pieces that a tokenizer
/// refuses; allocates in proportion to the bytes.
inline tokenizer parse_tokenizer_bin(std::string_view bytes, const std::string& name) {
  const auto refuse = [&](const std::string& why) { fail("load_tokenizer", name, why); };
  std::size_t at = 0;
  const auto take = [&](auto& value, const std::string& what) {
    if (bytes.size() - at < sizeof value)
      refuse("ends at byte " + std::to_string(bytes.size()) + " inside " + what);
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
  };
  std::int32_t longest = 0;
  take(longest, "the length of the longest piece");
  if (longest < 1 || std::size_t(longest) > bytes.size())
    refuse("says that its longest piece has " + std::to_string(longest) + " bytes, the file has " +
           std::to_string(bytes.size()));
  std::vector<vocabulary_entry> pieces;
  while (at < bytes.size()) {
    const std::string place = "piece " + std::to_string(pieces.size());
    vocabulary_entry p;
    std::int32_t length = 0;
    take(p.score, place);
    take(length, place);
    if (length < 0 || length > longest)
      refuse(place + " has " + std::to_string(length) + " bytes, the longest has " + std::to_string(longest));
    if (std::size_t(length) > bytes.size() - at)
      refuse(place + " has " + std::to_string(length) + " bytes, the file ends after " +
             std::to_string(bytes.size() - at));
    p.text = bytes.substr(at, std::size_t(length));
    at += std::size_t(length);
    if (pieces.empty())
      p.kind = piece_kind::unknown;
    else if (pieces.size() < 3)
      p.kind = piece_kind::control;
    else if (detail::named_byte(p.text) >= 0)
      p.kind = piece_kind::byte;
    pieces.push_back(std::move(p));
  }
  if (pieces.size() < 3)
    refuse("has " + std::to_string(pieces.size()) + " pieces, expected at least unknown, begin and end");
  return {std::move(pieces), tokenizer_options{}, name};
}

}  // namespace unroll::llama
