#include "tests/support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include "tests/support/folder.hpp"
#include "unroll/io/generation_config.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using ids = std::vector<llama::token>;

TEST_CASE("a text ends at every id of generation_config.json, else of config.json") {
  const folder f;
  llama::config c;
  c.vocabulary = 12;
  const auto ends = [&] { return llama::load_end_tokens(f.path, c); };
  CHECK_THROWS_WITH(ends(), ContainsSubstring("config.json"));
  write_file(f.path / "config.json", R"({"vocab_size": 12})");
  CHECK(ends().empty());
  write_file(f.path / "config.json", R"({"eos_token_id": 9})");
  CHECK(ends() == ids{9});
  write_file(f.path / "generation_config.json", R"({"do_sample": true, "eos_token_id": null})");
  CHECK(ends() == ids{9});
  write_file(f.path / "generation_config.json",
             R"({"eos_token_id": [2, 11], "temperature": 0.6, "max_length": 9})");
  CHECK(ends() == ids{2, 11});
  CHECK(llama::load_end_tokens(f.path / "model.bin", c).empty());
  for (const char* bad : {"12", "[2, 12]", "-1", "2.5", "\"</s>\"", "[[2]]"}) {
    write_file(f.path / "generation_config.json", std::string("{\"eos_token_id\": ") + bad + "}");
    CHECK_THROWS_WITH(ends(), ContainsSubstring("generation_config.json\": \"eos_token_id\" is ") &&
                                  ContainsSubstring("expected one or several of the ids 0 to 11"));
  }
  write_file(f.path / "generation_config.json", "{}");
  write_file(f.path / "config.json", R"({"eos_token_id": 12})");
  CHECK_THROWS_WITH(ends(), ContainsSubstring("/config.json\": \"eos_token_id\" is 12"));
  std::filesystem::remove(f.path / "generation_config.json");
  std::filesystem::create_symlink("generation_config.json", f.path / "generation_config.json");  // no end
  CHECK_THROWS_AS(ends(), unroll::error);
  CHECK_THROWS_AS(llama::load_end_tokens(f.path / std::string(300, 'x'), c), unroll::error);
}

TEST_CASE("an option of generation_config.json that changes what is written is refused by name") {
  const auto parse = [](const std::string& text) {
    return llama::parse_generation_config(text, "file", 12, "load_end_tokens");
  };
  for (const char* neutral :
       {R"({"repetition_penalty": 1.0, "num_beams": 1})", R"({"min_length": 0, "suppress_tokens": null})",
        R"({"token_healing": false, "_from_model_config": true, "transformers_version": "5.24.0"})"})
    CHECK(!parse(neutral));
  const std::pair<const char*, const char*> options[] = {
      {"repetition_penalty", "1.1"}, {"num_beams", "4"},           {"min_new_tokens", "5"},
      {"no_repeat_ngram_size", "3"}, {"token_healing", "true"},    {"suppress_tokens", "[3]"},
      {"stop_strings", "[\"x\"]"},   {"forced_eos_token_id", "2"}, {"bad_words_ids", "[[3]]"},
      {"sequence_bias", "{}"},       {"unheard_of", "1"}};
  for (const auto& [key, value] : options)
    CHECK_THROWS_WITH(parse("{\"" + std::string(key) + "\": " + value + "}"),
                      ContainsSubstring("load_end_tokens: file: \"" + std::string(key) + "\" is " + value));
  CHECK_THROWS_WITH(parse("[]"), ContainsSubstring("no JSON object"));
}

#endif
