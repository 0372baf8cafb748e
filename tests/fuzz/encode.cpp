// A small vocabulary and a text made of the bytes: encoding gives the ids of the slow definition, and with
// byte pieces the text comes back.
#include "tests/fuzz/target.hpp"
#include "tests/support/slow_encoding.hpp"

using namespace unroll::llama;

// First byte: 1 byte pieces, 2 a blank in front, 4 unknowns become one. Second: how many pieces. A piece: a
// byte for its length (3 bits) and score (5 bits), its text. The rest is the text.
std::vector<std::string> seeds() {
  using namespace std::string_literals;
  return {"\2\4\1a\1b\12ab\22baabbaab abab"s, "\3\3\1a\1 \12 aaa \xff a"s, "\4\1\2aaaaab\xc3\xa9"s};
}

void parse(std::string_view bytes) {
  if (bytes.size() < 2) return;
  const auto number = [&](std::size_t i) { return unsigned(static_cast<unsigned char>(bytes[i])); };
  const bool whole = (number(0) & 1) != 0, prefix = (number(0) & 2) != 0, fuse = (number(0) & 4) != 0;
  std::vector<vocabulary_entry> pieces{{"<unk>", 0, piece_kind::unknown}};
  for (unsigned b = 0; whole && b < 256; ++b) pieces.push_back({detail::byte_name(b), 0, piece_kind::byte});
  std::size_t at = 2;
  for (unsigned i = 0; i < number(1) % 32 && at < bytes.size(); ++i) {
    const std::size_t length = number(at) % 8;
    const auto score = float(number(at++) / 8);
    pieces.push_back({std::string(bytes.substr(at, length)), score});
    at = std::min(at + length, bytes.size());
  }
  const tokenizer t(pieces, {.bos = -1, .eos = -1, .prefix = prefix, .fuse_unknown = fuse});
  slow_encoding slow(t);
  slow.prefix = prefix;
  slow.fuse_unknown = fuse;
  const std::string text(bytes.substr(at, 200));
  const auto ids = t.encode(text);
  if (ids != slow(text)) std::abort();
  if (whole && t.decode(ids) != text) std::abort();
}
