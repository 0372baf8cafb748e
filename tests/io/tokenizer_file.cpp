#include "tests/support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include "tests/support/folder.hpp"
#include "tests/support/slow_encoding.hpp"
#include "tests/support/tokenizer_files.hpp"
#include "unroll/io/tokenizer_file.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using nlohmann::json;
using tokenizer_files::bin;
using tokenizer_files::mark;
using tokenizer_files::model;
using tokenizer_files::proto_text;
using tokenizer_files::vocabulary;
using ids = std::vector<llama::token>;

namespace {

json added(int id, const char* text, bool special = true) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

json example(bool bytes = true) {
  return json::parse(tokenizer_files::json(bytes, {mark, "a", "b", mark + "a", "ab", mark + "ab"}));
}

llama::tokenizer parse(const json& j) { return llama::parse_tokenizer_json(j.dump(), "file"); }

/// The example with the value at a JSON pointer replaced is refused for this reason.
void refused(const char* at, const json& value, const std::string& why) {
  json j = example();
  j[json::json_pointer(at)] = value;
  CHECK_THROWS_WITH(parse(j), ContainsSubstring("file") && ContainsSubstring(why));
}

}  // namespace

TEST_CASE("a tokenizer.json gives the ids of the .bin with the same pieces") {
  const auto t = parse(example());
  const auto b = llama::parse_tokenizer_bin(bin(vocabulary(true, {" ", "a", "b", " a", "ab", " ab"})), "bin");
  CHECK(t.size() == b.size());
  CHECK(t.bos() == 1);
  CHECK(t.eos() == 2);
  CHECK(t.unk() == 0);
  for (const char* text : {"ab", " ab", "b a\n", "\xC3\xA9", "", "  ", "abaabba", "\xff"}) {
    CHECK(t.encode(text) == b.encode(text));
    CHECK(t.decode(t.encode(text, true)) == text);
  }
  json pairs = example();
  for (auto& m : pairs["model"]["merges"]) {
    const auto text = m.get<std::string>();
    m = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  CHECK(parse(pairs).encode("abaabba ab") == t.encode("abaabba ab"));
}

TEST_CASE("the texts of added tokens are their ids, and what is between them begins anew") {
  json j = example();
  j["added_tokens"].push_back(added(265, "<mem>", false));
  const auto t = parse(j);
  CHECK(t.size() == 266);
  CHECK(t.encode("a</s>ab<mem>") == ids{t.find(" a"), 2, t.find(" ab"), 265});
  CHECK(t.decode(ids{t.find(" a"), 2, t.find(" a"), 265}) == "aa<mem>");
}

TEST_CASE("without byte fallback neighbouring unknown characters are one unk") {
  json j = example(false);
  CHECK(parse(j).encode("axyb") == ids{parse(j).find(" a"), 0, parse(j).find("b")});
  j["model"]["fuse_unk"] = false;
  CHECK(parse(j).encode("axyb").size() == 4);
  j["model"]["unk_token"] = nullptr;
  CHECK_THROWS_WITH(parse(j).encode("x"), ContainsSubstring("neither bytes nor unk"));
}

TEST_CASE("a tokenizer.json of another kind is refused by what differs") {
  refused("/model/type", "WordPiece", "model of type \"WordPiece\", expected \"BPE\"");
  refused("/pre_tokenizer", {{"type", "ByteLevel"}}, "pre_tokenizer of type \"ByteLevel\"");
  refused("/normalizer", {{"type", "NFKC"}}, "normalizer \"NFKC\"");
  refused("/normalizer/normalizers/0/prepend", "_", "normalizer \"Prepend\"");
  refused("/normalizer", {{"type", "Sequence"}}, "without a list");
  refused("/normalizer", {{"type", "Prepend"}, {"prepend", mark}}, "does not replace blanks");
  refused("/model/continuing_subword_prefix", "##", "continuing_subword_prefix \"##\"");
  refused("/model/dropout", 0.1, "dropout 0.1");
  refused("/model/ignore_merges", true, "ignores merges");
  refused("/added_tokens/1/lstrip", true, "added token \"<s>\" with lstrip");
  CHECK_THROWS_WITH(llama::parse_tokenizer_json("{\"weight_map\": {}}", "file"),
                    ContainsSubstring("no \"model\""));
  CHECK_THROWS_WITH(llama::parse_tokenizer_json("[1]", "file"), ContainsSubstring("no JSON object"));
  CHECK_THROWS_WITH(llama::parse_tokenizer_json("{\"model\"", "file"), ContainsSubstring("file"));
}

TEST_CASE("a tokenizer.json that contradicts itself is refused by the place and both values") {
  refused("/model/merges/0", "a c", "merge 0 of \"a\" and \"c\", but \"c\" is no piece");
  refused("/model/merges/0", "b a", "but \"ba\" is no piece");
  refused("/model/merges/1", "ab", "merge 1 \"ab\", expected two pieces");
  refused("/model/merges/1", {"a", 3}, "merge 1 a array, expected two pieces");
  refused("/model/merges/1", example()["model"]["merges"][0], "merge 1 is of a pair that an earlier merge");
  refused("/model/merges", 3, "no list of merges");
  refused("/model/vocab/a", 5, "both the id 5");
  refused("/model/vocab/a", 265, "gives \"a\" the id 265, expected one of 0 to 264");
  refused("/model/vocab/a", -1, "gives \"a\" the id -1");
  refused("/model/vocab/a", "x", "gives \"a\" the id \"x\"");
  refused("/model/vocab/a", 1e300, "gives \"a\" the id 1e+300");
  refused("/model/vocab", 3, "no \"vocab\"");
  refused("/model/unk_token", "<none>", "unk_token \"<none>\", which is no piece");
  refused("/model/fuse_unk", 3, "fuse_unk 3");
  refused("/added_tokens/1/id", 7, "gives the added token \"<s>\" the id 7, its vocabulary the id 1");
  refused("/added_tokens/1/content", 7, "added token without content");
  refused("/added_tokens/1", 7, "added token without content");
  refused("/added_tokens", 7, "added_tokens that are no list");
  json twice = example();
  twice["added_tokens"].push_back(added(265, "x"));
  twice["added_tokens"].push_back(added(265, "y"));
  CHECK_THROWS_WITH(parse(twice), ContainsSubstring("both the id 265"));
}

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
  CHECK_THROWS_WITH(parse_model(model(e, {.table = "abcd"})), ContainsSubstring("table of 4 bytes"));
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
  write_file(f.path / "tokenizer.bin", bin(e));
  CHECK(llama::load_tokenizer(f.path).size() == 261);
  CHECK(llama::load_tokenizer(f.path / "tokenizer.bin").size() == 261);
  write_file(f.path / "tokenizer.json", example().dump());
  CHECK(llama::load_tokenizer(f.path).size() == 265);
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

#endif
