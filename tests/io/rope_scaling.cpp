#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/rope_scaling.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/llama_files.hpp"
#include "unroll/io/llama_checkpoint.hpp"
#include "unroll/llama/positions.hpp"
#include "unroll/llama/score.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

// A config.json of a Llama with this head, context and object of rotary positions.
std::string text_with(index_t head, index_t context, const std::string& rope,
                      const std::string& key = "rope_parameters") {
  return R"({"model_type": "llama", "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "vocab_size": 32, "head_dim": )" +
         std::to_string(head) + R"(, "max_position_embeddings": )" + std::to_string(context) + ", \"" + key +
         "\": " + rope + "}";
}

const char* const longrope = R"({"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.5, 2.0],
    "long_factor": [1, 2, 6, 9.5], "original_max_position_embeddings": 32)";

}  // namespace

// LlamaRotaryEmbedding of transformers 5.24.0 with torch 2.15.0, in float, after a pass of `length`
// positions.
TEST_CASE("inverse frequencies and attention factors are those of transformers, of every kind", "[rope]") {
  struct row {
    index_t head, context, length;
    std::string rope;
    double attention;
    std::vector<double> inverse;
  };
  const std::string llama3 = R"({"rope_type": "llama3", "rope_theta": 500000, "factor": 8,
      "low_freq_factor": 1, "high_freq_factor": 4)";
  const std::string yarn = R"({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64)";
  const std::string dynamic = R"({"rope_type": "dynamic", "factor": 2})";
  for (const row& r : {
           row{8, 64, 0, R"({"rope_type": "default"})", 1, {1, 0.1, 0.01, 0.001}},
           row{8, 64, 0, R"({"rope_type": "linear", "factor": 2.5})", 1, {0.4, 0.04, 0.004, 0.0004}},
           row{16,
               64,
               0,
               llama3 + R"(, "original_max_position_embeddings": 32})",
               1,
               {1, 0.0242403448, 0.00470075384, 0.000911583134, 0.000176776681, 3.42810235e-05,
                6.64786967e-06, 1.28917316e-06}},
           row{16,
               64,
               0,
               llama3 + "}",
               1,
               {1, 0.079403013, 0.00470075384, 0.000911583134, 0.000176776681, 3.42810235e-05, 6.64786967e-06,
                1.28917316e-06}},
           row{64,
               131072,
               0,
               llama3 + R"(, "original_max_position_embeddings": 8192})",
               1,
               {1,
                0.663601279,
                0.440366626,
                0.292227834,
                0.193922758,
                0.128687382,
                0.0853971019,
                0.0566696189,
                0.0376060307,
                0.0249554086,
                0.0165604409,
                0.0109895291,
                0.00729266508,
                0.00483942125,
                0.00321144611,
                0.00137189368,
                0.000524846022,
                0.000178507791,
                7.78465546e-05,
                5.16590699e-05,
                3.42810235e-05,
                2.2748929e-05,
                1.50962178e-05,
                1.00178686e-05,
                6.64786967e-06,
                4.41153452e-06,
                2.92749974e-06,
                1.94269251e-06,
                1.28917316e-06,
                8.55496921e-07,
                5.6770881e-07,
                3.7673226e-07}},
           row{16,
               256,
               0,
               yarn + "}",
               1.138629436111989,
               {1, 0.237170815, 0.049999997, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
                7.90569466e-05}},
           row{16,
               256,
               0,
               yarn + R"(, "truncate": false})",
               1.138629436111989,
               {1, 0.198583528, 0.0255952496, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
                7.90569466e-05}},
           row{16,
               256,
               0,
               R"({"rope_type": "yarn", "factor": 4})",
               1.138629436111989,
               {1, 0.25693506, 0.0625, 0.0138349654, 0.00249999994, 0.000790569466, 0.000250000012,
                7.90569466e-05}},
           row{16,
               256,
               0,
               yarn + R"(, "beta_fast": 8, "beta_slow": 2, "mscale": 0.707, "mscale_all_dim": 1.2})",
               0.941403523749669,
               {1, 0.197642356, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
                7.90569466e-05}},
           row{16,
               256,
               0,
               yarn + R"(, "attention_factor": 1.3, "mscale": 0.707})",
               1.3,
               {1, 0.237170815, 0.049999997, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
                7.90569466e-05}},
           row{16,
               256,
               0,
               yarn + R"(, "mscale": 0.707})",
               1.138629436111989,
               {1, 0.237170815, 0.049999997, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
                7.90569466e-05}},
           row{16,
               192,
               0,
               R"({"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 64})",
               1.109861228866811,
               {1, 0.245954916, 0.055555556, 0.010540925, 0.00333333341, 0.00105409266, 0.00033333333,
                0.000105409257}},
           row{8,
               64,
               0,
               R"({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 4})",
               1.138629436111989,
               {1, 0.025, 0.0025, 0.00025}},
           row{8, 64, 0, dynamic, 1, {1, 0.1, 0.01, 0.001}},
           row{8, 64, 65, dynamic, 1, {1, 0.0989795253, 0.00979694631, 0.000969696965}},
           row{8, 64, 128, dynamic, 1, {1, 0.0693361238, 0.00480749831, 0.00033333333}},
           row{8, 64, 200, dynamic, 1, {1, 0.0575369596, 0.00331050158, 0.000190476188}},
           row{8,
               128,
               0,
               longrope + std::string("}"),
               1.1832159566199232,
               {1, 0.0909090936, 0.00666666683, 0.0005}},
           row{8,
               128,
               33,
               longrope + std::string("}"),
               1.1832159566199232,
               {1, 0.0500000007, 0.00166666671, 0.000105263156}},
           row{8,
               128,
               33,
               longrope + std::string(R"(, "factor": 2})"),
               1.0954451150103321,
               {1, 0.0500000007, 0.00166666671, 0.000105263156}},
           row{8,
               128,
               33,
               longrope + std::string(R"(, "factor": null, "attention_factor": 1.5})"),
               1.5,
               {1, 0.0500000007, 0.00166666671, 0.000105263156}},
       }) {
    INFO(r.rope << ", context " << r.context << ", length " << r.length);
    for (const char* key : {"rope_parameters", "rope_scaling"}) {
      config c = parse_config(text_with(r.head, r.context, r.rope, key), "file");
      CHECK(parse_config(config_text(c), "file") == c);
      c.scaling.length = r.length;
      const rotary_frequencies f = frequencies(c);
      CHECK(f.attention == Approx(r.attention).epsilon(1e-12));
      REQUIRE(f.inverse.size() == r.inverse.size());
      for (std::size_t i = 0; i < f.inverse.size(); ++i)
        CHECK(f.inverse[i] == Approx(r.inverse[i]).epsilon(1e-6));
      if (r.length > 0) CHECK(c.positions() == r.length);
    }
  }
}

// LlamaForCausalLM of transformers 5.24.0 in float64, its rotary tables in float.
TEST_CASE("the loss of a whole Llama is that of transformers, whatever its positions", "[rope]") {
  struct row {
    index_t context, tokens;
    std::string rope;
    double loss;
  };
  for (const row& r :
       {row{64, 48, R"({"rope_type": "default"})", 4.675735474},
        row{64, 48, R"({"rope_type": "linear", "factor": 2.5})", 4.707126141},
        row{64, 48, R"({"rope_type": "llama3", "rope_theta": 500000, "factor": 8, "low_freq_factor": 1,
                        "high_freq_factor": 4, "original_max_position_embeddings": 8})",
            4.620789528},
        row{64, 48, R"({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16})",
            4.812922001},
        row{16, 48, R"({"rope_type": "dynamic", "factor": 2})", 4.775331497},
        row{64, 32, longrope + std::string("}"), 4.810919285},
        row{64, 48, longrope + std::string("}"), 4.796239376}}) {
    INFO(r.rope << ", " << r.tokens << " tokens");
    config c = parse_config(text_with(8, r.context, r.rope), "file");
    if (c.positions() < r.tokens) c.scaling.length = r.tokens;
    const transformer<double> stack(c);
    parameters<double> w(stack.map().size());
    for (const layout_block& b : stack.map().names().blocks())
      for (index_t i = b.offset; i < b.offset + b.size(); ++i) {
        const double v = std::sin(0.7 * double(i) + 0.1 * double(i % 13));
        w[i] = b.cols == 1 ? 1 + 0.2 * v : 0.6 * v;
      }
    std::vector<token> ids;
    for (index_t t = 0; t < r.tokens; ++t) ids.push_back(token((t * t * 7 + 3 * t + 1) % 32));
    CHECK(score<double>(stack, w, ids).mean() == Approx(r.loss).epsilon(2e-6));
  }
}

TEST_CASE("the length at hand, which no config.json holds, decides the frequencies", "[rope]") {
  config c = parse_config(text_with(8, 64, R"({"rope_type": "dynamic", "factor": 2})"), "file");
  CHECK(c.positions() == 64);
  c.scaling.length = 10;  // within the context nothing is stretched
  CHECK(c.positions() == 10);
  CHECK(frequencies(c).inverse[1] == 0.1);
  c.scaling.length = 100;
  CHECK(frequencies(c).inverse[1] < 0.1);
  CHECK(parse_config(config_text(c), "file").scaling.length == 0);
  c = parse_config(text_with(8, 128, longrope + std::string("}")), "file");
  CHECK(c.positions() == 32);
  c.scaling.length = 128;
  CHECK(c.positions() == 128);
  c.scaling.length = 129;
  CHECK_THROWS_WITH(check(c, "f"), "f: scaling.length: is 129, must be from 0 to 128");
}

TEST_CASE("what a config.json may not say of positions is refused by key", "[rope]") {
  const std::string yarn = R"("rope_type": "yarn", "factor": 4)";
  const std::string llama3 = R"("rope_type": "llama3", "factor": 8)";
  struct row {
    std::string rope;
    const char* message;
  };
  for (const row& r : std::initializer_list<row>{
           {R"("rope_type": "proportional")",
            "\"rope_type\" is \"proportional\", expected one of \"default\", \"linear\", \"dynamic\", "
            "\"yarn\", \"llama3\", \"longrope\"; other kinds are not implemented"},
           {R"("type": "ntk", "factor": 2)", "\"type\" is \"ntk\", expected one of"},
           {R"("rope_type": "refuse")", "\"rope_type\" is \"refuse\", expected one of"},
           {R"("rope_type": "yarn")", "\"factor\" is absent, expected a number"},
           {R"("rope_type": "dynamic", "factor": null)", "\"factor\" is absent, expected a number"},
           {R"("rope_type": "dynamic", "factor": 2, "length": 128)",
            "\"length\" is 128, expected no such key"},
           {R"("rope_type": "dynamic", "factor": 0.5)", "position_factor: is 0.5"},
           {llama3, "\"low_freq_factor\" is absent, expected a number"},
           {llama3 + R"(, "low_freq_factor": 1)", "\"high_freq_factor\" is absent, expected a number"},
           {llama3 + R"(, "low_freq_factor": 1, "high_freq_factor": 1)",
            "scaling.high_freq_factor: is 1.000000, must be above low_freq_factor 1.000000"},
           {llama3 + R"(, "low_freq_factor": 0, "high_freq_factor": 1)", "scaling.low_freq_factor: is 0"},
           {llama3 + R"(, "low_freq_factor": 1, "high_freq_factor": 4, "beta_fast": 3)",
            "\"beta_fast\" is 3, expected no such key"},
           {yarn + R"(, "beta_fast": 1, "beta_slow": 2)", "scaling.beta_fast: is 1.000000, must be above"},
           {yarn + R"(, "attention_factor": 0)", "\"attention_factor\" is 0, expected above 0"},
           {yarn + R"(, "attention_factor": -1)", "scaling.attention_factor: is -1"},
           {yarn + R"(, "mscale": -1, "mscale_all_dim": 1)", "scaling.mscale: is -1"},
           {yarn + R"(, "truncate": null)", "\"truncate\" is absent, expected true or false"},
           {yarn + R"(, "truncate": 0)", "\"truncate\" is 0, expected true or false"},
           {yarn + R"(, "original_max_position_embeddings": 0)",
            "\"original_max_position_embeddings\" is 0, expected a whole number"},
           {R"("rope_type": "longrope", "long_factor": [1, 1, 1, 1])",
            "\"short_factor\" is absent, expected a list of numbers"},
           {R"("rope_type": "longrope", "short_factor": [1, 1, 1, "1"], "long_factor": [1, 1, 1, 1])",
            "\"short_factor\" is [1,1,1,\"1\"], expected a list of numbers"},
           {R"("rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1])",
            "scaling.long_factor: has 3 numbers, a head of 8 has 4 pairs"},
           {R"("rope_type": "longrope", "short_factor": [1, 1, 0, 1], "long_factor": [1, 1, 1, 1])",
            "scaling.short_factor: is 0"}}) {
    INFO(r.rope);
    CHECK_THAT(made::message([&] { parse_config(text_with(8, 64, "{" + r.rope + "}"), "file"); }),
               ContainsSubstring("load_llama: file") && ContainsSubstring(r.message));
  }
  auto j =
      nlohmann::json::parse(text_with(8, 64, "{" + yarn + R"(, "original_max_position_embeddings": 32})"));
  j["original_max_position_embeddings"] = 32;  // where Phi-3 has it
  CHECK(parse_config(j.dump(), "file").original_context() == 32);
  j["original_max_position_embeddings"] = 16;
  CHECK_THAT(made::message([&] { parse_config(j.dump(), "file"); }),
             ContainsSubstring("\"original_max_position_embeddings\" is 16, expected 32"));
  config c = made::tiny();
  c.beyond = position_policy::linear;
  c.scaling.original_context = 8;
  CHECK_THROWS_WITH(check(c, "f"), "f: scaling: is set, which positions of policy linear do not read");
}

#endif
