#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/adapter_config.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

// A config.json with these members, as text, so that their order is that of the file.
adapter_options parse(const std::string& members, index_t layers = 2) {
  config c = made::tiny();
  c.layers = layers;
  return parse_adapter_options(R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, )" + members + "}", c,
                               "file");
}
std::string names(const adapter_options& o, index_t layers = 2) {
  config c = made::tiny();
  c.layers = layers;
  const lora_map map(c, o.lora);
  std::string out;
  for (index_t i = 0; i < layers; ++i)
    for (std::size_t m = 0; m < layer_matrix_names.size(); ++m)
      if (map.at(i, layer_matrix(m)).a >= 0) out += std::to_string(i) + "qkvogud"[m] + " ";
  return out;
}
// "scale rank" of W_Q of layers 0 and 1 and of W_V of layer 0.
std::vector<double> numbers(const std::string& members) {
  const auto o = parse(R"("target_modules": ["q_proj", "v_proj"], )" + members);
  const lora_map map(made::tiny(), o.lora);
  std::vector<double> out;
  for (const auto& f : {map.at(0, layer_matrix::q), map.at(1, layer_matrix::q), map.at(0, layer_matrix::v)})
    out.insert(out.end(), {f.scale, double(f.rank)});
  return out;
}

}  // namespace

TEST_CASE("ranks and alphas of patterns are those of PEFT 0.21.2") {
  using v = std::vector<double>;
  CHECK(numbers(R"("rank_pattern": {}, "alpha_pattern": null)") == v{2, 8, 2, 8, 2, 8});
  CHECK(numbers(R"("rank_pattern": {"q_proj": 4})") == v{4, 4, 4, 4, 2, 8});
  CHECK(numbers(R"("alpha_pattern": {"q_proj": 32})") == v{4, 8, 4, 8, 2, 8});
  CHECK(numbers(R"("rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 32})") == v{8, 4, 8, 4, 2, 8});
  // from a dot or the beginning to the end
  CHECK(numbers(R"("alpha_pattern": {"_proj": 32, "layers.0": 32, "q_pro": 32, "proj": 32})") ==
        v{2, 8, 2, 8, 2, 8});
  CHECK(numbers(R"("alpha_pattern": {"layers\\.0\\..*": 32})") == v{4, 8, 2, 8, 4, 8});
  CHECK(numbers(R"("alpha_pattern": {"model.layers.1.self_attn.q_proj": 32})") == v{2, 8, 4, 8, 2, 8});
  CHECK(numbers(R"("alpha_pattern": {"^model.layers.1.self_attn.q_proj": 32})") == v{2, 8, 4, 8, 2, 8});
  CHECK(numbers(R"("alpha_pattern": {"^layers.1.self_attn.q_proj": 32})") == v{2, 8, 2, 8, 2, 8});
  CHECK(numbers(R"("alpha_pattern": {"q_proj|v_proj": 32})") == v{4, 8, 4, 8, 4, 8});
  // the first that matches in the order of the file, which is not that of the alphabet
  CHECK(numbers(R"("alpha_pattern": {"q_proj": 32, ".*": 64})") == v{4, 8, 4, 8, 8, 8});
  CHECK(numbers(R"("alpha_pattern": {".*": 64, "q_proj": 32})") == v{8, 8, 8, 8, 8, 8});
  // with the root of the rank
  const auto root =
      numbers(R"("use_rslora": true, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 32})");
  CHECK(root[0] == Approx(16));
  CHECK(root[4] == Approx(16 / std::sqrt(8.0)));
}

TEST_CASE("target_modules are names, ends of names behind a dot, or a regular expression of the whole name") {
  const auto of = [](const std::string& targets, const std::string& more = "", index_t layers = 2) {
    return names(parse("\"target_modules\": " + targets + more, layers), layers);
  };
  CHECK(of(R"(["q_proj", "mlp.up_proj"])") == "0q 0u 1q 1u ");
  CHECK(of(R"(["0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"])") == "0q 1v ");
  CHECK(of(R"(".*_proj")") == "0q 0k 0v 0o 0g 0u 0d 1q 1k 1v 1o 1g 1u 1d ");
  CHECK(of(R"("model\\.layers\\.\\d+\\.self_attn\\.[qv]_proj")") == "0q 0v 1q 1v ");
  CHECK(of(R"(".*\\.(?:0|11)\\.(?!mlp).*\\.(q|k)_proj")", "", 12) == "0q 0k 11q 11k ");
  CHECK(of(R"(".*self_attn.(q|v)_proj$")") == "0q 0v 1q 1v ");
  CHECK(of(R"("all-linear")",
           R"(, "exclude_modules": ["mlp.up_proj", "model.layers.0.mlp.down_proj", "k_proj"])") ==
        "0q 0v 0o 0g 1q 1v 1o 1g 1d ");
  CHECK(of(R"("all-linear")", R"(, "exclude_modules": ".*\\.1\\..*|.*mlp.*")") == "0q 0k 0v 0o ");
  // layers count for ends of names, not for whole ones
  CHECK(of(R"(["q_proj", "model.layers.0.mlp.up_proj"])", R"(, "layers_to_transform": [1, 2])", 3) ==
        "0u 1q 2q ");
  CHECK(of(R"(["q_proj"])", R"(, "layers_to_transform": [0, 2])", 3) == "0q 2q ");
}

TEST_CASE("regular expressions that Python and std::regex read differently are refused at their place") {
  using unroll::detail::module_pattern;
  using unroll::detail::pattern_check;
  const std::pair<const char*, const char*> refused[] = {{"(?P<n>q)", "(?P<"},
                                                         {"(?<=a)q", "(?<="},
                                                         {"(?i)q", "(?i"},
                                                         {"(q)\\1", "\\1"},
                                                         {"q\\Z", "\\Z"},
                                                         {"\\Aq", "\\A"},
                                                         {"q*+", "+"},
                                                         {"q{,2}", "{"},
                                                         {"q{", "{"},
                                                         {"q}", "}"},
                                                         {"[]q]", "\"[]\" at character 1"},
                                                         {"[[:alpha:]]", "[["},
                                                         {"[a-Z]", "[a-"},
                                                         {"[q", "[q"},
                                                         {"*q", "*"},
                                                         {"(?=q)*", "*"},
                                                         {"^*", "*"},
                                                         {"q)", ")"},
                                                         {"(q", "a ( without its )"},
                                                         {"q\\", "\\"},
                                                         {"q**", "*"},
                                                         {"q{2}{3}", "{"},
                                                         {"q{3,2}", "{"},
                                                         {"\\x41", "\\x"},
                                                         {"[\\1]", "[\\"},
                                                         {"[z-a]", "[z-"},
                                                         {"[\\d-z]", "[\\d-"},
                                                         {"q\xc3\xa9", "a character that"},
                                                         {"q{1000}", "{"},
                                                         {"[a-c-e]", "[a-c-"},
                                                         {"(?#x)q", "(?#"}};
  for (const auto& [pattern, what] : refused) {
    INFO(pattern);
    CHECK_THAT(pattern_check::refusal(pattern), ContainsSubstring(what));
  }
  CHECK_THAT(pattern_check::refusal(std::string(2001, 'q')), ContainsSubstring("more than 2000 characters"));
  CHECK(pattern_check::refusal("(?:(?:ab){9}){70}").empty());
  CHECK_THAT(pattern_check::refusal("(?:(?:ab){9}){99}"), ContainsSubstring("repetitions of more than 2000"));
  CHECK_THAT(pattern_check::refusal("(?:(?:a?){99}){2,99}x"),
             ContainsSubstring("repetitions of more than 2000"));
  CHECK(pattern_check::refusal("(?:(?=a).){20}").empty());
  CHECK_THAT(pattern_check::refusal("(?:(?!a).){21}"), ContainsSubstring("more than 20 looks ahead"));
  CHECK(pattern_check::refusal("(?=a)(?!(b|c))").empty());
  CHECK_THAT(pattern_check::refusal("(?=a(b|(?!c)))"), ContainsSubstring("\"(?!\" at character 8"));
  struct row {
    const char *pattern, *name;
    bool match;
  };
  for (const row& r : std::initializer_list<row>{{"q|k", "k", true},
                                                 {"q|k", "qk", false},
                                                 {"q?k+.*", "kk.x", true},
                                                 {"(?=q)\\w{2,3}?", "q_p", true},
                                                 {"[^.\\d_]+[-]x", "ab-x", true},
                                                 {"[^.\\d_]+[-]x", "a_-x", false},
                                                 {"a\\.b\\-[\\]c-e]", "a.b-]", true},
                                                 {"a\\.b\\-[\\]c-e]", "axb-c", false},
                                                 {"^a{2}$", "aa", true},
                                                 {"a\\b.b", "a.b", true},
                                                 {"(|a)b{0,}", "bb", true}}) {
    INFO(r.pattern << " on " << r.name);
    CHECK(pattern_check::refusal(r.pattern).empty());
    CHECK(module_pattern(r.pattern).matches(r.name) == r.match);
  }
}

TEST_CASE("adapters one by one are written with patterns that match one name, and come back") {
  const config c = made::tiny();
  lora_options o;
  o.modules = {{0, layer_matrix::q, 3, 2}, {0, layer_matrix::up, 2, 0.5}, {1, layer_matrix::down, 3, 1}};
  o.bias = true;
  const auto back = parse_adapter_options(adapter_config_text(c, o), c, "file").lora;
  CHECK(back.modules == o.modules);
  CHECK(back.bias);
}

TEST_CASE("keys and patterns without end are read in linear time or refused") {
  std::string many;
  for (int i = 0; i < 100'000; ++i) many += "\"" + std::to_string(i) + "\": 0, ";
  CHECK_THROWS_WITH(parse(many + R"("target_modules": ["q_proj"])"),
                    ContainsSubstring("\"0\" is 0, expected no such key"));
  const std::string text =
      R"({"other": {"b": 1, "a": 2}, "alpha_pattern": {"z": 1, "b": {"c": 0}, "a": [{"d": 2}]}, "x": 3})";
  CHECK(llama::detail::ordered_keys(text, "alpha_pattern") == std::vector<std::string>{"z", "b", "a"});
  CHECK(llama::detail::ordered_keys(text, "rank_pattern").empty());
  std::string patterns;
  for (int i = 10'000; i < 10'800; ++i)
    patterns += (patterns.empty() ? "\"" : ", \"") + std::to_string(i) + "\": 1";
  CHECK_NOTHROW(numbers("\"alpha_pattern\": {" + patterns + "}"));
  CHECK_THROWS_WITH(numbers("\"alpha_pattern\": {" + patterns + R"(, "q{96}": 1, "k": 1})"),
                    ContainsSubstring("patterns of at most 4096 characters together"));
  CHECK_NOTHROW(numbers("\"alpha_pattern\": {" + patterns + R"(, "q{96}": 1})"));
}

TEST_CASE("what PEFT changes of the base, and DoRA, is read where the base is at hand") {
  const std::string targets = R"("target_modules": ["q_proj"], )";
  CHECK(parse(targets + R"("init_lora_weights": "pissa")").base == base_change::pissa);
  CHECK(parse(targets + R"("init_lora_weights": "olora")").base == base_change::olora);
  CHECK(parse(targets + R"("init_lora_weights": "eva")").base == base_change::none);
  CHECK(parse(targets + R"("use_dora": true)").dora);
  for (const char* kind : {"pissa_niter_4", "corda", "lora_ga", "loftq", "PiSSA"})
    CHECK_THROWS_WITH(
        parse(targets + R"("init_lora_weights": ")" + kind + "\""),
        ContainsSubstring("load_adapter: file: \"init_lora_weights\" is \"" + std::string(kind) + "\"") &&
            ContainsSubstring("\"pissa\" or \"olora\""));
  CHECK_THROWS_WITH(parse(targets + R"("use_dora": true, "lora_bias": true)"),
                    ContainsSubstring("\"lora_bias\" is true, expected false beside use_dora"));
}

#endif
