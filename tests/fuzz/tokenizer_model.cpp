// A SentencePiece model; what is read encodes and decodes. Without UNROLL_WITH_SENTENCEPIECE every model is
// refused once it was read.
#include "tests/fuzz/target.hpp"
#include "tests/support/tokenizer_files.hpp"
#include "unroll/text/tokenizer_file.hpp"

std::vector<std::string> seeds() {
#if UNROLL_HAS_SENTENCEPIECE
  using namespace tokenizer_files;
  return {model(vocabulary(true, {mark, "a", "b", "ab"})),
          model(vocabulary(false, {mark, "a", mark + "a"}), {.bytes = false, .drop_blanks = true}),
          model(vocabulary(true, {mark, "a"}), {.table = character_table()})};
#else
  return {};
#endif
}

void parse(std::string_view bytes) {
  const auto t = unroll::llama::parse_tokenizer_model(bytes, "input");
  t.decode(t.encode(bytes.substr(0, 500)));
}
