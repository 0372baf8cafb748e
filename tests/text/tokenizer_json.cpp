#include "tests/support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include "tests/support/tokenizer_files.hpp"
#include "unroll/text/tokenizer_bin.hpp"
#include "unroll/text/tokenizer_json.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using nlohmann::json;
using tokenizer_files::bin;
using tokenizer_files::mark;
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

TEST_CASE("tens of thousands of added tokens are read at once") {
  json j = example();
  const int first = 265, count = 60000;
  for (int id = first; id < first + count; ++id)
    j["added_tokens"].push_back({{"id", id}, {"content", std::string("<") + std::to_string(id) + ">"}});
  const auto t = parse(j);
  CHECK(t.size() == first + count);
  CHECK(t.encode("a<265>ab<60264><60265>").size() == 12);  // the last is text
  CHECK(t.encode("<60264><300>") == ids{60264, 300});
}

// The ids below are those of tokenizers 0.23.3.

TEST_CASE("an added token that repeats a piece leaves it what it was: bytes and characters stay known") {
  json j = example();
  for (unsigned b = 0; b < 256; ++b)
    j["added_tokens"].push_back(added(int(3 + b), llama::detail::byte_name(b).c_str()));
  for (const auto& [id, text] : {std::pair(260, "a"), {261, "b"}}) {
    j["added_tokens"].push_back(added(id, text, id == 261));
    j["added_tokens"].back()["normalized"] = true;
  }
  const auto t = parse(j);
  CHECK(t.encode("ab\n") == ids{260, 261, 13});
  CHECK(t.encode("\xC3\xA9") == ids{259, 198, 172});
  CHECK(t.encode("\tab") == ids{259, 12, 263});
  CHECK(t.encode("xa") == ids{259, 123, 260});
  CHECK(t.kind(12) == llama::piece_kind::byte);
  CHECK(t.decode(t.encode("\t\xC3\xA9")) == "\t\xC3\xA9");
}

TEST_CASE("blanks beside a normalized added token come back") {
  json j = example();
  for (const auto& [id, text] : {std::pair(265, "zebra"), {266, "  "}, {267, "<x>"}}) {
    j["added_tokens"].push_back(added(id, text, id == 267));
    j["added_tokens"].back()["normalized"] = true;
  }
  const auto t = parse(j);
  const std::pair<const char*, ids> golden[] = {{"a zebra ab", {262, 265, 264}},
                                                {"zebra", {265}},
                                                {"a    b", {262, 266, 259, 261}},
                                                {" zebra", {259, 265}},
                                                {"azebra", {262, 125, 104, 261, 117, 260}}};
  for (const auto& [text, right] : golden) {
    CHECK(t.encode(text) == right);
    CHECK(t.decode(right) == text);
  }
  CHECK(t.encode("a <x> b") == ids{262, 267, 259, 261});
  CHECK(t.decode(ids{262, 267, 259, 261}) == "a b");  // a mark, with its blank, is nothing
  j["normalizer"] = j["normalizer"]["normalizers"][1];
  j["added_tokens"][3]["content"] = "zebra a";
  const auto plain = parse(j);  // no blank in front
  CHECK(plain.encode("a zebra ab") == ids{260, 259, 265, 261});
  CHECK(plain.decode(ids{260, 259, 265, 261}) == "a zebra ab");
}

TEST_CASE("added tokens take the white space beside them, where they say so") {
  json j = example();
  int id = 265;
  for (const char* text : {"<l>", "<r>", "<n>", "  "}) j["added_tokens"].push_back(added(id++, text, false));
  j["added_tokens"][3]["lstrip"] = j["added_tokens"][4]["rstrip"] = true;
  for (const char* option : {"lstrip", "rstrip", "normalized"}) j["added_tokens"][5][option] = true;
  const auto t = parse(j);
  CHECK(t.encode("a \t\n<l> b") == ids{262, 265, 259, 259, 261});
  CHECK(t.encode("a <r> \xC2\xA0\xE3\x80\x80"
                 "b") == ids{262, 259, 266, 259, 261});
  CHECK(t.encode("a  <n>  b") == ids{262, 268, 267, 268, 259, 261});
  CHECK(t.encode("a<r>   b") == ids{262, 266, 268, 259, 259, 261});  // a blank can be eaten and found
  CHECK(t.encode("a <l><r> <l>b") == ids{262, 265, 266, 265, 259, 261});
  CHECK(t.decode(t.encode("a \n<l> b")) == "a<l> b");
  j["added_tokens"][3] = added(265, "zebra", false);
  j["added_tokens"][4] = added(266, "\xE2\x96\x81zebra", false);
  j["added_tokens"][3]["normalized"] = j["added_tokens"][4]["normalized"] = true;
  j["normalizer"] = j["normalizer"]["normalizers"][1];
  j["added_tokens"][3]["content"] = " zebra";
  CHECK_THROWS_WITH(parse(j), ContainsSubstring("two added texts that are looked for as"));
}

TEST_CASE("a tokenizer_config.json names begin and end, and may not contradict the tokenizer.json") {
  const auto read = [](const json& config) {
    return llama::parse_tokenizer_json(example().dump(), "file",
                                       llama::parse_tokenizer_config(config.dump(), "config"));
  };
  const auto t = read({{"bos_token", {{"content", "</s>"}, {"lstrip", false}}},
                       {"eos_token", "ab"},
                       {"add_prefix_space", true},
                       {"chat_template", "{{ x }}"},
                       {"pad_token", nullptr},
                       {"bos_token_id", 2},
                       {"eos_token_id", 263},
                       {"pad_token_id", 0},
                       {"unk_token_id", 0},
                       {"trust_remote_code", false},
                       {"added_tokens_decoder", {{"1", {{"content", "<s>"}}}}}});
  CHECK(t.bos() == 2);
  CHECK(t.eos() == 263);
  CHECK(read(json::object()).bos() == 1);
  const auto config_refused = [&](const json& config, const std::string& why) {
    CHECK_THROWS_WITH(read(config), ContainsSubstring("config") && ContainsSubstring(why));
  };
  config_refused({{"bos_token", "<begin>"}}, "bos_token \"<begin>\", which is no piece of file");
  config_refused({{"eos_token", 2}}, "\"eos_token\" is 2");
  config_refused({{"add_prefix_space", false}}, "add_prefix_space false, unlike file");
  config_refused({{"split_special_tokens", true}}, "\"split_special_tokens\" is true");
  config_refused({{"added_tokens_decoder", {{"7", {{"content", "<s>"}}}}}}, "\"<s>\" with the id 7");
  config_refused({{"added_tokens_decoder", {{"x", {{"content", "<s>"}}}}}}, "\"added_tokens_decoder\"");
  config_refused({{"added_tokens_decoder", {{"1", 3}}}}, "\"added_tokens_decoder\"");
  config_refused({{"lower_case", true}}, "\"lower_case\" is true");
}

TEST_CASE("the tokenizer.json of the bytes is read as the vocabulary it was written from") {
  const auto t = llama::parse_tokenizer_json(
      llama::byte_tokenizer_json(), "file",
      llama::parse_tokenizer_config(llama::byte_tokenizer_config_json(), "config"));
  CHECK(t.size() == 258);
  CHECK(t.bos() == 256);
  CHECK(t.eos() == 257);
  CHECK(t.unk() == -1);
  CHECK(t.encode("H\xC3\xA9 <s>") == ids{72, 195, 169, 32, 256});
  std::string all;
  for (int b = 0; b < 256; ++b) all += char(b);
  CHECK(t.encode(all) == llama::byte_tokenizer().encode(all));
  CHECK(t.decode(t.encode(all)) == all);
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
  refused("/normalizer", {{"type", "Lowercase"}}, "normalizer \"Lowercase\"");
  refused("/normalizer/normalizers/0/prepend", "_", "normalizer \"Prepend\"");
  refused("/normalizer/normalizers/1/content", "_", "normalizer \"Replace\"");
  refused("/normalizer/normalizers/1/pattern", {{"Regex", " "}}, "normalizer \"Replace\"");
  refused("/normalizer", {{"type", "Sequence"}}, "without a list");
  refused("/decoder", {{"type", "ByteLevel"}}, "decoder \"ByteLevel\"");
  refused("/decoder", {{"type", "Strip"}, {"content", " "}, {"start", 2}, {"stop", 0}}, "decoder \"Strip\"");
  refused("/truncation", {{"max_length", 8}}, "\"truncation\" is {\"max_length\":8}, expected null");
  refused("/truncation", {{"max_length", 8}}, "no_truncation() and save()");
  refused("/padding", {{"length", 8}}, "no_padding() and save()");
  refused("/normalizer", {{"type", "Prepend"}, {"prepend", mark}}, "does not replace blanks");
  refused("/model/continuing_subword_prefix", "##", "continuing_subword_prefix \"##\"");
  refused("/model/dropout", 0.1, "dropout 0.1");
  refused("/model/ignore_merges", true, "ignores merges");
  refused("/added_tokens/1/single_word", 1,
          "added token \"<s>\": \"single_word\" is 1, expected true or false");
  CHECK_THROWS_WITH(llama::parse_tokenizer_json("{\"weight_map\": {}}", "file"),
                    ContainsSubstring("no \"model\""));
  CHECK_THROWS_WITH(llama::parse_tokenizer_json("[1]", "file"), ContainsSubstring("no JSON object"));
  CHECK_THROWS_WITH(llama::parse_tokenizer_json("{\"model\"", "file"), ContainsSubstring("file"));
}

TEST_CASE("a key of a tokenizer.json that nobody knows is refused by its name") {
  for (const char* at : {"/shuffle", "/model/shuffle", "/added_tokens/1/shuffle", "/normalizer/shuffle",
                         "/normalizer/normalizers/0/shuffle"})
    refused(at, true, "\"shuffle\" is true");
  refused("/decoder", {{"type", "Sequence"}, {"decoders", json::array()}, {"shuffle", true}},
          "file, decoder: \"shuffle\" is true");
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
  refused("/model/fuse_unk", 3, "\"fuse_unk\" is 3, expected true or false");
  refused("/added_tokens/1/id", 7, "gives the added token \"<s>\" the id 7, its vocabulary the id 1");
  refused("/added_tokens/1/content", 7, "added token without content");
  refused("/added_tokens/1", 7, "added token without content");
  refused("/added_tokens", 7, "added_tokens that are no list");
  json twice = example();
  twice["added_tokens"].push_back(added(265, "x"));
  twice["added_tokens"].push_back(added(265, "y"));
  CHECK_THROWS_WITH(parse(twice), ContainsSubstring("both the id 265"));
  twice["added_tokens"].back() = added(265, "x");
  CHECK_THROWS_WITH(parse(twice), ContainsSubstring("added token \"x\" twice"));
  twice["added_tokens"].erase(4);
  twice["added_tokens"][3]["content"] = "ba";  // a merge makes pieces of the model only
  twice["model"]["merges"].push_back("b a");
  CHECK_THROWS_WITH(parse(twice), ContainsSubstring("\"ba\" is no piece"));
}

#endif
