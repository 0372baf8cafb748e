// A tokenizer.json, which encodes and decodes, or one of the small files beside it.
#include "tests/fuzz/target.hpp"
#include "tests/support/tokenizer_files.hpp"
#include "unroll/io/generation_config.hpp"
#include "unroll/text/tokenizer_file.hpp"

std::vector<std::string> seeds() {
  using namespace tokenizer_files;
  std::string strips = json(true, {mark, "a", "b", "ab"});
  for (const char* option : {"lstrip", "rstrip", "normalized"}) {
    const std::string off = std::string("\"") + option + "\": false";
    const auto at = strips.rfind(off);
    strips.replace(at, off.size(), std::string("\"") + option + "\": true");
  }
  const auto with = [](const std::string& pre_tokenizer, const std::string& normalizer = "null") {
    std::string j = json(false, {"\xC4\xA0", "a", "b", "ab", mark + "a"});
    const auto from = j.find("\"normalizer\""), to = j.find(", \"model\"");
    return j.replace(from, to - from,
                     "\"normalizer\": " + normalizer + ", \"pre_tokenizer\": " + pre_tokenizer);
  };
  const std::string forms = UNROLL_HAS_ICU ? R"(, {"type": "NFKC"}, {"type": "NFD"})" : "";
  return {with(R"({"type": "Metaspace", "replacement": ")" + mark + R"(", "prepend_scheme": "first"})"),
          with(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
                   {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}]})"),
          with("null", R"({"type": "Sequence", "normalizers": [{"type": "Nmt"})" + forms + "]}"),
          json(true, {mark, "a", "b", "ab"}),
          json(false, {mark, "a", "b", "ab", mark + "a"}),
          strips,
          unroll::llama::byte_tokenizer_json(),
          unroll::llama::byte_tokenizer_config_json(),
          R"({"add_prefix_space": true, "added_tokens_decoder": {"1": {"content": "<s>"}}, "legacy": false})",
          R"({"eos_token_id": [2, 11], "temperature": 0.6, "num_beams": 1, "token_healing": false})"};
}

void parse(std::string_view bytes) {
  using namespace unroll::llama;
  const auto accepts = [](auto&& read) {
    try {
      read();
      return true;
    } catch (const unroll::error&) {
      return false;
    }
  };
  const bool vocabulary = accepts([&] {
    const auto t = parse_tokenizer_json(bytes, "input");
    t.decode(t.encode(bytes.substr(0, 500)));
  });
  const bool config = accepts([&] { parse_tokenizer_config(bytes, "input"); });
  const bool generation = accepts([&] { parse_generation_config(bytes, "input", 300, "parse"); });
  if (!vocabulary && !config && !generation) unroll::fail("parse", "input", "is none of the three files");
}
