#include "tests/support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include "unroll/text/tokenizer_json.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using nlohmann::json;
using ids = std::vector<llama::token>;

namespace {

const std::string mark(llama::blank_mark);

json added(int id, const std::string& text) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

/// A tokenizer.json with these pieces and, as pairs, every join of two of them that is a third, in order.
json file(const std::vector<std::string>& pieces) {
  json vocabulary = json::object(), merges = json::array();
  for (const auto& p : pieces) vocabulary[p] = int(vocabulary.size());
  for (const auto& p : pieces)
    for (std::size_t n = 1; n < p.size(); ++n)
      if (vocabulary.contains(p.substr(0, n)) && vocabulary.contains(p.substr(n)))
        merges.push_back({p.substr(0, n), p.substr(n)});
  return {{"version", "1.0"},
          {"added_tokens", json::array({added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")})},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model", {{"type", "BPE"}, {"unk_token", "<unk>"}, {"vocab", vocabulary}, {"merges", merges}}}};
}

/// Of the transformers 5 kind.
json metaspace(const char* scheme, bool split) {
  json j = file({"<unk>", "<s>", "</s>", mark, "a", "b", "c", "\n", "ab", mark + "a", mark + "ab", "c" + mark,
                 mark + mark, "b" + mark + "a"});
  j["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", mark}, {"prepend_scheme", scheme}, {"split", split}};
  return j;
}

/// Of the kind of GPT-2: the letters of all bytes.
json byte_level(std::vector<std::string> more = {}) {
  std::vector<std::string> pieces{"<unk>", "<s>", "</s>"};
  for (int b = 0; b < 256; ++b)
    pieces.push_back(llama::detail::byte_level_spelling(std::string(1, char(static_cast<unsigned char>(b)))));
  const std::string blank = "\xC4\xA0";
  for (const std::string& p :
       {std::string("th"), std::string("the"), blank + "the", std::string("12"), blank + "1"})
    pieces.push_back(p);
  pieces.insert(pieces.end(), more.begin(), more.end());
  json j = file(pieces);
  j["model"]["unk_token"] = nullptr;
  j["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  return j;
}

const char* llama3_expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json split(const char* expression) {
  return {
      {"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
}
json bytes_only() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
}
json sequence(const char* list, const json& parts) { return {{"type", "Sequence"}, {list, parts}}; }

llama::tokenizer parse(const json& j) { return llama::parse_tokenizer_json(j.dump(), "file"); }

void gives(const json& file, const std::vector<std::pair<std::string, ids>>& golden) {
  const auto t = parse(file);
  for (const auto& [text, right] : golden) CHECK(t.encode(text) == right);
}

void refused(const json& file, const std::string& why) {
  CHECK_THROWS_WITH(parse(file), ContainsSubstring("file") && ContainsSubstring(why));
}

}  // namespace

// The ids are those of tokenizers 0.23.3.

TEST_CASE("a Metaspace puts its mark in front of every stretch, of the first one, or of none") {
  for (const bool split : {false, true}) {
    gives(metaspace("always", split), {{"ab c", {10, 3, 6}},
                                       {" ab", {10}},
                                       {"a</s>ab", {9, 2, 10}},
                                       {"</s>ab", {2, 10}},
                                       {"</s> ab", {2, 10}},
                                       {"  ab", {3, 10}},
                                       {"ab" + mark + "ab", {10, 10}},
                                       {"", {}}});
    gives(metaspace("first", split), {{"ab c", {10, 3, 6}},
                                      {" ab", {10}},
                                      {"a</s>ab", {9, 2, 8}},
                                      {"</s>ab", {2, 8}},
                                      {"</s> ab", {2, 10}}});
    gives(metaspace("never", split),
          {{"ab c", {8, 3, 6}}, {" ab", {10}}, {"a</s>ab", {4, 2, 8}}, {mark + "a", {9}}});
  }
  gives(metaspace("always", false), {{"c b", {3, 11, 5}}, {"a c b a", {9, 3, 11, 13}}});
  gives(metaspace("always", true), {{"c b", {3, 6, 3, 5}}, {"a c b a", {9, 3, 6, 3, 5, 9}}});
}

TEST_CASE("a Metaspace comes behind added tokens that are normalized") {
  json j = metaspace("first", false);
  for (int i = 0; i < 2; ++i) {
    j["added_tokens"].push_back(added(14 + i, i == 0 ? "c b" : "<y>"));
    j["added_tokens"].back()["special"] = false;
    j["added_tokens"].back()["normalized"] = true;
  }
  gives(j, {{"c b", {14}}, {"a<y>a c b a", {9, 15, 4, 3, 14, 9}}, {"<y>a", {15, 4}}});
  const auto t = parse(j);
  for (const char* text : {"c b", "a<y>a c b a", "<y>a", "<y> a", "ab c"})
    CHECK(t.decode(t.encode(text)) == text);
  CHECK(t.decode(ids{1, 10, 2, 10}) == "ab ab");
  CHECK(parse(metaspace("always", true)).decode(ids{1, 10, 2, 10}) == "abab");
  CHECK(t.ends_stretch(2) == false);
}

TEST_CASE("the byte-level kinds of tokenizer.json give the ids of tokenizers") {
  json j = byte_level();
  gives(j, {{"the the 12", {260, 261, 35, 262}},
            {"the</s> the", {260, 2, 261}},
            {"1212 \xD9\xA1", {262, 262, 35, 220, 164}},
            {"\xC4\xA0the", {199, 163, 260}}});
  j["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}};
  gives(j, {{"the the 12", {261, 261, 35, 262}},
            {"the</s> the", {261, 2, 261}},
            {"wxyz", {35, 122, 123, 124, 125}},
            {" the", {261}}});
  CHECK(parse(j).decode(ids{261, 261}) == "the the");
  j["pre_tokenizer"] = sequence("pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}},
                                                  {{"type", "ByteLevel"}, {"add_prefix_space", false}}});
  gives(j, {{"the the 12", {260, 261, 35, 52, 53}}, {"1212 \xD9\xA1", {52, 53, 52, 53, 35, 220, 164}}});
  json l = byte_level({"wxyz"});
  l["pre_tokenizer"] = sequence("pretokenizers", {split(llama3_expression), bytes_only()});
  l["model"]["ignore_merges"] = true;
  l["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  gives(l, {{"the the 12", {260, 261, 35, 262}},
            {"wxyz wxyz", {264, 35, 122, 123, 124, 125}},
            {"1212 \xD9\xA1", {262, 52, 53, 35, 220, 164}}});
  CHECK(parse(l).decode(parse(l).encode("wxyz\xFF the</s>")) == "wxyz\xFF the");
}

#if UNROLL_HAS_ICU
TEST_CASE(
    "normal forms are those of Unicode 9.0, of what is between added tokens and of those that ask for it") {
  const auto spelled = [](const std::string& bytes) { return llama::detail::byte_level_spelling(bytes); };
  const std::string e_acute = "\xC3\xA9", ga = "\xEA\xB0\x80";
  json j = byte_level({spelled(e_acute), spelled(ga.substr(0, 2)), spelled(ga)});
  j["added_tokens"].push_back(added(267, "<" + e_acute + ">"));
  j["added_tokens"].back()["normalized"] = true;
  const std::vector<std::string> texts{"e\u0301 \u00e9",     "\ufb01\u32ff",      "\u1e9b\u0323",
                                       "\uac00\u1100\u1161", "a\u0301</s>\u0301", "<e\u0301>"};
  const std::vector<std::pair<const char*, std::vector<ids>>> forms{
      {"NFC",
       {{264, 35, 264},
        {242, 175, 132, 230, 142, 194},
        {228, 189, 158, 207, 166},
        {266, 266},
        {198, 164, 2, 207, 132},
        {267}}},
      {"NFD",
       {{104, 207, 132, 35, 104, 207, 132},
        {242, 175, 132, 230, 142, 194},
        {200, 194, 207, 166, 207, 138},
        {228, 135, 131, 228, 136, 164, 228, 135, 131, 228, 136, 164},
        {100, 207, 132, 2, 207, 132},
        {267}}},
      {"NFKC",
       {{264, 35, 264},
        {105, 108, 230, 142, 194},
        {228, 188, 172},
        {266, 266},
        {198, 164, 2, 207, 132},
        {267}}},
      {"NFKD",
       {{104, 207, 132, 35, 104, 207, 132},
        {105, 108, 230, 142, 194},
        {118, 207, 166, 207, 138},
        {228, 135, 131, 228, 136, 164, 228, 135, 131, 228, 136, 164},
        {100, 207, 132, 2, 207, 132},
        {267}}}};
  for (const auto& [form, right] : forms) {
    INFO(form);
    j["normalizer"] = {{"type", form}};
    const auto t = parse(j);
    for (std::size_t i = 0; i < texts.size(); ++i) CHECK(t.encode(texts[i]) == right[i]);
    CHECK(t.decode(t.encode("\xFF\xCCx")) == "\xFF\xCCx");
  }
}
#else
TEST_CASE("normal forms are refused where there is no ICU") {
  json j = byte_level();
  j["normalizer"] = {{"type", "NFC"}};
  refused(j, "needs a normal form of Unicode, and so ICU");
}
#endif

TEST_CASE("Nmt drops controls and makes blanks of white space and of marks without width") {
  json j = metaspace("first", true);
  j["normalizer"] = {{"type", "Nmt"}};
  gives(j, {{"a\tb\u200bc", {9, 3, 5, 3, 6}},
            {"\uff41\u3000b\u0001", {3, 0, 0, 5}},
            {"\u0007", {}},
            {"a</s>b", {9, 2, 5}},
            {"a</s>\u0007</s>\nb\u2581", {9, 2, 2, 3, 5, 3}},
            {"\u2460a", {3, 0, 4}},
            {"\ufefff\ufffd", {3, 0, 3}}});
#if UNROLL_HAS_ICU
  j["pre_tokenizer"] = nullptr;
  const json first = {{"type", "Nmt"}}, second = {{"type", "NFKC"}};
  const json third = {{"type", "Prepend"}, {"prepend", mark}};
  const json fourth = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", mark}};
  j["normalizer"] = sequence("normalizers", {first, second, third, fourth});
  gives(j, {{"a\tb\u200bc", {9, 3, 5, 3, 6}},
            {"\uff41\u3000b\u0001", {9, 3, 5}},
            {"\u0007", {}},
            {"a</s>\u0007</s>\nb\u2581", {9, 2, 2, 12, 5, 3}},
            {"\u2460a", {3, 0, 4}},
            {"\ufefff\ufffd", {12, 0, 3}}});
  j["normalizer"] = sequence("normalizers", {third, fourth, second});
  refused(j, "the normalizer \"NFKC\" behind one that writes blanks");
#endif
  for (const char* type : {"Precompiled", "Lowercase", "StripAccents", "BertNormalizer"}) {
    j["normalizer"] = {{"type", type}};
    refused(j,
            std::string("a normalizer \"") + type +
                "\" that is not of the kinds that are read (NFC, NFD, NFKC, NFKD and Nmt, and behind them");
  }
}

TEST_CASE("an added token that is a single word is found where no character of a word is beside it") {
  json j = byte_level();
  for (const char* text : {"cat", "\xC3\xA9!"}) {
    j["added_tokens"].push_back(added(int(264 + j["added_tokens"].size() - 3), text));
    j["added_tokens"].back()["single_word"] = true;
  }
  j["added_tokens"][3]["lstrip"] = true;
  gives(j, {{"cat", {264}},
            {"a cat, cat", {100, 264, 47, 264}},
            {"cats cat_", {102, 100, 119, 118, 35, 102, 100, 119, 98}},
            {"xcat \xC3\xA9"
             "cat \xE2\xB1\xAD"
             "cat",
             {123, 102, 100, 119, 35, 198, 172, 102, 100, 119, 35, 229, 180, 176, 102, 100, 119}},
            {"\xC3\xA9!cat", {198, 172, 36, 264}},
            {"x\xC3\xA9! \xC3\xA9!x \xC3\xA9!", {123, 198, 172, 36, 35, 198, 172, 36, 123, 35, 265}}});
}

TEST_CASE("the begin of a text is what the post_processor puts in front") {
  json j = byte_level();
  CHECK(parse(j).bos() == -1);
  const json bytes = {{"type", "ByteLevel"}, {"trim_offsets", false}}, text = {{"Sequence", {{"id", "A"}}}};
  j["post_processor"] = bytes;
  CHECK(parse(j).bos() == -1);
  json put = {{"type", "TemplateProcessing"},
              {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, text}},
              {"pair", json::array()},
              {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}};
  j["post_processor"] = put;
  CHECK(parse(j).encode("the", true) == ids{1, 260});
  j["post_processor"] = sequence("processors", {bytes, put});
  CHECK(parse(j).bos() == 1);
  put["special_tokens"]["<s>"]["ids"] = {2};
  j["post_processor"] = put;
  refused(j, "puts \"<s>\" of id 2 in front of a text, the id of its vocabulary is 1");
  put["special_tokens"]["<s>"]["ids"] = {1, 1};
  j["post_processor"] = put;
  refused(j, "puts \"<s>\" in front of a text, expected one token of one id");
  put["single"] = json::array({text});
  j["post_processor"] = put;
  CHECK(parse(j).bos() == -1);
  j["post_processor"] = {{"type", "BertProcessing"}};
  refused(j, "post_processor \"BertProcessing\"");
}

TEST_CASE("steps of a tokenizer.json that are not known are refused by what they are") {
  const auto with = [](const json& step) {
    json j = byte_level();
    j["pre_tokenizer"] = sequence("pretokenizers", {step, bytes_only()});
    return j;
  };
  refused(with(split("\\p{Han}+|x")), "by the expression \"\\p{Han}+|x\", which is not known");
  json removed = split(llama3_expression);
  removed["behavior"] = "Removed";
  refused(with(removed), "\"behavior\" is \"Removed\", expected \"Isolated\"");
  removed = split(llama3_expression);
  removed["invert"] = true;
  refused(with(removed), "\"invert\" is true");
  removed["invert"] = false;
  removed["pattern"] = {{"String", " "}};
  refused(with(removed), "\"pattern\" is");
  refused(with({{"type", "Whitespace"}}), "pre_tokenizer \"Whitespace\"");
  json many = byte_level(), digits = json::array();
  for (int i = 0; i < 15; ++i) digits.push_back({{"type", "Digits"}, {"individual_digits", true}});
  digits.push_back(bytes_only());
  many["pre_tokenizer"] = sequence("pretokenizers", digits);
  CHECK(parse(many).encode("12") ==
        parse(with({{"type", "Digits"}, {"individual_digits", true}})).encode("12"));
  digits.insert(digits.begin(), json({{"type", "Digits"}}));
  many["pre_tokenizer"] = sequence("pretokenizers", digits);
  refused(many, "has more than 16 pre_tokenizers");
  refused(with(bytes_only()), "pre_tokenizer of type \"ByteLevel\" behind the last");
  json j = byte_level();
  j["pre_tokenizer"] = split(llama3_expression);
  refused(j, "without a Metaspace or ByteLevel");
  j["pre_tokenizer"] = sequence("pretokenizers", {split(llama3_expression), {{"type", "ByteLevel"}}});
  refused(j, "\"add_prefix_space\" is absent, expected false behind other pre_tokenizers");
  j = byte_level();
  j["model"]["byte_fallback"] = true;
  refused(j, "ByteLevel pre_tokenizer and byte_fallback");
  j["model"]["byte_fallback"] = false;
  j["decoder"] = {{"type", "ByteFallback"}};
  refused(j, "decoder \"ByteFallback\"");
  json m = metaspace("sometimes", false);
  refused(m, "\"prepend_scheme\" is \"sometimes\", expected always, first or never");
  m = metaspace("always", false);
  m["pre_tokenizer"]["add_prefix_space"] = false;
  refused(m, "\"add_prefix_space\" is false");
  m = metaspace("always", false);
  m["pre_tokenizer"]["replacement"] = "_";
  refused(m, "\"replacement\" is \"_\"");
}

#endif
