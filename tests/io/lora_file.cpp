#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/lora_file.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

lora_options some() {
  lora_options o;
  o.rank = 3;
  o.alpha = 6;
  o.adapted = {true, false, true, false, false, false, true};
  return o;
}

template <class Edit>
std::string edited(Edit&& edit) {
  auto j = nlohmann::json::parse(adapter_config_text(made::tiny(), some()));
  edit(j);
  return j.dump();
}

bool same(const lora_options& a, const lora_options& b) {
  return a.rank == b.rank && a.alpha == b.alpha && a.adapted == b.adapted && a.first_layer == b.first_layer &&
         a.layers == b.layers;
}

}  // namespace

TEST_CASE("adapters are saved under the names and shapes of PEFT and come back bit by bit") {
  const folder f;
  const config c = made::tiny();
  const lora_map map(c, some());
  const auto theta = made::counted<float>(map.size());
  save_lora<float>(f.path / "sub", c, map, theta, "a base");
  const safetensors s(byte_source::open(f.path / "sub" / "adapter_model.safetensors", "reader"));
  const std::string layer = "base_model.model.model.layers.1.";
  CHECK(s.tensors().size() == 2 * 3 * 2);
  CHECK(s.at(layer + "self_attn.q_proj.lora_A.weight").shape == std::vector<index_t>{3, 8});
  CHECK(s.at(layer + "self_attn.q_proj.lora_B.weight").shape == std::vector<index_t>{8, 3});
  CHECK(s.at(layer + "self_attn.v_proj.lora_B.weight").shape == std::vector<index_t>{4, 3});
  CHECK(s.at(layer + "mlp.down_proj.lora_A.weight").shape == std::vector<index_t>{3, 10});
  const auto j = nlohmann::json::parse(read_file(f.path / "sub" / "adapter_config.json"));
  CHECK(j["peft_type"] == "LORA");
  CHECK(j["r"] == 3);
  CHECK(j["lora_alpha"] == 6);
  CHECK(j["target_modules"] == nlohmann::json({"q_proj", "v_proj", "down_proj"}));
  CHECK(j["layers_to_transform"].is_null());
  CHECK(j["base_model_name_or_path"] == "a base");

  const auto back = load_lora<float>(f.path / "sub", c);
  CHECK(same(back.map.options(), map.options()));
  CHECK(made::same_bits(back.theta, theta));
  const auto wide = load_lora<double>(f.path / "sub", c);
  CHECK(std::equal(theta.begin(), theta.end(), wide.theta.begin()));
  save_lora<double>(f.path / "wide", c, map, wide.theta);
  CHECK(made::same_bits(load_lora<float>(f.path / "wide", c).theta, theta));
}

TEST_CASE("adapters one by one come back, also where all are alike and where no lora_alpha gives the scale") {
  const config c = made::tiny();
  for (const double scale : {2.0, 0.003, 1 / 3.0})
    for (const bool alike : {true, false}) {
      const folder f;
      lora_options o;
      o.modules = {{0, layer_matrix::q, 3, scale}, {1, layer_matrix::q, alike ? 3 : 2, scale}};
      const lora_map map(c, o);
      const auto theta = made::counted<float>(map.size());
      save_lora<float>(f.path, c, map, theta);
      const auto back = load_lora<float>(f.path, c);
      CHECK(made::same_bits(back.theta, theta));
      for (const index_t i : {0, 1})
        CHECK(back.map.at(i, layer_matrix::q).scale == Approx(scale).epsilon(1e-15));
    }
}

TEST_CASE("the numbers of an adapter lie one row of A or B after another, as in the file") {
  const folder f;
  const config c = made::tiny();
  const lora_map map(c, some());
  parameters<float> theta(map.size());
  const auto at = map.at(1, layer_matrix::v);
  theta[at.a + 2 * 8 + 5] = 7;  // A[2][5]
  theta[at.b + 3 * 3 + 1] = 9;  // B[3][1]
  save_lora<float>(f.path, c, map, theta);
  const safetensors s(byte_source::open(f.path / "adapter_model.safetensors", "reader"));
  const std::string name = "base_model.model.model.layers.1.self_attn.v_proj.lora_";
  std::vector<float> x(1);
  s.read(name + "A.weight", 2 * 8 + 5, view<float>(x));
  CHECK(x[0] == 7);
  s.read(name + "B.weight", 3 * 3 + 1, view<float>(x));
  CHECK(x[0] == 9);
}

TEST_CASE("adapters on some of the layers, with any prefix, come back") {
  const folder f;
  config c = made::tiny();
  c.layers = 5;
  for (const index_t layers : {1, 3}) {
    lora_options o = some();
    o.rank = 1;
    o.first_layer = 1;
    o.layers = layers;
    const lora_map map(c, o, "encoder.");
    const auto theta = made::counted<float>(map.size());
    save_lora<float>(f.path, c, map, theta);
    const auto back = load_lora<float>(f.path, c);
    CHECK(same(back.map.options(), map.options()));
    CHECK(made::same_bits(back.theta, theta));
  }
  CHECK_THROWS_WITH(
      load_lora<float>(f.path, made::tiny()),
      ContainsSubstring("\"layers_to_transform\" is [1,2,3], expected layers of the model, which has 2"));
}

TEST_CASE("files of adapters hold the rows of halves whichever pairs the model turns") {
  const folder f;
  config halves = made::tiny();
  halves.head_dim = 4;
  config neighbours = halves;
  neighbours.pairs = rope_pairs::neighbours;
  lora_options o = some();
  o.adapted = {true, true, true, true, true, true, true};
  const lora_map map(halves, o);
  const auto theta = made::counted<float>(map.size());
  save_lora<float>(f.path, neighbours, map, theta);
  CHECK(made::same_bits(load_lora<float>(f.path, neighbours).theta, theta));
  const auto turned = load_lora<float>(f.path, halves).theta;
  // scale B A of W_Q or W_K added to the weights and then reordered is the reordered adapter added
  auto expected = theta;
  for (index_t l = 0; l < 2; ++l)
    for (const auto m : {layer_matrix::q, layer_matrix::k})
      for (index_t h = 0; h < (m == layer_matrix::q ? 4 : 2); ++h)
        for (index_t i = 0; i < 2; ++i)
          for (index_t k = 0; k < 3; ++k) {
            const index_t base = map.at(l, m).b + h * 4 * 3 + k;
            expected[base + i * 3] = theta[base + 2 * i * 3];
            expected[base + (i + 2) * 3] = theta[base + (2 * i + 1) * 3];
          }
  CHECK(made::same_bits(turned, expected));
  CHECK_FALSE(made::same_bits(turned, theta));
}

TEST_CASE("adapters saved over others of the same shape are never read with the config of those") {
  const folder f;
  const config c = made::tiny();
  lora_options o = some();
  const lora_map map(c, o);
  save_lora<float>(f.path, c, map, made::counted<float>(map.size()));
  const std::string before = read_file(f.path / "adapter_config.json");
  o.alpha = 12;
  save_lora<float>(f.path, c, lora_map(c, o), parameters<float>(map.size()));
  CHECK(load_lora<float>(f.path, c).map.options().alpha == 12);
  write_file(f.path / "adapter_config.json", before);  // as a save that ended between the two files
  CHECK_THROWS_WITH(load_lora<float>(f.path, c),
                    ContainsSubstring("adapter_model.safetensors\": was written with other options") &&
                        ContainsSubstring("lora_alpha 12.0") && ContainsSubstring("lora_alpha 6.0"));
}

TEST_CASE("an adapter_config.json is read with the defaults of its format") {
  using json = nlohmann::json;
  const config c = made::tiny();
  const auto of = [&](auto edit) { return parse_adapter_config(edited(edit), c, "file"); };
  CHECK(same(of([](json&) {}), some()));
  CHECK(of([](json& j) { j.erase("lora_alpha"); }).alpha == 8);
  CHECK(of([](json& j) { j["r"] = 4, j["use_rslora"] = true; }).alpha == 12);
  CHECK(of([](json& j) { j["target_modules"] = "all-linear"; }).adapted ==
        std::array<bool, 7>{true, true, true, true, true, true, true});
  CHECK(of([](json& j) {
          j["target_modules"] = {"mlp.up_proj", "k_proj"};
        }).adapted == std::array<bool, 7>{false, true, false, false, false, true, false});
  CHECK(of([](json& j) { j["layers_to_transform"] = 1; }).first_layer == 1);
  CHECK(of([](json& j) { j["layers_to_transform"] = {1, 0}; }).layers == 2);
  CHECK(same(of([](json& j) { j["layers_to_transform"] = json::array(); }), some()));
  for (const json& pattern : {json("layers"), json::array({"layers"}), json::array()})
    CHECK(of([&](json& j) { j["layers_to_transform"] = 1, j["layers_pattern"] = pattern; }).first_layer == 1);
  CHECK(
      same(of([](json& j) { j["rank_pattern"] = json::object(), j["modules_to_save"] = nullptr; }), some()));
  for (const json& kind : {json(true), json(false), json("gaussian"), json("orthogonal"), json("eva"),
                           json("mica"), json(nullptr)})
    CHECK(same(of([&](json& j) { j["init_lora_weights"] = kind; }), some()));
  const auto named = of([](json& j) {
    j["target_modules"] = {"model.layers.1.mlp.up_proj", "layers.1.self_attn.q_proj"};
  });
  CHECK(named.adapted == std::array<bool, 7>{true, false, false, false, false, true, false});
  CHECK(named.first_layer == 1);
  CHECK(named.layers == 1);
}

TEST_CASE("an adapter_config.json that PEFT wrote for all linear layers is read") {
  // what peft 0.21.2 saves of LoraConfig(r=3, target_modules="all-linear")
  nlohmann::json j = nlohmann::json::parse(R"({"alora_invocation_tokens": null, "alpha_pattern": {},
    "arrow_config": null, "auto_mapping": null, "base_model_name_or_path": "base", "bias": "none",
    "corda_config": null, "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null,
    "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "kasa_config": null,
    "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {},
    "lora_alpha": 4, "lora_bias": false, "lora_dropout": 0.0, "lora_ga_config": null,
    "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
    "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16,
    "r": 3, "rank_pattern": {}, "revision": null, "target_modules": [], "target_parameters": null,
    "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
    "use_qalora": false, "use_rslora": false, "velora_config": null})");
  const config c = made::tiny();
  for (index_t layer = c.layers; layer-- > 0;)
    for (const char* name : layer_matrix_names)
      j["target_modules"].push_back("model.layers." + std::to_string(layer) + "." + name);
  const auto o = parse_adapter_config(j.dump(), c, "file");
  CHECK(o.adapted == std::array<bool, 7>{true, true, true, true, true, true, true});
  CHECK(lora_map(c, o).options().layers == 2);
  CHECK(o.first_layer == 0);
  CHECK(o.rank == 3);
  CHECK(o.alpha == 4);
  j["target_modules"].erase(3);
  CHECK(parse_adapter_config(j.dump(), c, "file").modules.size() == 13);
}

TEST_CASE("adapters that mean something else are refused by member") {
  using json = nlohmann::json;
  struct row {
    void (*edit)(json&);
    const char* message;
  };
  for (const row& r : std::initializer_list<row>{
           {[](json& j) { j = 1; }, "is no JSON object"},
           {[](json& j) { j["peft_type"] = "LOHA"; }, "\"peft_type\" is \"LOHA\", expected \"LORA\""},
           {[](json& j) { j.erase("peft_type"); }, "\"peft_type\" is absent"},
           {[](json& j) { j["bias"] = "all"; }, "\"bias\" is \"all\", expected \"none\""},
           {[](json& j) { j["fan_in_fan_out"] = true; }, "\"fan_in_fan_out\" is true, expected false"},
           {[](json& j) { j["use_dora"] = true; }, "\"use_dora\" is true, expected false"},
           {[](json& j) {
              j["rank_pattern"] = {{"q_proj", 0}};
            },
            "\"rank_pattern\" is {\"q_proj\":0}, expected a rank up to 65536"},
           {[](json& j) {
              j["rank_pattern"] = {{"q_proj", 2.5}};
            },
            "\"rank_pattern\" is {\"q_proj\":2.5}, expected a rank up to 65536"},
           {[](json& j) {
              j["alpha_pattern"] = {{"q_proj", "4"}};
            },
            "\"alpha_pattern\" is {\"q_proj\":\"4\"}, expected an object of numbers by names"},
           {[](json& j) {
              j["alpha_pattern"] = {{"v_proj", 2e6}};
            },
            "\"alpha_pattern\" is {\"v_proj\":2000000.0}, expected a number up to 10^6"},
           {[](json& j) {
              j["alpha_pattern"] = {{"v_proj", 2}, {"(?i)Q_PROJ", 2}};
            },
            "expected a regular expression that std::regex reads as Python does: \"(?i)Q_PROJ\" has \"(?i\" "
            "at "
            "character 1"},
           {[](json& j) { j["lora_bias"] = true, j["init_lora_weights"] = "gaussian"; },
            "\"lora_bias\" is true, expected false beside that init_lora_weights"},
           {[](json& j) { j["modules_to_save"] = {"lm_head"}; }, "\"modules_to_save\" is [\"lm_head\"]"},
           {[](json& j) { j["exclude_modules"] = "(?<!k)q_proj"; },
            "\"exclude_modules\" is \"(?<!k)q_proj\", expected a regular expression that std::regex reads as "
            "Python "
            "does: \"(?<!k)q_proj\" has \"(?<!\" at character 1"},
           {[](json& j) { j["exclude_modules"] = ".*"; },
            "\"target_modules\" is [\"q_proj\",\"v_proj\",\"down_proj\"], expected a matrix of the model, "
            "which none is"},
           {[](json& j) { j.erase("r"); }, "lacks \"r\""},
           {[](json& j) { j["r"] = 0; }, "\"r\" is 0, expected a whole number"},
           {[](json& j) { j["r"] = 1 << 20; }, "\"r\" is 1048576, expected a rank up to 65536"},
           {[](json& j) { j["lora_alpha"] = "16"; }, "\"lora_alpha\" is \"16\", expected a number"},
           {[](json& j) { j["lora_alpha"] = 1e300; }, "\"lora_alpha\" is 1e+300"},
           {[](json& j) { j.erase("target_modules"); }, "\"target_modules\" is absent"},
           {[](json& j) { j["target_modules"] = json::array(); }, "\"target_modules\" is []"},
           {[](json& j) { j["target_modules"] = "q_proj"; },
            "\"target_modules\" is \"q_proj\", expected a matrix of"},
           {[](json& j) { j["target_modules"] = ".*layers\\.0.*"; }, "it takes \"model.layers.0\""},
           {[](json& j) { j["target_modules"] = ".*q_proj", j["layers_to_transform"] = 1; },
            "\"layers_to_transform\" is 1, expected null beside a regular expression"},
           {[](json& j) {
              j["target_modules"] = {"q_proj", "lm_head"};
            },
            "expected \"lm_head\" to be one of q_proj"},
           {[](json& j) { j["target_modules"] = {"model.layers.2.self_attn.q_proj"}; },
            "expected \"model.layers.2.self_attn.q_proj\" to be one of q_proj, k_proj, v_proj, o_proj, "
            "gate_proj, up_proj, down_proj, alone or of a layer up to 1"},
           {[](json& j) { j["target_modules"] = {"layers.01.self_attn.q_proj"}; }, "to be one of q_proj"},
           {[](json& j) { j["target_modules"] = {"layers.0.q_proj"}; }, "to be one of q_proj"},
           {[](json& j) { j["target_modules"] = {"layers..self_attn.q_proj"}; }, "to be one of q_proj"},
           {[](json& j) { j["init_lora_weights"] = "pissa"; },
            "\"init_lora_weights\" is \"pissa\", expected true, false, \"gaussian\""},
           {[](json& j) { j["init_lora_weights"] = "pissa_niter_4"; }, "\"init_lora_weights\" is"},
           {[](json& j) { j["init_lora_weights"] = "olora"; }, "\"init_lora_weights\" is"},
           {[](json& j) { j["init_lora_weights"] = "corda"; }, "\"init_lora_weights\" is"},
           {[](json& j) { j["init_lora_weights"] = "lora_ga"; }, "\"init_lora_weights\" is"},
           {[](json& j) { j["init_lora_weights"] = "loftq"; }, "\"init_lora_weights\" is"},
           {[](json& j) { j["init_lora_weights"] = 1; }, "\"init_lora_weights\" is 1, expected a text"},
           {[](json& j) {
              j["alora_invocation_tokens"] = {3, 28};
            },
            "\"alora_invocation_tokens\" is [3,28], expected nothing"},
           {[](json& j) {
              j["arrow_config"] = {{"top_k", 3}};
            },
            "\"arrow_config\" is"},
           {[](json& j) {
              j["kasa_config"] = {{"beta", 1}};
            },
            "\"kasa_config\" is"},
           {[](json& j) {
              j["monteclora_config"] = {{"a", 1}};
            },
            "\"monteclora_config\" is"},
           {[](json& j) {
              j["velora_config"] = {{"a", 1}};
            },
            "\"velora_config\" is"},
           {[](json& j) {
              j["use_bdlora"] = {{"nblocks", 2}};
            },
            "\"use_bdlora\" is"},
           {[](json& j) { j["layers_pattern"] = "blocks"; }, "\"layers_pattern\" is \"blocks\""},
           {[](json& j) {
              j["megatron_config"] = {{"a", 1}};
            },
            "\"megatron_config\" is"},
           {[](json& j) { j["lorA_alpha"] = 32, j.erase("lora_alpha"); },
            "\"lorA_alpha\" is 32, expected no such key"},
           {[](json& j) { j["target_modules"] = {1}; }, "expected names among q_proj"},
           {[](json& j) {
              j["layers_to_transform"] = {0, 2};
            },
            "expected layers of the model, which has 2"},
           {[](json& j) { j["layers_to_transform"] = {-1}; }, "expected layers of the model"},
           {[](json& j) { j["layers_to_transform"] = "all"; }, "expected layers of the model"}}) {
    const std::string text = edited(r.edit);
    INFO(text);
    CHECK_THAT(made::message([&] { parse_adapter_config(text, made::tiny(), "file"); }),
               ContainsSubstring("load_lora: file") && ContainsSubstring(r.message));
  }
}

TEST_CASE("adapters that contradict their config or the model are refused by tensor") {
  const folder f;
  const config c = made::tiny();
  const lora_map map(c, some());
  auto theta = made::counted<float>(map.size());
  save_lora<float>(f.path, c, map, theta);
  const auto with = [&](auto edit) {
    write_file(f.path / "adapter_config.json", edited(edit));
    return made::message([&] { load_lora<float>(f.path, c); });
  };
  using json = nlohmann::json;
  CHECK(with([](json&) {}).empty());
  CHECK_THAT(
      with([](json& j) { j["r"] = 4; }),
      ContainsSubstring("adapter_model.safetensors\": tensor \"base_model.model.model.layers.0.self_attn."
                        "q_proj.lora_A.weight\" has shape [3, 8], the config needs [4, 8]"));
  CHECK_THAT(
      with([](json& j) {
        j["target_modules"] = {"q_proj", "k_proj"};
      }),
      ContainsSubstring("lacks tensor \"base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight\""));
  CHECK_THAT(with([](json& j) { j["target_modules"] = {"q_proj"}; }),
             ContainsSubstring("is none of the model"));
  config other = c;
  other.hidden = 16;
  CHECK_THROWS_WITH(load_lora<float>(f.path, other), ContainsSubstring("the config needs [3, 16]"));
  theta[2] = std::nanf("");
  save_lora<float>(f.path, c, map, theta);
  CHECK_THROWS_WITH(load_lora<float>(f.path, c), ContainsSubstring("lora_A.weight\" is nan at [0, 2]"));
  CHECK(std::isnan(load_lora<float>(f.path, c, {.allow_non_finite = true}).theta[2]));
  std::filesystem::remove(f.path / "adapter_model.safetensors");
  CHECK_THROWS_WITH(load_lora<float>(f.path, c),
                    ContainsSubstring("adapter_model.safetensors\": does not exist"));
  write_file(f.path / "adapter_model.bin", "x");
  CHECK_THROWS_WITH(load_lora<float>(f.path, c),
                    ContainsSubstring("adapter_model.bin\": is a file of torch, which is not read"));
  parameters<double> beyond(map.size());
  beyond[0] = 1e300;
  CHECK_THROWS_WITH(save_lora<double>(f.path, c, map, beyond),
                    ContainsSubstring((f.path / "adapter_model.safetensors").string()) &&
                        ContainsSubstring("beyond the floats"));
  CHECK_THROWS_WITH(save_lora<float>(f.path, c, map, parameters<float>(1)),
                    ContainsSubstring("lora_bytes: theta"));
}

#endif
