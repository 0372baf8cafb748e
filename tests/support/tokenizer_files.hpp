#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/text/tokenizer.hpp"

/// Small vocabulary files, written from the description of their formats.
namespace tokenizer_files {

using entries = std::vector<unroll::llama::vocabulary_entry>;
inline const std::string mark = "\xE2\x96\x81";

template <class V>
void put(std::string& out, V value) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  out.append(raw, sizeof value);
}

/// unknown, begin, end, then (optional) the bytes, then these with scores 0, -1, ...
inline entries vocabulary(bool bytes, const std::vector<std::string>& texts) {
  using kind = unroll::llama::piece_kind;
  entries e{{"<unk>", 0, kind::unknown}, {"<s>", 0, kind::control}, {"</s>", 0, kind::control}};
  for (unsigned b = 0; bytes && b < 256; ++b)
    e.push_back({unroll::llama::detail::byte_name(b), 0, kind::byte});
  float score = 0;
  for (const auto& t : texts) e.push_back({t, score--});
  return e;
}

inline std::string bin(const entries& e) {
  std::string out;
  std::int32_t longest = 0;
  for (const auto& p : e) longest = std::max(longest, std::int32_t(p.text.size()));
  put(out, longest);
  for (const auto& p : e) {
    put(out, p.score);
    put(out, std::int32_t(p.text.size()));
    out += p.text;
  }
  return out;
}

inline std::string varint(std::uint64_t n) {
  std::string out;
  for (; n >= 128; n >>= 7) out += char(n | 128);
  return out + char(n);
}
inline std::string proto_text(unsigned field, std::string_view text) {
  return varint(field << 3 | 2) + varint(text.size()) + std::string(text);
}
inline std::string proto_number(unsigned field, std::uint64_t n) { return varint(field << 3) + varint(n); }

struct model_options {
  bool bytes = true;
  bool drop_blanks = false;
  unsigned type = 2;       // byte pairs
  std::string table = {};  // of characters
};

/// A SentencePiece model of byte pairs.
inline std::string model(const entries& e, const model_options& o = {}) {
  std::string out;
  for (const auto& p : e) {
    const unsigned kinds[] = {1, 2, 3, 6, 4};
    std::string piece = proto_text(1, p.text) + varint(2 << 3 | 5);
    put(piece, p.score);
    out += proto_text(1, piece + proto_number(3, kinds[int(p.kind)]));
  }
  out += proto_text(2, proto_number(3, o.type) + proto_number(35, o.bytes ? 1 : 0));
  out += proto_text(3, proto_text(1, "identity") + proto_text(2, o.table) + proto_number(3, 1) +
                           proto_number(4, o.drop_blanks ? 1 : 0) + proto_number(5, 1));
  return out;
}

/// A tokenizer.json of the Llama kind: the pieces, with every join of two of `texts` that is one of them, in
/// their order. Texts need no escapes.
inline std::string json(bool bytes, const std::vector<std::string>& texts) {
  const auto quoted = [](const std::string& text) { return '"' + text + '"'; };
  std::string added, vocab, merges;
  int id = 0;
  for (const auto& p : vocabulary(bytes, texts)) {
    if (id < 3)
      added += (id > 0 ? ", " : "") + ("{\"id\": " + std::to_string(id)) +
               ", \"content\": " + quoted(p.text) +
               ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
               "\"special\": true}";
    vocab += (id > 0 ? ", " : "") + quoted(p.text) + ": " + std::to_string(id);
    ++id;
  }
  for (const auto& text : texts)
    for (const auto& left : texts)
      for (const auto& right : texts)
        if (left + right == text) merges += (merges.empty() ? "" : ", ") + quoted(left + " " + right);
  return "{\"version\": \"1.0\", \"added_tokens\": [" + added +
         "], \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", "
         "\"prepend\": " +
         quoted(mark) +
         "}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": " + quoted(mark) +
         "}]}, \"pre_tokenizer\": null, \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": "
         "\"<unk>\", \"continuing_subword_prefix\": null, \"fuse_unk\": true, \"byte_fallback\": " +
         (bytes ? "true" : "false") + ", \"vocab\": {" + vocab + "}, \"merges\": [" + merges + "]}}";
}

// The table of the rule A -> text, a double array of 512 units: the root leads to units 256 and on, 'A' to
// unit 321, whose text begins where unit 320 says. `others`: numbers of units and what they are instead.
inline std::string character_table(std::uint32_t value = 0, const std::string& text = "a",
                                   const std::map<std::size_t, std::uint32_t>& others = {}) {
  std::vector<std::uint32_t> units(512, 0);
  units[0] = 256u << 10;
  units[321] = 1u << 10 | 1u << 8 | 'A';
  units[256] = 1u << 31;
  units[320] = 1u << 31 | value;
  for (const auto& [i, unit] : others) units[i] = unit;
  const auto bytes = std::uint32_t(4 * units.size());
  std::string out(reinterpret_cast<const char*>(&bytes), 4);
  out.append(reinterpret_cast<const char*>(units.data()), bytes);
  return out + text + std::string(1, '\0');
}

}  // namespace tokenizer_files
