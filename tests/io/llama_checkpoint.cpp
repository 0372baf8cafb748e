#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/llama_checkpoint.hpp"

#include <fstream>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"
#include "unroll/io/weight_hash.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

// Number `i` of row `row` of the tensor `kind` of a layer: every place has its own, exact in float.
float place(int kind, int layer, int row, int i) {
  return float(kind * 4096 + layer * 1024 + row * 32 + i) / 8;
}

// An original checkpoint with the shape of made::tiny(), written out as the format is described.
std::string bin(bool tied) {
  const int hidden = 8, mlp = 10, layers = 2, heads = 4, kv_heads = 2, head = 2, vocabulary = 11,
            context = 16;
  std::string out = made::raw<std::int32_t>(
      {hidden, mlp, layers, heads, kv_heads, tied ? vocabulary : -vocabulary, context});
  const auto matrix = [&](int kind, int layer, int rows, int width) {
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i) out += made::raw<float>({place(kind, layer, r, i)});
  };
  const auto block = [&](int kind, int rows, int width) {
    for (int l = 0; l < layers; ++l) matrix(kind, l, rows, width);
  };
  matrix(0, 0, vocabulary, hidden);
  block(1, 1, hidden);
  block(2, heads * head, hidden);
  block(3, kv_heads * head, hidden);
  block(4, kv_heads * head, hidden);
  block(5, hidden, heads * head);
  block(6, 1, hidden);
  block(7, mlp, hidden);
  block(8, hidden, mlp);
  block(9, mlp, hidden);
  matrix(10, 0, 1, hidden);
  for (int i = 0; i < context * head; ++i) out += made::raw<float>({std::nanf("")});  // passed over
  if (!tied) matrix(11, 0, vocabulary, hidden);
  return out;
}

template <class T = float>
pretrained<T> parse_bin(const std::string& bytes, load_options options = {}) {
  return load_bin<T>(byte_source::memory(bytes, "file", "load_llama"), options);
}

template <class T>
void check_bin(const pretrained<T>& model) {
  const weight_map map(model.shape);
  REQUIRE(model.weights.size() == map.size());
  const auto check = [&](index_t offset, int kind, int layer, int rows, int width) {
    index_t wrong = 0;
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i)
        if (model.weights[offset + r * width + i] != T(place(kind, layer, r, i))) ++wrong;
    INFO("kind " << kind << " layer " << layer);
    CHECK(wrong == 0);
  };
  check(map.embedding(), 0, 0, 11, 8);
  for (int l = 0; l < 2; ++l) {
    check(map[l].attention_norm, 1, l, 1, 8);
    check(map[l].q, 2, l, 8, 8);
    check(map[l].k, 3, l, 4, 8);
    check(map[l].v, 4, l, 4, 8);
    check(map[l].o, 5, l, 8, 8);
    check(map[l].mlp_norm, 6, l, 1, 8);
    check(map[l].gate, 7, l, 10, 8);
    check(map[l].down, 8, l, 8, 10);
    check(map[l].up, 9, l, 10, 8);
  }
  check(map.norm(), 10, 0, 1, 8);
  if (!model.shape.tied) check(map.output(), 11, 0, 11, 8);
}

// A config.json of made::tiny() in the spelling of transformers 4 after `edit`.
template <class Edit>
std::string edited(Edit&& edit) {
  auto j = nlohmann::json::parse(config_text(made::tiny()));
  j.erase("rope_parameters");
  j["rope_theta"] = 1e4;
  j["rope_scaling"] = nullptr;
  edit(j);
  return j.dump();
}

tensor_files files_of(const std::string& bytes) {
  std::vector<safetensors> files;
  files.emplace_back(byte_source::memory(bytes, "file", "load_llama"));
  return tensor_files(std::move(files));
}

// What load_tensors says about the tensors of made::tiny() after `edit`.
template <class Edit>
std::string refusal(const config& c, Edit&& edit, bool stored_tied = true) {
  const weight_map map(made::tiny(stored_tied));
  auto tensors = made::tensors(map, made::counted<float>(map.size()));
  edit(tensors);
  const std::string bytes = made::safetensors(tensors);
  return made::message([&] { load_tensors<float>(c, files_of(bytes)); });
}

made::tensor& named(std::vector<made::tensor>& tensors, const std::string& name) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
}

// The most memory that `work` held beyond what there was before, in bytes; -1 where it cannot be measured.
template <class Work>
std::int64_t peak_bytes(Work&& work) {
#if defined(__SANITIZE_ADDRESS__)
  return -1;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  return -1;
#endif
#endif
  const auto status = [](const std::string& key) {
    std::ifstream in("/proc/self/status");
    for (std::string word; in >> word;)
      if (std::int64_t kib = 0; word == key && in >> kib) return 1024 * kib;
    return std::int64_t{-1};
  };
  if (!(std::ofstream("/proc/self/clear_refs") << "5" << std::flush)) return -1;  // the peak begins anew
  const std::int64_t before = status("VmRSS:");
  work();
  return before < 0 ? -1 : status("VmHWM:") - before;
}

}  // namespace

TEST_CASE("an original checkpoint puts every number where its description says") {
  for (const bool tied : {true, false}) {
    config expected = made::tiny(tied);
    expected.pairs = rope_pairs::neighbours;
    const std::string bytes = bin(tied);
    const auto model = parse_bin(bytes);
    CHECK(model.shape == expected);
    check_bin(model);
    check_bin(parse_bin<double>(bytes));
    const folder f;
    write_file(f.path / "a.bin", bytes);
    check_bin(load_llama<float>(f.path / "a.bin"));
  }
}

TEST_CASE("original checkpoints of a wrong size or header are refused with both values") {
  const std::string good = bin(true);
  const std::string needs = "its header needs " + std::to_string(good.size());
  CHECK_THROWS_WITH(parse_bin(good.substr(0, 27)),
                    ContainsSubstring("has 27 bytes, the header alone has 28"));
  CHECK_THROWS_WITH(parse_bin(good.substr(0, 28)), ContainsSubstring("has 28 bytes, " + needs));
  CHECK_THROWS_WITH(
      parse_bin(good.substr(0, good.size() - 1)),
      ContainsSubstring("load_llama: file: has " + std::to_string(good.size() - 1) + " bytes, " + needs));
  CHECK_THROWS_WITH(parse_bin(good + "x"), ContainsSubstring(needs));
  const auto with = [&](int field, std::int32_t value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + 4 * field, &value, 4);
    return made::message([&] { parse_bin(bytes); });
  };
  CHECK_THAT(with(5, -11), ContainsSubstring("its header needs " + std::to_string(bin(false).size())));
  CHECK_THAT(with(0, 0), ContainsSubstring("hidden: is 0"));
  CHECK_THAT(with(0, 9), ContainsSubstring("hidden size 9 and 4 heads"));
  CHECK_THAT(with(1, -1), ContainsSubstring("file: intermediate_size: is -1, must be from 1 to 2^31"));
  CHECK_THAT(with(2, 1 << 30), ContainsSubstring("its header needs"));  // no names for so many layers
  CHECK_THAT(with(3, 0), ContainsSubstring("0 heads"));
  CHECK_THAT(with(3, -4), ContainsSubstring("-4 heads"));
  CHECK_THAT(with(3, 8), ContainsSubstring("head_dim: is 1, must be even"));
  CHECK_THAT(with(4, 3), ContainsSubstring("not a multiple of the 3 key-value heads"));
  CHECK_THAT(with(5, 0), ContainsSubstring("vocabulary: is 0"));
  CHECK_THAT(with(5, std::numeric_limits<std::int32_t>::min()), ContainsSubstring("its header needs"));
  CHECK_THAT(with(6, 0), ContainsSubstring("context: is 0"));
  CHECK_THAT(with(6, 17), ContainsSubstring("its header needs " + std::to_string(good.size() + 8)));
  const std::int32_t most = std::numeric_limits<std::int32_t>::max();
  const std::string huge = made::raw<std::int32_t>({most - 1, most, most, 1, 1, -most, most});
  CHECK_THROWS_WITH(parse_bin(huge), ContainsSubstring("its header needs more than 10^15"));
}

TEST_CASE("files of other formats are named as what they are") {
  const folder f;
  const auto refuses = [&](const std::string& first, const char* what) {
    const std::string expected = std::string("is ") + what + ", which is not read here";
    const std::string bytes = first + std::string(300, '\0');
    CHECK_THROWS_WITH(parse_bin(bytes), ContainsSubstring("load_llama: file: " + expected));
    if (std::string(what) == "a safetensors file") return;
    CHECK_THROWS_WITH(files_of(bytes), ContainsSubstring("load_llama: file: " + expected));
  };
  refuses("24ka" + made::raw<std::int32_t>({0, 64}), "a llama2.c file of version 0 (magic number \"ak42\")");
  refuses("24ka" + made::raw<std::int32_t>({3, 64}), "a llama2.c file of version 3 (magic number \"ak42\")");
  refuses("GGUF\x03", "a GGUF file");
  refuses("tjgg\x03", "a GGML file, from before GGUF");
  refuses("PK\x03\x04\x14", "a zip archive, as torch.save and numpy.savez write");
  refuses("\x80\x02\x8a\x0a", "a pickle of Python, as old versions of torch.save write");
  refuses("\x1f\x8b\x08", "a file packed by gzip");
  refuses("\x89HDF\r\n", "an HDF5 file");
  refuses("\x93NUMPY", "a .npy file");
  refuses("UNROLLCP", "a checkpoint of a training run");
  refuses("version https://git-lfs.github.com/spec/v1\n",
          "a pointer of Git LFS, without the file that it stands for");
  refuses("<!DOCTYPE html>", "a page of HTML");
  const weight_map map(made::tiny());
  refuses(made::safetensors(made::tensors(map, parameters<float>(map.size()))), "a safetensors file");
  // hidden sizes whose bytes could be taken for a magic number
  for (const std::int32_t hidden : {0x280, 0x380, 0x480, 0x580})
    CHECK(file_kind(made::raw<std::int32_t>({hidden, 1024, 2, 4, 2, 11, 16})).empty());
  CHECK(file_kind(bin(true)).empty());
  CHECK(file_kind("").empty());
  // folders with the files of torch only
  write_file(f.path / "config.json", config_text(made::tiny()));
  write_file(f.path / "pytorch_model.bin", "x");
  CHECK_THROWS_WITH(load_llama<float>(f.path),
                    ContainsSubstring("pytorch_model.bin\": is a file of torch, which is not read"));
}

TEST_CASE("a weight that is not a number is refused by tensor and position, or allowed") {
  std::string bytes = bin(true);
  const std::size_t down = 28 + 4 * (11 * 8 + 2 * 8 + 2 * (64 + 32 + 32 + 64) + 2 * 8 + 2 * 80);
  const float nan = std::nanf("");
  std::memcpy(bytes.data() + down + 4 * (80 + 3 * 10 + 4), &nan, 4);  // layer 1, row 3
  const std::string message = "tensor \"model.layers.1.mlp.down_proj.weight\" is nan at [3, 4]";
  CHECK_THROWS_WITH(parse_bin(bytes), ContainsSubstring(message));
  CHECK_THROWS_WITH(parse_bin<double>(bytes), ContainsSubstring(message));
  const auto model = parse_bin(bytes, {.allow_non_finite = true});
  CHECK(std::isnan(model.weights[weight_map(model.shape)[1].down + 34]));
}

TEST_CASE("a model is saved as a folder and comes back bit by bit") {
  const folder f;
  for (const bool tied : {true, false}) {
    config c = made::tiny(tied);
    c.head_dim = 4;  // hidden is not heads * head
    c.norm_epsilon = 3e-6;
    c.rope_base = 123456.789;
    c.beyond = tied ? position_policy::linear : position_policy::refuse;
    c.position_factor = tied ? 2.5 : 1;
    const auto w = made::counted<float>(weight_map(c).size());
    save_llama<float>(f.path / "sub" / "model", c, w);
    const auto back = load_llama<float>(f.path / "sub" / "model");
    CHECK(back.shape == c);
    CHECK(made::same_bits(back.weights, w));
    CHECK(std::equal(w.begin(), w.end(), load_llama<double>(f.path / "sub" / "model").weights.begin()));
    const auto wide = made::counted<double>(w.size());
    save_llama<double>(f.path / "wide", c, wide);
    CHECK(made::same_bits(load_llama<double>(f.path / "wide").weights, wide));
  }
  config c = made::tiny();
  const auto w = made::counted<float>(weight_map(c).size());
  CHECK_THROWS_WITH(save_llama<float>(f.path, made::tiny(false), w),
                    ContainsSubstring("save_llama: weights"));
  c.beyond = position_policy::ntk;
  CHECK_THROWS_WITH(save_llama<float>(f.path, c, w),
                    ContainsSubstring("is ntk, which config.json cannot say"));
  write_file(f.path / "file", "");
  CHECK_THROWS_WITH(save_llama<float>(f.path / "file" / "x", made::tiny(), w),
                    ContainsSubstring("cannot be made"));
}

TEST_CASE("where weights cannot be written, the configuration in the folder stays") {
  const folder f;
  config c = made::tiny();
  const auto w = made::counted<float>(weight_map(c).size());
  save_llama<float>(f.path, c, w);
  const std::string before = read_file(f.path / "config.json");
  std::filesystem::remove(f.path / "model.safetensors");
  std::filesystem::create_directory(f.path / "model.safetensors");
  c.norm_epsilon = 3e-6;
  CHECK_THROWS_WITH(save_llama<float>(f.path, c, w), ContainsSubstring("is a folder"));
  CHECK(read_file(f.path / "config.json") == before);
  std::filesystem::remove(f.path / "model.safetensors");
  save_llama<float>(f.path, c, w);
  CHECK(load_llama<float>(f.path).shape == c);
}

TEST_CASE("a model saved over links replaces what they lead to, its configuration first") {
  const folder f;
  config c = made::tiny();
  const auto w = made::counted<float>(weight_map(c).size());
  save_llama<float>(f.path / "blobs", c, w);
  std::filesystem::create_directory(f.path / "snapshot");
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::create_symlink(std::filesystem::path("../blobs") / name, f.path / "snapshot" / name);
  c.rope_base = 5e5;
  save_llama<float>(f.path / "snapshot", c, w);
  CHECK(std::filesystem::is_symlink(f.path / "snapshot" / "config.json"));
  CHECK(std::filesystem::is_symlink(f.path / "snapshot" / "model.safetensors"));
  CHECK(load_llama<float>(f.path / "blobs").shape.rope_base == 5e5);
}

TEST_CASE("end tokens that a generation_config.json beside them would overrule are not written") {
  const folder f;
  const config c = made::tiny();
  const auto w = made::counted<float>(weight_map(c).size());
  const auto saved = [&](const char* beside, const text_ids& ids) {
    write_file(f.path / "generation_config.json", beside);
    return made::message([&] { save_llama<float>(f.path, c, w, ids); });
  };
  CHECK_THAT(saved("{\"eos_token_id\": 2}", {1, {5}}),
             ContainsSubstring("save_llama: ") &&
                 ContainsSubstring("generation_config.json\": \"eos_token_id\" is 2, expected [5]"));
  CHECK_THAT(saved("{\"eos_token_id\": 2}", {1, {2, 5}}), ContainsSubstring("expected [2,5]"));
  CHECK(f.entries() == 1);
  CHECK(saved("{\"eos_token_id\": 2}", {1, {2}}).empty());
  CHECK(saved("{\"eos_token_id\": [2]}", {1, {2}}).empty());
  CHECK(saved("{\"eos_token_id\": [2, 5]}", {1, {2, 5}}).empty());
  CHECK(saved("{\"eos_token_id\": 2}", {}).empty());
  CHECK(saved("{}", {1, {5}}).empty());
}

TEST_CASE("a config.json names what begins a text and each id that ends one") {
  const auto written = [](const text_ids& ids) {
    return nlohmann::json::parse(config_text(made::tiny(), ids));
  };
  CHECK(written({})["bos_token_id"].is_null());  // absent, transformers would take 1 and 2
  CHECK(written({})["eos_token_id"].is_null());
  CHECK(written({3, {2}})["bos_token_id"] == 3);
  CHECK(written({3, {2}})["eos_token_id"] == 2);
  CHECK(written({3, {2, 4}})["eos_token_id"] == nlohmann::json{2, 4});
  CHECK(parse_config(config_text(made::tiny(), {3, {2, 4}}), "file") == made::tiny());
  const auto beyond = token(made::tiny().vocabulary);
  CHECK_THROWS_WITH(written({beyond, {}}), ContainsSubstring("config_text: ids"));
  CHECK_THROWS_WITH(written({0, {1, beyond}}), ContainsSubstring("config_text: ids"));
}

TEST_CASE("rows of queries and keys are reordered between the conventions of rotary pairs") {
  config c = made::tiny();
  c.head_dim = 6;
  const weight_map map(c);
  const auto before = made::counted<float>(map.size());
  auto w = before;
  c.pairs = rope_pairs::neighbours;
  permute_rope_pairs<float>(c, w);
  CHECK(c.pairs == rope_pairs::halves);
  // row i <- row 2i, row i + head / 2 <- row 2i + 1 of every head; nothing else changes
  auto expected = before;
  for (index_t l = 0; l < c.layers; ++l)
    for (const auto& [offset, heads] : {std::pair(map[l].q, c.heads), std::pair(map[l].k, c.kv_heads)})
      for (index_t h = 0; h < heads; ++h)
        for (index_t i = 0; i < 3; ++i)
          for (index_t k = 0; k < c.hidden; ++k) {
            const index_t base = offset + h * 6 * c.hidden + k;
            expected[base + i * c.hidden] = before[base + 2 * i * c.hidden];
            expected[base + (i + 3) * c.hidden] = before[base + (2 * i + 1) * c.hidden];
          }
  CHECK(made::same_bits(w, expected));
  CHECK_FALSE(made::same_bits(w, before));

  // a model with neighbours is saved as its twin with halves
  const folder f;
  config other = c;
  other.pairs = rope_pairs::neighbours;
  save_llama<float>(f.path, other, before);
  const auto back = load_llama<float>(f.path);
  CHECK(back.shape == c);
  CHECK(made::same_bits(back.weights, expected));

  permute_rope_pairs<float>(c, w);
  CHECK(c == other);
  CHECK(made::same_bits(w, before));
  parameters<float> small(3);
  CHECK_THROWS_WITH(permute_rope_pairs<float>(c, small), ContainsSubstring("permute_rope_pairs: weights"));
}

TEST_CASE("a config.json is read with the defaults of its format") {
  const auto c = parse_config(R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 10,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 11, "max_position_embeddings": 16,
    "rope_scaling": null, "num_key_value_heads": null, "head_dim": null, "unknown": null,
    "pretraining_tp": 1, "_attn_implementation_autoset": true})",
                              "file");
  config expected = made::tiny(false);
  expected.kv_heads = 4;
  expected.norm_epsilon = 1e-6;
  CHECK(c == expected);
  using json = nlohmann::json;
  const auto of = [](auto edit) { return parse_config(edited(edit), "file"); };
  CHECK(of([](json&) {}) == made::tiny());
  CHECK(of([](json& j) { j.erase("model_type"); }) == made::tiny());
  CHECK(of([](json& j) { j.erase("architectures"); }) == made::tiny());
  CHECK(of([](json& j) { j["rope_scaling"] = {{"rope_type", "default"}}; }) == made::tiny());
  CHECK(of([](json& j) { j["head_dim"] = 6; }).head_dim == 6);
  const auto linear = of([](json& j) { j["rope_scaling"] = {{"type", "linear"}, {"factor", 4}}; });
  CHECK(linear.beyond == position_policy::linear);
  CHECK(linear.position_factor == 4);
  CHECK(linear.positions() == 64);
  const auto together = of([](json& j) {
    j.erase("rope_theta");
    j["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  });
  CHECK(together.rope_base == 5e5);
  CHECK(together.beyond == position_policy::refuse);
}

TEST_CASE("a config is written in the spelling of transformers 5") {
  config c = made::tiny();
  const auto written = [&] { return nlohmann::json::parse(config_text(c)); };
  CHECK(written()["rope_parameters"] == nlohmann::json({{"rope_type", "default"}, {"rope_theta", 1e4}}));
  CHECK(written()["dtype"] == "float32");
  for (const char* old : {"rope_theta", "rope_scaling", "torch_dtype"}) CHECK(!written().contains(old));
  c.beyond = position_policy::linear;
  c.position_factor = 4;
  c.rope_base = 5e5;
  CHECK(written()["rope_parameters"] ==
        nlohmann::json({{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 5e5}}));
  CHECK(parse_config(config_text(c), "file") == c);
}

TEST_CASE("rope_scaling hides rope_parameters and its base, as in transformers") {
  using json = nlohmann::json;
  const json parameters{{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 5e4}};
  const auto of = [&](json scaling, json theta) {
    return parse_config(edited([&](json& j) {
                          j["rope_scaling"] = scaling;
                          j["rope_parameters"] = parameters;
                          j.erase("rope_theta");
                          if (!theta.is_null()) j["rope_theta"] = theta;
                        }),
                        "file");
  };
  const auto is = [](const config& c, double factor, double base) {
    return c.position_factor == factor && c.rope_base == base;
  };
  const json linear{{"type", "linear"}, {"factor", 4}};
  CHECK(is(of(linear, nullptr), 4, 1e4));
  CHECK(is(of(linear, 7e4), 4, 7e4));
  json with_base = linear;
  with_base["rope_theta"] = 9e4;
  CHECK(is(of(with_base, 7e4), 4, 9e4));
  for (const json& nothing : {json(nullptr), json::object()}) {
    CHECK(is(of(nothing, nullptr), 2, 5e4));
    CHECK(is(of(nothing, 7e4), 2, 5e4));
  }
  const json both{{"type", "linear"}, {"rope_type", "default"}};  // rope_type counts
  CHECK(is(of(both, nullptr), 1, 1e4));
  CHECK(of(both, nullptr).beyond == position_policy::refuse);
}

TEST_CASE("a config.json of another model, or of one that no Llama is, is refused by member") {
  using json = nlohmann::json;
  struct row {
    void (*edit)(json&);
    const char* message;
  };
  for (const row& r : std::initializer_list<row>{
           {[](json& j) { j = json::array(); }, "is no JSON object"},
           {[](json& j) { j["architectures"] = {"GPT2LMHeadModel"}; },
            "\"architectures\" is [\"GPT2LMHeadModel\"], expected [\"LlamaForCausalLM\"]"},
           {[](json& j) { j["architectures"] = "LlamaForCausalLM"; }, "\"architectures\" is"},
           {[](json& j) { j["model_type"] = "mistral"; },
            "\"model_type\" is \"mistral\", expected \"llama\""},
           {[](json& j) { j.erase("model_type"), j.erase("architectures"); }, "\"model_type\" is absent"},
           {[](json& j) { j["model_type"] = 3; }, "\"model_type\" is 3, expected a text"},
           {[](json& j) { j["hidden_act"] = "gelu"; }, "\"hidden_act\" is \"gelu\", expected \"silu\""},
           {[](json& j) { j["attention_bias"] = true; }, "\"attention_bias\" is true, expected false"},
           {[](json& j) { j["mlp_bias"] = true; }, "\"mlp_bias\" is true, expected false"},
           {[](json& j) { j["mlp_bias"] = 0; }, "\"mlp_bias\" is 0, expected true or false"},
           {[](json& j) {
              j["quantization_config"] = {{"bits", 4}};
            },
            "\"quantization_config\" is {\"bits\":4}"},
           {[](json& j) { j["partial_rotary_factor"] = 0.5; },
            "\"partial_rotary_factor\" is 0.5, expected 1"},
           {[](json& j) {
              j["rope_parameters"] = {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}};
            },
            "file, rope_parameters: \"partial_rotary_factor\" is 0.5, expected 1"},
           {[](json& j) {
              j["rope_scaling"] = {{"rope_type", "linear"}};
            },
            "file, rope_scaling: \"factor\" is absent, expected a number"},
           {[](json& j) {
              j["rope_scaling"] = {{"factor", 2}};
            },
            "file, rope_scaling: \"factor\" is 2, expected no such key"},
           {[](json& j) {
              j["rope_scaling"] = {{"rope_type", nullptr}, {"type", "linear"}, {"factor", 2}};
            },
            "file, rope_scaling: \"rope_type\" is absent, expected"},
           {[](json& j) { j["rope_theta"] = nullptr; }, "\"rope_theta\" is absent, expected a number"},
           {[](json& j) {
              j["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", nullptr}};
            },
            "file, rope_parameters: \"rope_theta\" is absent, expected a number"},
           {[](json& j) {
              j["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e4}}}};
            },
            "\"full_attention\" is {\"rope_theta\":10000.0}, expected no such key"},
           {[](json& j) { j["rope_interleaved"] = true; }, "\"rope_interleaved\" is true, expected false"},
           {[](json& j) { j["logits_scaling"] = 8; },
            "\"logits_scaling\" is 8, expected no such key: it is neither implemented nor known to change "
            "nothing"},
           {[](json& j) {
              j["rope_scaling"] = {{"type", "linear"}, {"factor", 0.5}};
            },
            "position_factor: is 0.5"},
           {[](json& j) { j["rope_scaling"] = 2; }, "file, rope_scaling: is no JSON object"},
           {[](json& j) { j.erase("hidden_size"); }, "lacks \"hidden_size\""},
           {[](json& j) { j.erase("max_position_embeddings"); }, "lacks \"max_position_embeddings\""},
           {[](json& j) { j["vocab_size"] = "11"; }, "\"vocab_size\" is \"11\", expected a whole number"},
           {[](json& j) { j["vocab_size"] = 11.5; }, "\"vocab_size\" is 11.5, expected a whole number"},
           {[](json& j) { j["vocab_size"] = -11; }, "\"vocab_size\" is -11, expected a whole number"},
           {[](json& j) { j["vocab_size"] = 0; }, "\"vocab_size\" is 0, expected a whole number"},
           {[](json& j) { j["num_hidden_layers"] = 1e12; }, "\"num_hidden_layers\" is 1000000000000.0"},
           {[](json& j) { j["num_hidden_layers"] = std::uint64_t(1) << 40; },
            "expected a whole number from 1"},
           {[](json& j) { j["num_key_value_heads"] = 3; }, "heads: are 4, not a multiple of the 3"},
           {[](json& j) { j["hidden_size"] = 9, j.erase("head_dim"); },
            "\"hidden_size\" is 9, expected a multiple of the 4 num_attention_heads"},
           {[](json& j) { j["head_dim"] = 3; }, "head_dim: is 3, must be even"},
           {[](json& j) { j["rms_norm_eps"] = 0; }, "norm_epsilon: is 0"},
           {[](json& j) { j["rms_norm_eps"] = "small"; }, "\"rms_norm_eps\" is \"small\", expected a number"},
           {[](json& j) { j["rope_theta"] = -1; }, "rope_base: is -1"},
           {[](json& j) { j["tie_word_embeddings"] = "yes"; }, "expected true or false"}}) {
    const std::string text = edited(r.edit);
    INFO(text);
    CHECK_THAT(made::message([&] { parse_config(text, "file"); }),
               ContainsSubstring("load_llama: file") && ContainsSubstring(r.message));
  }
  const std::string text = config_text(made::tiny());
  CHECK_THAT(made::message([&] { parse_config(text.substr(0, 99), "file"); }),
             ContainsSubstring("damaged JSON"));
}

TEST_CASE("tensors that contradict the config are refused by file, tensor and both values") {
  using tensors = std::vector<made::tensor>;
  const auto keep = [](tensors&) {};
  CHECK(refusal(made::tiny(), keep).empty());
  config c = made::tiny();
  c.hidden = 16;
  CHECK(
      refusal(c, keep) ==
      "load_llama: file: tensor \"model.embed_tokens.weight\" has shape [11, 8], the config needs [11, 16]");
  c = made::tiny();
  c.vocabulary = 12;
  CHECK_THAT(refusal(c, keep), ContainsSubstring("has shape [11, 8], the config needs [12, 8]"));
  c = made::tiny();
  c.kv_heads = 4;
  CHECK_THAT(refusal(c, keep),
             ContainsSubstring("tensor \"model.layers.0.self_attn.k_proj.weight\" has shape "
                               "[4, 8], the config needs [8, 8]"));
  c = made::tiny();
  c.layers = 3;
  CHECK_THAT(refusal(c, keep), ContainsSubstring("lacks tensor \"model.layers.2.input_layernorm.weight\""));
  c.layers = 1 << 30;
  CHECK_THAT(refusal(c, keep),
             ContainsSubstring("has 20 tensors with its shards, the config says 1073741824 layers"));
  c = made::tiny();
  c.hidden = c.intermediate_size = c.vocabulary = index_t{1} << 31;
  CHECK_THAT(refusal(c, keep), ContainsSubstring("layers of hidden size 2147483648"));
  c = made::tiny();
  c.layers = 1;
  CHECK_THAT(refusal(c, keep),
             ContainsSubstring("tensor \"model.layers.1.input_layernorm.weight\" is none of the "
                               "model that the config describes"));
  c = made::tiny();
  CHECK_THAT(refusal(c,
                     [](tensors& t) {
                       t.push_back({"model.layers.0.self_attn.q_proj.bias", "F32", {0}, ""});
                     }),
             ContainsSubstring("q_proj.bias\" is none of the model"));
  CHECK(refusal(c, [](tensors& t) {
          t.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, made::raw<float>({1})});
        }).empty());
  CHECK_THAT(refusal(c,
                     [](tensors& t) {
                       named(t, "model.norm.weight").shape = {1, 8};
                     }),
             ContainsSubstring("\"model.norm.weight\" has shape [1, 8], the config needs [8]"));
  CHECK_THAT(refusal(c, [](tensors& t) { t.pop_back(); }),
             ContainsSubstring("lacks tensor \"model.norm.weight\""));
  CHECK_THAT(refusal(c,
                     [](tensors& t) {
                       const float inf = HUGE_VALF;
                       std::memcpy(named(t, "model.layers.1.mlp.up_proj.weight").bytes.data() + 4 * 17, &inf,
                                   4);
                     }),
             ContainsSubstring("tensor \"model.layers.1.mlp.up_proj.weight\" is inf at [2, 1]"));
  CHECK_THAT(refusal(c,
                     [](tensors& t) {
                       auto& norm = named(t, "model.norm.weight");
                       norm.dtype = "I32";
                     }),
             ContainsSubstring("\"model.norm.weight\" has dtype I32, expected F32, F16 or BF16"));
}

TEST_CASE("a stored output matrix must agree with the config") {
  using tensors = std::vector<made::tensor>;
  CHECK_THAT(refusal(made::tiny(false), [](tensors&) {}),
             ContainsSubstring("lacks tensor \"lm_head.weight\""));
  CHECK(refusal(
            made::tiny(false), [](tensors&) {}, false)
            .empty());
  // tied and stored: only the embedding itself
  const auto copy = [](tensors& t) {
    t.push_back(named(t, "model.embed_tokens.weight"));
    t.back().name = "lm_head.weight";
  };
  CHECK(refusal(made::tiny(), copy).empty());
  CHECK_THAT(
      refusal(made::tiny(),
              [&](tensors& t) {
                copy(t);
                const float x = 99;
                std::memcpy(t.back().bytes.data() + 4 * 10, &x, 4);
              }),
      ContainsSubstring("tensor \"lm_head.weight\" is 99.000000 at [1, 2], model.embed_tokens.weight is "
                        "2.750000, although tie_word_embeddings is true"));
  CHECK_THAT(refusal(made::tiny(),
                     [&](tensors& t) {
                       copy(t);
                       t.back().shape = {8, 11};
                     }),
             ContainsSubstring("tensor \"lm_head.weight\" has shape [8, 11], the config needs [11, 8]"));
}

TEST_CASE("shards of halves of both kinds make one model") {
  const folder f;
  const config c = made::tiny(false);
  const weight_map map(c);
  parameters<double> expected(map.size());
  for (index_t i = 0; i < map.size(); ++i) expected[i] = double(i % 200) / 8;  // exact in both kinds
  std::vector<made::tensor> shards[2];
  nlohmann::json index;
  int n = 0;
  for (const auto& b : map.names().blocks()) {
    const bool brain = n % 3 == 0, second = n++ % 2 == 0;
    std::vector<std::uint16_t> codes;
    for (index_t i = 0; i < b.size(); ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(float(expected[b.offset + i]));
      const auto half = bits == 0 ? 0u : (bits >> 13) - (112u << 10);
      codes.push_back(std::uint16_t(brain ? bits >> 16 : half));
    }
    shards[second].push_back({b.name, brain ? "BF16" : "F16", file_shape(b), made::raw(codes)});
    index["weight_map"][b.name] = second ? "b.safetensors" : "a.safetensors";
  }
  write_file(f.path / "a.safetensors", made::safetensors(shards[0]));
  write_file(f.path / "b.safetensors", made::safetensors(shards[1]));
  write_file(f.path / "model.safetensors.index.json", index.dump());
  write_file(f.path / "config.json", config_text(c));
  CHECK(made::same_bits(load_llama<double>(f.path).weights, expected));
  const auto narrow = load_llama<float>(f.path);
  CHECK(narrow.shape == c);
  CHECK(std::equal(narrow.weights.begin(), narrow.weights.end(), expected.begin()));
}

TEST_CASE(
    "weights in bfloat16 are those of the file, each rounded once, and are hashed and saved as floats") {
  const folder f;
  const config c = made::tiny();
  parameters<float> exact(weight_map(c).size());
  for (index_t i = 0; i < exact.size(); ++i) exact[i] = std::sin(float(i));
  save_llama<float>(f.path / "f32", c, exact);
  const auto model = load_llama<bf16>(f.path / "f32");
  parameters<float> rounded(exact.size());
  for (index_t i = 0; i < exact.size(); ++i) rounded[i] = bf16(exact[i]);
  CHECK(std::equal(rounded.begin(), rounded.end(), model.weights.begin()));
  CHECK(weight_hash<bf16>(c, model.weights) == weight_hash<float>(c, rounded));
  CHECK(weight_hash<bf16>(c, model.weights) == weight_hash<float>(c, exact, precision::bf16));
  save_llama<bf16>(f.path / "again", c, model.weights);
  CHECK(made::same_bits(load_llama<float>(f.path / "again").weights, rounded));

  exact[weight_map(c).norm() + 1] = std::numeric_limits<float>::max();  // infinite as a bfloat16
  save_llama<float>(f.path / "huge", c, exact);
  CHECK_THROWS_WITH(load_llama<bf16>(f.path / "huge"),
                    ContainsSubstring("\"model.norm.weight\" is inf at [1]"));
}

TEST_CASE("paths that hold no model are named") {
  const folder f;
  CHECK_THROWS_WITH(load_llama<float>(f.path / "none"), ContainsSubstring("none\": does not exist"));
  const std::string endless(300, 'a');  // more than a name may have
  CHECK_THROWS_AS(load_llama<float>(f.path / endless), unroll::error);
  CHECK_THROWS_AS(tensor_files::open(f.path / endless, "reader"), unroll::error);
  CHECK_THROWS_WITH(load_llama<float>(f.path), ContainsSubstring("config.json\": does not exist"));
  write_file(f.path / "config.json", config_text(made::tiny()));
  CHECK_THROWS_WITH(load_llama<float>(f.path), ContainsSubstring("model.safetensors\": does not exist"));
  CHECK_THROWS_WITH(load_llama<float>(f.path / "model.safetensors"), ContainsSubstring("name its folder"));
}

TEST_CASE("loading holds the weights and little more, saving at most one matrix") {
  const folder f;
  config c = made::tiny();
  c.hidden = 512;
  c.intermediate_size = 1024;
  c.layers = 6;
  c.heads = c.kv_heads = 4;
  c.head_dim = 128;
  c.vocabulary = 1000;
  const std::int64_t numbers = weight_map(c).size(), little = 2 << 20;
  const auto head = made::raw<std::int32_t>({512, 1024, 6, 4, 4, 1000, 16});
  write_file(f.path / "a.bin", head);  // the rest are zeros
  std::filesystem::resize_file(f.path / "a.bin", std::uintmax_t(28 + 4 * (numbers + 16 * 128)));
  const auto within = [&](const char* what, std::int64_t most, auto work) {
    const std::int64_t peak = peak_bytes(work);
    if (peak < 0) WARN("the peak of memory cannot be measured here");
    INFO(what);
    CHECK(peak <= most + little);
    if (peak >= 0) CHECK(peak >= most / 2);
  };
  pretrained<float> model;
  within("float .bin", 4 * numbers, [&] { model = load_llama<float>(f.path / "a.bin"); });
  within("double .bin", 8 * numbers, [&] { load_llama<double>(f.path / "a.bin"); });
  const std::int64_t matrix = 4 * 512 * 512;
  const std::int64_t saving = peak_bytes([&] { save_llama<float>(f.path, model.shape, model.weights); });
  CHECK(saving <= matrix + little);
  model = {};
  within("float folder", 4 * numbers, [&] { load_llama<float>(f.path); });
  within("double folder", 8 * numbers, [&] { load_llama<double>(f.path); });
  within("bfloat16 .bin", 2 * numbers, [&] { load_llama<bf16>(f.path / "a.bin"); });
  within("bfloat16 folder", 2 * numbers, [&] { load_llama<bf16>(f.path); });
}

#endif
