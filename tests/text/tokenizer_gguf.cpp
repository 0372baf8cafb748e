#include "unroll/text/tokenizer_gguf.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/gguf_files.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;
using made::bytes_of;

namespace {

using ids = std::vector<token>;

tokenizer parse(const made::gguf_file& f) {
  const std::string bytes = f.bytes();
  return parse_tokenizer_gguf(gguf(byte_source::memory(bytes, "file", "load_tokenizer")));
}
void refuses(const made::gguf_file& f, const std::string& message) {
  CHECK_THROWS_WITH(parse(f), ContainsSubstring("file") && ContainsSubstring(message));
}

template <class N>
std::string list(std::uint32_t type, const std::vector<N>& all) {
  std::string elements;
  for (const N n : all) elements += bytes_of(n);
  return bytes_of(std::uint32_t{9}) + bytes_of(type) + bytes_of(std::uint64_t(all.size())) + elements;
}

// A control, the 256 bytes, "12", " a", " ab", "3a", a user-defined text.
made::gguf_file byte_level(const std::string& pre = "smollm", const std::string& control = "<|end|>") {
  std::vector<std::string> pieces{control};
  for (int b = 0; b < 256; ++b) pieces.push_back(llama::detail::byte_level_spelling(std::string(1, char(b))));
  pieces.insert(pieces.end(), {"12",
                               "\xC4\xA0"
                               "a",
                               "\xC4\xA0"
                               "ab",
                               "3a", "[x]"});
  std::vector<std::int32_t> types(pieces.size(), 1);
  types.front() = 3;
  types.back() = 4;
  made::gguf_file f;
  f.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", pre)
      .texts("tokenizer.ggml.tokens", pieces);
  f.key("tokenizer.ggml.token_type", list(5, types));
  f.texts("tokenizer.ggml.merges", {"1 2", "\xC4\xA0 a",
                                    "\xC4\xA0"
                                    "a b",
                                    "3 a"});
  f.u32("tokenizer.ggml.eos_token_id", 0).u32("tokenizer.ggml.bos_token_id", 0);
  return f;
}
// <unk>, <s>, </s>, bytes 'x' and U+E9's, pieces with blanks.
made::gguf_file by_scores() {
  const std::string mark(blank_mark);
  made::gguf_file f;
  f.text("tokenizer.ggml.model", "llama");
  f.texts("tokenizer.ggml.tokens",
          {"<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "a", "b", mark, "ab", mark + "a"});
  f.key("tokenizer.ggml.scores", list<float>(6, {0, 0, 0, 0, 0, -5, -6, -7, -1, -2}));
  f.key("tokenizer.ggml.token_type", list<std::int32_t>(5, {2, 3, 3, 6, 6, 1, 1, 1, 1, 1}));
  return f;
}
token byte(char c) { return 1 + token(static_cast<unsigned char>(c)); }

}  // namespace

TEST_CASE("a byte-level vocabulary of a GGUF file cuts as its pre says") {
  const auto smollm = parse(byte_level());
  CHECK(smollm.size() == 262);
  CHECK(smollm.bos() == -1);  // none is put in front of a text
  CHECK(smollm.eos() == 0);
  CHECK(smollm.encode("12 ab3a") == ids{byte('1'), byte('2'), 259, byte('3'), byte('a')});
  CHECK(smollm.encode("a[x]<|end|>") == ids{byte('a'), 261, 0});
  CHECK(parse(byte_level("gpt-2")).encode("12 ab3a") == ids{257, 259, byte('3'), byte('a')});
  CHECK(parse(byte_level("qwen2")).encode("12 ab") == ids{byte('1'), byte('2'), 259});
  const auto llama3 = parse(byte_level("llama-bpe"));
  CHECK(llama3.bos() == 0);
  CHECK(llama3.encode("12 ab", true) == ids{0, 257, 259});
  auto f = byte_level("llama-bpe");
  CHECK(parse(f.truth("tokenizer.ggml.add_bos_token", false)).bos() == -1);
  CHECK(parse(byte_level().truth("tokenizer.ggml.add_bos_token", true)).bos() == 0);
}

// As Llamas that were taught by DeepSeek R1 have them; findings/gguf-tokenizer-marks.sh.
TEST_CASE("a control piece is found whatever characters it has") {
  const std::string mark =
      "<\xEF\xBD\x9C"
      "end\xE2\x96\x81>";
  const auto words = parse(byte_level("llama-bpe", mark));
  CHECK(words.bos() == 0);
  CHECK(words.encode("a" + mark) == ids{byte('a'), 0});
}

TEST_CASE("a vocabulary of scores of a GGUF file joins as SentencePiece's") {
  const auto t = parse(by_scores());
  CHECK(t.bos() == 1);
  CHECK(t.eos() == 2);
  CHECK(t.encode("ab", true) == ids{1, 7, 8});  // the score of "ab" is above that of " a"
  CHECK(t.encode("a\xC3\xA9z") == ids{9, 3, 4, 0});
  CHECK(t.decode(ids{1, 9, 6}) == "ab");
  CHECK(parse(by_scores().truth("tokenizer.ggml.add_space_prefix", false)).encode("ab") == ids{8});
  // without scores all are 0: the leftmost pair is joined first
  CHECK(parse(by_scores().with("tokenizer.ggml.scores", "")).encode("ab") == ids{9, 6});
}

// What llama_tokenize of llama-cpp-python 0.3.36 gives, without parse_special, for the same file.
TEST_CASE("user-defined pieces of a vocabulary of scores are found before anything is joined") {
  const std::string mark(blank_mark);
  made::gguf_file f;
  f.text("tokenizer.ggml.model", "llama");
  f.texts("tokenizer.ggml.tokens",
          {"<unk>", "<s>", "</s>", "a", "b", mark, "ab", mark + "a", "[u]", "[u][v]", "b b"});
  f.key("tokenizer.ggml.scores", list<float>(6, {0, 0, 0, -5, -6, -7, -1, -2, 0, 0, 0}));
  f.key("tokenizer.ggml.token_type", list<std::int32_t>(5, {2, 3, 3, 1, 1, 1, 1, 1, 4, 4, 4}));
  const auto t = parse(f);
  CHECK(t.encode("ab") == ids{5, 6});
  CHECK(t.encode("[u]ab") == ids{8, 5, 6});
  CHECK(t.encode("ab[u]ab") == ids{5, 6, 8, 5, 6});
  CHECK(t.encode("[u][v]a[u]") == ids{9, 7, 8});
  CHECK(t.encode("a [u] a") == ids{7, 5, 8, 5, 7});
  CHECK(t.encode("ab bb") == ids{7, 10, 5, 4});
  CHECK(t.encode("b b b") == ids{10, 5, 5, 4});
  CHECK(t.encode("[u] a") == ids{8, 5, 7});
  CHECK(t.encode(" a") == ids{5, 7});
  CHECK(t.decode(t.encode("ab[u]ab")) == "ab[u]ab");
}

TEST_CASE("vocabularies of GGUF files that are not read are refused by their keys") {
  const auto f = byte_level();
  refuses(f.with("tokenizer.ggml.model", ""), "lacks key \"tokenizer.ggml.model\"");
  refuses(f.with("tokenizer.ggml.model", made::text_value("bert")),
          "\"tokenizer.ggml.model\" is \"bert\", expected");
  refuses(f.with("tokenizer.ggml.pre", ""), "\"tokenizer.ggml.pre\" is absent, expected \"llama-bpe\"");
  refuses(f.with("tokenizer.ggml.pre", made::text_value("default")), "\"tokenizer.ggml.pre\" is \"default\"");
  refuses(f.with("tokenizer.ggml.merges", ""), "lacks key \"tokenizer.ggml.merges\"");
  refuses(f.with("tokenizer.ggml.tokens", ""), "lacks key \"tokenizer.ggml.tokens\"");
  refuses(f.with("tokenizer.ggml.token_type", list<std::int32_t>(5, {1, 1})),
          "\"tokenizer.ggml.token_type\" is a list of 2, expected one for each of 262 tokenizer.ggml.tokens");
  refuses(f.with("tokenizer.ggml.token_type", list(5, std::vector<std::int32_t>(262, 7))),
          "\"tokenizer.ggml.token_type\" is 7, expected numbers from 1 to 6");
  refuses(f.with("tokenizer.ggml.token_type", list(4, std::vector<std::int32_t>(262, 1))), "an array of u32");
  refuses(f.with("tokenizer.ggml.eos_token_id", made::u32_value(262)),
          "eos has id 262, the vocabulary has 262");
  refuses(f.with("tokenizer.ggml.eos_token_id", made::u32_value(3000000000u)),
          "is 3000000000, expected an id");
  refuses(by_scores().with("tokenizer.ggml.scores", list<float>(6, {0, 0, 0, 0, 0, NAN, 0, 0, 0, 0})),
          "piece 5 has score nan");
  auto eos = byte_level();
  refuses(eos.truth("tokenizer.ggml.add_eos_token", true),
          "\"tokenizer.ggml.add_eos_token\" is true, expected false");
  auto sep = byte_level();
  refuses(sep.truth("tokenizer.ggml.add_sep_token", true),
          "\"tokenizer.ggml.add_sep_token\" is true, expected false");
  auto table = by_scores();
  refuses(table.texts("tokenizer.ggml.precompiled_charsmap", {}),
          "has key \"tokenizer.ggml.precompiled_charsmap\", which is not implemented");
  auto harmless = byte_level();
  CHECK_NOTHROW(
      parse(harmless.u32("tokenizer.ggml.padding_token_id", 0).text("tokenizer.chat_template", "x")));
  auto bos = byte_level().with("tokenizer.ggml.bos_token_id", "");
  refuses(bos.truth("tokenizer.ggml.add_bos_token", true), "\"tokenizer.ggml.bos_token_id\" is absent");
}

TEST_CASE("texts end at the ids that a GGUF file names") {
  auto f = byte_level();
  f.u32("tokenizer.ggml.eot_token_id", 7).u32("tokenizer.ggml.eom_token_id", 0);
  f.u32("tokenizer.ggml.fim_pad_token_id", 5);
  const std::string bytes = f.bytes();
  const gguf file(byte_source::memory(bytes, "file", "load_end_tokens"));
  CHECK(gguf_end_tokens(file, 8) == ids{0, 7, 5});
  CHECK_THROWS_WITH(gguf_end_tokens(file, 7),
                    ContainsSubstring("\"tokenizer.ggml.eot_token_id\" is 7, expected an id below 7"));
}
