// One side of tokenizer_compare.py: this library.
//   usage: tokenizer_ours TOKENIZER <TEXTS >ANSWERS
//          tokenizer_ours --time TOKENIZER <TEXTS >ANSWERS
//          tokenizer_ours --cut RULE[,RULE]... <TEXTS >ANSWERS
// TEXTS is a JSON list of texts. The answer has for each [ids, the text they decode to], or the refusal; it
// is a single text where the vocabulary is refused. --time: for each [ids, the least processor seconds of
// three runs].
// --cut: for each the pieces into which the rules cut it.
#include <ctime>
#include <iostream>

#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;
using nlohmann::json;

namespace {

std::vector<llama::cut_rule> rules(std::string_view names) {
  using enum llama::cut_rule;
  constexpr std::pair<std::string_view, llama::cut_rule> known[] = {
      {"gpt2", gpt2}, {"llama3", llama3}, {"qwen2", qwen2}, {"digits", digits}, {"digit_runs", digit_runs}};
  std::vector<llama::cut_rule> out;
  while (!names.empty()) {
    const std::size_t n = std::min(names.find(','), names.size());
    for (const auto& [name, rule] : known)
      if (names.substr(0, n) == name) out.push_back(rule);
    names.remove_prefix(std::min(n + 1, names.size()));
  }
  return out;
}

json pieces(const std::string& text, const std::vector<llama::cut_rule>& rules) {
  json out = json::array();
  llama::pre_tokenize(text, rules, [&](std::string_view piece) { out.push_back(std::string(piece)); });
  return out;
}

json timed(const llama::tokenizer& words, const std::string& text) {
  double least = 1e9;
  std::vector<llama::token> ids;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t start = std::clock();
    ids = words.encode(text);
    least = std::min(least, double(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return {ids, least};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 3 ? argv[1] : "";
  if (argc != 2 && what != "--time" && what != "--cut") return 2;
  json answer = json::array();
  try {
    const json texts = json::parse(std::cin);
    if (what == "--cut") {
      const auto by = rules(argv[2]);
      for (const auto& text : texts) answer.push_back(pieces(text.get<std::string>(), by));
    } else {
      const llama::tokenizer words = llama::load_tokenizer(argv[argc - 1]);
      for (const auto& text : texts) {
        try {
          const auto ids = words.encode(text.get<std::string>());
          answer.push_back(what == "--time" ? timed(words, text.get<std::string>())
                                            : json{ids, words.decode(ids)});
        } catch (const error& e) {
          answer.push_back(e.what());
        }
      }
    }
  } catch (const error& e) {
    answer = e.what();
  }
  std::cout << answer.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
}
