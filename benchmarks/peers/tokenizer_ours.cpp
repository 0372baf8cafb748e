// One side of tokenizer_compare.py: this library.
//   usage: tokenizer_ours TOKENIZER <TEXTS >ANSWERS
// TEXTS is a JSON list of texts. The answer has for each [ids, the text they decode to], or the refusal; it
// is a single text where the vocabulary is refused.
#include <iostream>

#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  nlohmann::json answer;
  try {
    const llama::tokenizer words = llama::load_tokenizer(argv[1]);
    answer = nlohmann::json::array();
    for (const auto& text : nlohmann::json::parse(std::cin)) {
      try {
        const auto ids = words.encode(text.get<std::string>());
        answer.push_back({ids, words.decode(ids)});
      } catch (const error& e) {
        answer.push_back(e.what());
      }
    }
  } catch (const error& e) {
    answer = e.what();
  }
  std::cout << answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}
