// A vocabulary .bin; what is read encodes and decodes.
#include "unroll/text/tokenizer_bin.hpp"
#include "tests/fuzz/target.hpp"
#include "tests/support/tokenizer_files.hpp"

std::vector<std::string> seeds() {
  using namespace tokenizer_files;
  return {bin(vocabulary(true, {" ", "a", "b", "ab"})), bin(vocabulary(false, {" ", "a", "aa", " a"}))};
}

void parse(std::string_view bytes) {
  const auto t = unroll::llama::parse_tokenizer_bin(bytes, "input");
  t.decode(t.encode(bytes.substr(0, 500), true));
}
