#include "tests/support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include "tests/support/folder.hpp"
#include "tests/support/gguf_files.hpp"
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

// What GenerationConfig of transformers 5.24.0 makes of such files.
TEST_CASE("how a model wants its tokens drawn is read, with the defaults of transformers") {
  const auto of = [](const std::string& text) {
    return llama::parse_generation_defaults(text, "file", 12, "f");
  };
  const auto nothing = of("{}");
  CHECK_FALSE(nothing.draws);
  CHECK((nothing.how.temperature == 1 && nothing.how.top_p == 1 && nothing.how.top_k == 50));
  CHECK((nothing.how.repetition_penalty == 1 && nothing.bos == -1 && !nothing.ends));
  const auto all = of(R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "bos_token_id": 3,
                         "repetition_penalty": 1.1, "eos_token_id": [2, 4], "pad_token_id": 0})");
  CHECK(all.draws);
  CHECK((all.how.temperature == 0.6 && all.how.top_p == 0.9 && all.how.top_k == 20));
  CHECK((all.how.repetition_penalty == 1.1 && all.bos == 3 && *all.ends == ids{2, 4}));
  CHECK(of(R"({"do_sample": true, "top_k": null})").how.top_k == 0);
  CHECK(of(R"({"do_sample": true, "top_k": 0})").how.top_k == 0);
  const auto first = of(R"({"do_sample": true, "top_p": 0.0})").how;  // the most probable one
  CHECK((first.top_k == 1 && first.top_p == 1));
  CHECK_FALSE(of(R"({"min_p": 0.1})").draws);  // nothing where it does not draw
  const std::pair<const char*, const char*> wrong[] = {
      {"temperature", "0"},   {"temperature", "-1"}, {"temperature", "\"hot\""},  {"top_p", "1.5"},
      {"top_k", "-1"},        {"top_k", "2.5"},      {"repetition_penalty", "0"}, {"bos_token_id", "12"},
      {"bos_token_id", "-1"}, {"min_p", "0.1"},      {"typical_p", "0.5"},        {"eta_cutoff", "0.1"}};
  for (const auto& [key, value] : wrong)
    CHECK_THROWS_WITH(of("{\"do_sample\": true, \"" + std::string(key) + "\": " + value + "}"),
                      ContainsSubstring("f: file: \"" + std::string(key) + "\" is "));
}

// The keys and types that the package gguf 0.19.0 writes.
TEST_CASE("a GGUF file says how its model wants its tokens drawn") {
  const folder f;
  llama::config c;
  c.vocabulary = 12;
  const auto i32 = [](std::int32_t n) { return made::bytes_of(std::uint32_t{5}) + made::bytes_of(n); };
  const auto of = [&](const made::gguf_file& file) {
    write_file(f.path / "m.gguf", file.bytes());
    return llama::load_generation_defaults(f.path / "m.gguf", c);
  };
  const std::string at = "general.sampling.";
  made::gguf_file file;
  file.u32("tokenizer.ggml.eos_token_id", 3);
  const auto nothing = of(file);
  CHECK_FALSE(nothing.draws);
  CHECK((nothing.how.temperature == 1 && nothing.how.top_p == 1 && nothing.how.top_k == 50));
  CHECK(*nothing.ends == ids{3});
  file.f32(at + "temp", 0.5f).f32(at + "top_p", 0.75f).key(at + "top_k", i32(20));
  const auto all = of(file);
  CHECK((all.draws && all.how.temperature == 0.5 && all.how.top_p == 0.75 && all.how.top_k == 20));
  CHECK(all.how.repetition_penalty == 1);
  CHECK(of(file.with(at + "top_k", i32(-1))).how.top_k == 0);
  file.f32(at + "min_p", 0).key(at + "mirostat", i32(0)).f32(at + "xtc_threshold", 0.1f);
  file.f32(at + "mirostat_tau", 5).f32(at + "mirostat_eta", 0.1f);
  CHECK(of(file).draws);
  auto repeats = file;
  repeats.f32(at + "penalty_repeat", 1.25f).key(at + "penalty_last_n", i32(-1));
  CHECK(of(repeats).how.repetition_penalty == 1.25);
  const auto refuses = [&](const made::gguf_file& bad, const std::string& message) {
    CHECK_THROWS_WITH(of(bad), ContainsSubstring("m.gguf\": \"" + at + message));
  };
  refuses(repeats.with(at + "penalty_last_n", ""), "penalty_last_n\" is 64, expected -1");
  refuses(file.with(at + "min_p", made::bytes_of(std::uint32_t{6}) + made::bytes_of(0.25f)),
          "min_p\" is 0.25, expected 0");
  refuses(file.with(at + "mirostat", i32(2)), "mirostat\" is 2, expected 0");
  refuses(file.with(at + "top_k", i32(20)).text(at + "sequence", "kp"), "sequence\" is \"kp\"");
  refuses(file.with(at + "top_p", made::bytes_of(std::uint32_t{6}) + made::bytes_of(1.5f)),
          "top_p\" is 1.5, expected from 0 to 1");
  refuses(file.with(at + "temp", i32(1)), "temp\" is of type i32, expected of type f32");
  refuses(file.with(at + "temp", made::f32_value(NAN)), "temp\" is nan, expected from 0 to");
  auto unknown = file;
  unknown.f32(at + "dry_multiplier", 0.8f);
  CHECK_THROWS_WITH(of(unknown), ContainsSubstring("m.gguf\": has key \"" + at +
                                                   "dry_multiplier\", which is not implemented"));
}

#endif
