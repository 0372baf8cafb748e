#include "unroll/text/byte_level_tokenizer.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

using ids = std::vector<token>;

const std::vector<std::string> merges{"a t",
                                      "\xC4\xA0 a",
                                      "h e",
                                      "t he",
                                      "n d",
                                      "o g",
                                      "o n",
                                      "\xC4\xA0 the",
                                      "\xC4\xA0 on",
                                      "\xC4\xA0"
                                      "a nd",
                                      "c at",
                                      "d og",
                                      "m at",
                                      "s at",
                                      "\xC4\xA0 cat",
                                      "\xC4\xA0 dog",
                                      "\xC4\xA0 mat",
                                      "\xC4\xA0 sat",
                                      ". \xC4\x8A",
                                      "h at",
                                      "l og",
                                      "\xC4\xA0 hat",
                                      "\xC4\xA0 log"};

/// Two controls, the letters of the bytes in the order of their code points, what the merges make.
std::vector<vocabulary_entry> pieces() {
  std::vector<vocabulary_entry> p{{"<|begin_of_text|>", 0, piece_kind::control},
                                  {"<|end_of_text|>", 0, piece_kind::control}};
  for (char32_t code = 0; code < 0x144; ++code)
    for (unsigned b = 0; b < 256; ++b)
      if (llama::detail::byte_letters[b] == code)
        p.push_back({llama::detail::byte_level_spelling(std::string(1, char(b)))});
  for (const std::string& m : merges) p.push_back({llama::detail::replace_all(m, " ", "")});
  return p;
}

tokenizer make(std::vector<cut_rule> cuts, bool whole = false) {
  return byte_level_tokenizer(
      pieces(), merges, {.unk = -1, .bos = -1, .eos = 1, .cuts = std::move(cuts), .whole_pieces = whole},
      "file");
}

}  // namespace

// The ids are those of tokenizers 0.23.3.

TEST_CASE("byte-level pairs give the ids of tokenizers, and every text comes back") {
  const auto gpt2 = make({cut_rule::gpt2}), llama3 = make({cut_rule::llama3});
  CHECK(gpt2.size() == 281);
  const std::pair<const char*, ids> both[] = {
      {"I'LL  pay 12345 dollars\n\n now", {42,  8,  45, 45, 222, 222, 81, 66, 90,  222, 18,  19, 20, 21, 22,
                                           222, 69, 80, 77, 77,  66,  83, 84, 200, 200, 222, 79, 80, 88}},
      {"the cat</s>", {261, 272, 29, 16, 84, 31}},
      {"the cat<|end_of_text|> the", {261, 272, 1, 265}},
      {"\xC3\xA9\t\xE6\x97\xA5", {129, 104, 199, 164, 247, 100}},
      {"", {}}};
  for (const auto& [text, right] : both) {
    CHECK(gpt2.encode(text) == right);
    CHECK(llama3.encode(text) == right);
  }
  CHECK(gpt2.encode("cat...\n\n the") == ids{268, 15, 15, 15, 200, 200, 265});
  CHECK(llama3.encode("cat...\n\n the") == ids{268, 15, 15, 276, 200, 265});
  std::string all = "the \xFF\xC3 cat";
  for (int b = 0; b < 256; ++b) all += char(b);
  CHECK(llama3.decode(llama3.encode(all)) == all);
  CHECK(gpt2.decode(gpt2.encode(all + all)) == all + all);
}

TEST_CASE("pieces of a byte-level vocabulary are found and shown by their bytes") {
  const auto t = make({cut_rule::gpt2});
  CHECK(t.find(" the") == 265);
  CHECK(t.find("\n") == 200);
  CHECK(t.find("<|end_of_text|>") == 1);
  CHECK(t.piece(265) == " the");
  CHECK(t.piece(129) == "\xC3");
  CHECK(t.decode(ids{0, 265, 1}) == " the");
}

TEST_CASE("a word that is a piece becomes it at once where the vocabulary ignores merges") {
  auto p = pieces();
  p.push_back({"\xC4\xA0xyz"});
  const auto plain =
      byte_level_tokenizer(p, merges, {.unk = -1, .bos = -1, .eos = -1, .cuts = {cut_rule::llama3}}, "file");
  const auto whole = byte_level_tokenizer(
      p, merges, {.unk = -1, .bos = -1, .eos = -1, .cuts = {cut_rule::llama3}, .whole_pieces = true}, "file");
  CHECK(whole.encode("a xyz xyzw") == ids{66, 281, 222, 89, 90, 91, 88});
  CHECK(plain.encode("a xyz") == ids{66, 222, 89, 90, 91});
}

TEST_CASE("a merge of a byte-level vocabulary that does not fit it is refused by its place") {
  const auto refused = [](std::vector<std::string> m, const std::string& why) {
    CHECK_THROWS_WITH(byte_level_tokenizer(pieces(), m, {.unk = -1, .bos = -1, .eos = -1}, "file"),
                      ContainsSubstring("file") && ContainsSubstring(why));
  };
  refused({"a t", "at"}, "merge 1 \"at\", expected two pieces");
  refused({"a t x"}, "merge 0 \"a t x\", expected two pieces");
  refused({"a b"}, "merge 0 of \"a\" and \"b\", but \"ab\" is no piece");
  refused({"at xx"}, "but \"xx\" is no piece");
  refused({" a"}, "but \"\" is no piece");
  refused({"a t", "a t"}, "merge 1 is of a pair that an earlier merge joins");
  auto few = pieces();
  few.resize(100);
  const auto t = byte_level_tokenizer(few, {}, {.unk = -1, .bos = -1, .eos = -1}, "file");
  CHECK_THROWS_WITH(t.encode("a\xFF"), ContainsSubstring("no piece"));
}
