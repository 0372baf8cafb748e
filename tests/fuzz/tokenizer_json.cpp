// A tokenizer.json; what is read encodes and decodes.
#include "tests/fuzz/target.hpp"
#include "tests/support/tokenizer_files.hpp"
#include "unroll/io/tokenizer_file.hpp"

std::vector<std::string> seeds() {
  using namespace tokenizer_files;
  std::string strips = json(true, {mark, "a", "b", "ab"});
  for (const char* option : {"lstrip", "rstrip", "normalized"}) {
    const std::string off = std::string("\"") + option + "\": false";
    const auto at = strips.rfind(off);
    strips.replace(at, off.size(), std::string("\"") + option + "\": true");
  }
  return {json(true, {mark, "a", "b", "ab"}), json(false, {mark, "a", "b", "ab", mark + "a"}), strips,
          unroll::llama::byte_tokenizer_json()};
}

void parse(std::string_view bytes) {
  const auto t = unroll::llama::parse_tokenizer_json(bytes, "input");
  t.decode(t.encode(bytes.substr(0, 500)));
}
