#include "tests/support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include "tests/support/folder.hpp"
#include "tests/support/tokenizer_files.hpp"
#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using nlohmann::json;
using tokenizer_files::bin;
using tokenizer_files::character_table;
using tokenizer_files::mark;
using tokenizer_files::model;
using tokenizer_files::proto_text;
using tokenizer_files::vocabulary;

namespace {

json example() {
  return json::parse(tokenizer_files::json(true, {mark, "a", "b", mark + "a", "ab", mark + "ab"}));
}

}  // namespace

TEST_CASE("a damaged SentencePiece model is refused before its library sees it") {
  const auto e = vocabulary(true, {mark, "a", "b"});
  const std::string good = model(e);
  const auto parse_model = [](const std::string& s) { return llama::parse_tokenizer_model(s, "file"); };
  CHECK_THROWS_WITH(parse_model(good.substr(0, 20)),
                    ContainsSubstring("no SentencePiece model: the file needs"));
  CHECK_THROWS_WITH(parse_model(proto_text(1, proto_text(1, "a").substr(0, 2))),
                    ContainsSubstring("piece 0 needs 1 bytes, 0 are left"));
  CHECK_THROWS_WITH(parse_model(proto_text(1, proto_text(2, "a"))),
                    ContainsSubstring("piece 0 has a score of 1 bytes"));
  CHECK_THROWS_WITH(parse_model(std::string(12, char(0xff))), ContainsSubstring("more than ten bytes"));
  CHECK_THROWS_WITH(parse_model("\x0b"), ContainsSubstring("wire type 3"));
  // the library takes the low 32 bits of a tag: of this one, field 3
  CHECK_THROWS_WITH(parse_model("\x9a\x80\x80\x80" + std::string(1, '\x10') + std::string(1, '\0')),
                    ContainsSubstring("tag of more than 32 bits"));
  CHECK_THROWS_WITH(parse_model(model(e, {.table = "abcd"})), ContainsSubstring("table of 4 bytes"));
  const auto lying = [&](const std::string& table, const std::string& why) {
    CHECK_THROWS_WITH(parse_model(model(e, {.table = table})), ContainsSubstring(why));
  };
  const std::string cut = character_table();
  lying(cut.substr(0, 4 + 4 * 512 - 1), "whose trie has 2048 bytes");
  lying(cut.substr(0, 4 + 4 * 512), "whose last text has no end");
  lying(cut.substr(0, cut.size() - 1), "whose last text has no end");
  lying(character_table(2, "x"), "leads to the text at byte 2 of 2");
  lying(character_table(0, std::string(65, 'x')), "leads to a text of more than 64 bytes");
  lying(character_table(0, "x", {{7, 512u << 10}}), "whose unit 7 leads to unit 767 of 512");
  lying(character_table(0, "x", {{0, 1u << 31 | 512u << 10}}), "whose unit 0 leads to unit 2097919 of 512");
  // 'A' leads back to where it is read, so that a library with room for 32 rules finds one of every length
  lying(character_table(0, "x", {{321, 65u << 10 | 1u << 8 | 'A'}, {256, 1u << 31}}),
        "whose rules read more than 32 bytes");
  std::string shorter = "\xD0\x07" + cut.substr(2, 2 + 2000) + cut.substr(4 + 2048);  // 500 units
  lying(shorter, "whose unit 0 leads to unit 511 of 500");
  CHECK_THROWS_WITH(parse_model(model(e, {.type = 1})), ContainsSubstring("another type than byte pairs"));
#if UNROLL_HAS_SENTENCEPIECE
  auto twice = e, nan = e;
  twice.push_back({"a"});
  nan.back().score = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(parse_model(model(twice)),
                    ContainsSubstring("piece 262 and piece 260 have the same text"));
  CHECK_THROWS_WITH(parse_model(model(nan)), ContainsSubstring("piece 261 has score"));
  CHECK_THROWS_WITH(parse_model(""), ContainsSubstring("file"));
  CHECK_THROWS_WITH(parse_model(model(vocabulary(false, {"a"}))), ContainsSubstring("sentencepiece"));
#else
  CHECK_THROWS_WITH(parse_model(good),
                    ContainsSubstring("libsentencepiece-dev") && ContainsSubstring("tokenizer.bin"));
#endif
}

#if UNROLL_HAS_SENTENCEPIECE
TEST_CASE(
    "a SentencePiece model gives the ids of the .bin with the same pieces, but for blanks and unknowns") {
  const std::vector<std::string> marked{mark, "a", "b", mark + "a", "ab", mark + "ab"};
  const std::vector<std::string> plain{" ", "a", "b", " a", "ab", " ab"};
  const auto b = llama::parse_tokenizer_bin(bin(vocabulary(true, plain)), "bin");
  const auto t = llama::parse_tokenizer_model(model(vocabulary(true, marked)), "file");
  CHECK(t.size() == b.size());
  CHECK(t.bos() == 1);
  for (const char* text : {"ab", " ab", "b a\n", "\xC3\xA9", "", "  ", "abaabba"}) {
    CHECK(t.encode(text, true) == b.encode(text, true));
    CHECK(t.decode(t.encode(text, true)) == text);
  }
  CHECK(t.decode(t.encode("a\xff")) == "a\xEF\xBF\xBD");  // not UTF-8
  const auto dropping =
      llama::parse_tokenizer_model(model(vocabulary(true, marked), {.drop_blanks = true}), "file");
  CHECK(dropping.encode("  a  b ") == b.encode("a b"));
  const auto changing =
      llama::parse_tokenizer_model(model(vocabulary(true, marked), {.table = character_table()}), "file");
  CHECK(changing.encode("Ab AbA") == t.encode("ab aba"));
  CHECK(changing.decode(changing.encode("Ab")) == "ab");
  const auto narrow =
      llama::parse_tokenizer_model(model(vocabulary(false, marked), {.bytes = false}), "file");
  const auto narrow_bin = llama::parse_tokenizer_bin(bin(vocabulary(false, plain)), "bin");
  CHECK(narrow.encode("axyb").size() == 3);
  CHECK(narrow_bin.encode("axyb").size() == 4);
}
#endif

TEST_CASE("a vocabulary is found by its name, by its first bytes or in a folder") {
  const folder f;
  const auto e = vocabulary(true, {" ", "a"});
  CHECK_THROWS_WITH(llama::load_tokenizer(f.path), ContainsSubstring("has no tokenizer.json"));
  CHECK_THROWS_WITH(llama::find_tokenizer(f.path / "none"), ContainsSubstring("does not exist"));
  write_file(f.path / "tok1.model", model(e));
  CHECK(llama::find_tokenizer(f.path) == f.path / "tok1.model");
  write_file(f.path / "tok1.bin", bin(e));
  CHECK(llama::find_tokenizer(f.path) == f.path / "tok1.bin");
  write_file(f.path / "tok2.bin", bin(e));
  CHECK_THROWS_WITH(llama::load_tokenizer(f.path), ContainsSubstring("several tok*.bin"));
  write_file(f.path / "tokenizer.bin", bin(e));
  CHECK(llama::load_tokenizer(f.path).size() == 261);
  CHECK(llama::load_tokenizer(f.path / "tokenizer.bin").size() == 261);
  write_file(f.path / "tokenizer.json", example().dump());
  CHECK(llama::load_tokenizer(f.path).size() == 265);
  CHECK(llama::find_tokenizer(f.path / "tok1.bin") == f.path / "tokenizer.json");  // beside a file
  write_file(f.path / "tokenizer.model", model(e));
  CHECK(llama::find_tokenizer(f.path) == f.path / "tokenizer.json");
  write_file(f.path / "tokenizer_config.json", R"({"bos_token": "</s>"})");
  CHECK(llama::load_tokenizer(f.path).bos() == 2);
  write_file(f.path / "tokenizer_config.json", R"({"bos_token": "begin"})");
  CHECK_THROWS_WITH(llama::load_tokenizer(f.path),
                    ContainsSubstring("tokenizer_config.json") && ContainsSubstring("tokenizer.json\""));
  write_file(f.path / "a", bin(e));
  CHECK(llama::load_tokenizer(f.path / "a").size() == 261);
  write_file(f.path / "b.txt", " " + example().dump());
  CHECK(llama::load_tokenizer(f.path / "b.txt").size() == 265);
  write_file(f.path / "c", model(e));
#if UNROLL_HAS_SENTENCEPIECE
  CHECK(llama::load_tokenizer(f.path / "c").size() == 261);
#else
  CHECK_THROWS_WITH(llama::load_tokenizer(f.path / "c"), ContainsSubstring("libsentencepiece"));
#endif
  write_file(f.path / "d.json", bin(e));
  CHECK_THROWS_WITH(llama::load_tokenizer(f.path / "d.json"), ContainsSubstring("d.json"));
  CHECK_THROWS_WITH(llama::load_tokenizer(f.path / "x.bin"), ContainsSubstring("does not exist"));
}

TEST_CASE("a vocabulary that cannot be reached is refused by its name") {
  const folder f;
  const auto find = [](const auto& path) { return llama::find_tokenizer(path); };
  const auto load = [](const auto& path) { return llama::load_tokenizer(path); };
  for (const auto& path : {f.path / std::string(300, 'x'), f.path / std::string(300, 'x') / "tok.bin"}) {
    CHECK_THROWS_AS(find(path), unroll::error);
    CHECK_THROWS_AS(load(path), unroll::error);
  }
  const auto loop = [&](const char* name) { std::filesystem::create_symlink(name, f.path / name); };
  write_file(f.path / "tokenizer.json", example().dump());
  loop("tokenizer_config.json");
  CHECK_THROWS_WITH(load(f.path), ContainsSubstring("tokenizer_config.json"));
  std::filesystem::remove(f.path / "tokenizer.json");
  loop("tokenizer.json");
  write_file(f.path / "tokenizer.bin", bin(vocabulary(true, {" ", "a"})));  // would be another vocabulary
  CHECK_THROWS_AS(load(f.path), unroll::error);
  CHECK_THROWS_WITH(load(f.path), ContainsSubstring("tokenizer.json"));
}

#endif
