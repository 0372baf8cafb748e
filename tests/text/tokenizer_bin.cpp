#include "unroll/text/tokenizer_bin.hpp"

#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/slow_encoding.hpp"
#include "tests/support/tokenizer_files.hpp"

using namespace unroll;
using namespace tokenizer_files;
using Catch::Matchers::ContainsSubstring;

namespace {

const std::string example = bin(vocabulary(true, {" ", "a", "b", " a", "ab", " ab"}));

llama::tokenizer parse(const std::string& bytes) { return llama::parse_tokenizer_bin(bytes, "file"); }

/// The example with the value at a byte replaced.
template <class V>
std::string with(std::size_t at, V value) {
  std::string s = example;
  std::memcpy(s.data() + at, &value, sizeof value);
  return s;
}

}  // namespace

TEST_CASE("a vocabulary .bin has unknown, begin, end, bytes by name and pieces with scores") {
  const auto t = parse(example);
  CHECK(t.size() == 265);
  CHECK(t.kind(0) == llama::piece_kind::unknown);
  CHECK(t.kind(2) == llama::piece_kind::control);
  CHECK(t.kind(3) == llama::piece_kind::byte);
  CHECK(t.piece(3 + 0x0A) == "\n");
  CHECK(t.score(264) == -5);
  for (const char* text : {"ab", " ab", "b a\n", "\xC3\xA9", ""}) {
    CHECK(t.encode(text) == slow_encoding(t)(text));
    CHECK(t.decode(t.encode(text, true)) == text);
  }
  CHECK(t.encode("ab", true) == std::vector<llama::token>{1, t.find(" ab")});
}

TEST_CASE("a vocabulary .bin that is cut at any byte is refused or ends with a whole piece") {
  std::size_t whole = 0;
  for (std::size_t n = 0; n < example.size(); ++n) {
    try {
      const auto t = parse(example.substr(0, n));
      CHECK(t.size() < 265);
      ++whole;
    } catch (const unroll::error& e) {
      CHECK_THAT(e.what(), ContainsSubstring("file"));
    }
  }
  CHECK(whole == 265 - 3);
  CHECK_THROWS_WITH(parse(example.substr(0, example.size() - 1)),
                    ContainsSubstring("piece 264 has 3 bytes, the file ends after 2"));
  CHECK_THROWS_WITH(parse(example.substr(0, 9)), ContainsSubstring("ends at byte 9 inside piece 0"));
  CHECK_THROWS_WITH(parse(bin({{"a"}, {"b"}})), ContainsSubstring("has 2 pieces"));
}

TEST_CASE("lengths, scores and pieces that do not fit the file are named with their place") {
  constexpr std::int32_t huge = std::numeric_limits<std::int32_t>::max();
  CHECK_THROWS_WITH(parse(with(0, huge)),
                    ContainsSubstring("longest piece has 2147483647 bytes, the file has"));
  CHECK_THROWS_WITH(parse(with(0, std::int32_t{0})), ContainsSubstring("longest piece has 0"));
  CHECK_THROWS_WITH(parse(with(8, huge)),
                    ContainsSubstring("piece 0 has 2147483647 bytes, the longest has 6"));
  CHECK_THROWS_WITH(parse(with(8, std::int32_t{-1})),
                    ContainsSubstring("piece 0 has -1 bytes, the longest has 6"));
  CHECK_THROWS_WITH(parse(with(4, std::numeric_limits<float>::quiet_NaN())),
                    ContainsSubstring("file") && ContainsSubstring("piece 0 has score"));
  CHECK_THROWS_WITH(parse(bin(vocabulary(true, {"a", "b", "a"}))),
                    ContainsSubstring("piece 261 and piece 259 have the same text"));
  CHECK_THROWS_WITH(parse(bin(vocabulary(true, {"<0x41>"}))), ContainsSubstring("have the same text"));
  CHECK_THROWS_WITH(parse(bin(vocabulary(false, {""}))), ContainsSubstring("piece 3 has no text"));
}

TEST_CASE("a vocabulary .bin with any byte changed is read or refused") {
  int read = 0, refused = 0;
  for (std::size_t i = 0; i < example.size(); ++i) {
    for (const int flip : {1, 0x80, 0xff}) {
      std::string altered = example;
      altered[i] = char(altered[i] ^ flip);
      try {
        const auto t = parse(altered);
        CHECK(t.encode("ab") == slow_encoding(t)("ab"));
        ++read;
      } catch (const unroll::error&) {
        ++refused;
      }
    }
  }
  CHECK(read > 0);
  CHECK(refused > 0);
}
