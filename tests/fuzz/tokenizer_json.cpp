// A tokenizer.json; what is read encodes and decodes.
#include "tests/fuzz/target.hpp"
#include "tests/support/tokenizer_files.hpp"
#include "unroll/io/tokenizer_file.hpp"

std::vector<std::string> seeds() {
  using namespace tokenizer_files;
  return {json(true, {mark, "a", "b", "ab"}), json(false, {mark, "a", "b", "ab", mark + "a"})};
}

void parse(std::string_view bytes) {
  const auto t = unroll::llama::parse_tokenizer_json(bytes, "input");
  t.decode(t.encode(bytes.substr(0, 500)));
}
