#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/llama_bin.hpp"
#include <map>

#include "tests/support/catch.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

// The header of versions 1 and 2 for the shape of made::tiny().
std::string header(std::int32_t version, bool tied, std::int32_t group = 0) {
  std::string out = "24ka" + made::raw<std::int32_t>({version, 8, 10, 2, 4, 2, 11, 16});
  out += tied ? '\1' : '\0';
  if (version == 2) out += made::raw<std::int32_t>({group});
  return out + std::string(256 - out.size(), '\0');
}

// Files of made::tiny() and what their tensors hold, by the names of HuggingFace.
struct written {
  std::string bytes;
  std::map<std::string, std::vector<float>> expected;
  int count = 0;

  // Version 1: float32, every number another one.
  void floats(const std::string& name, int size) {
    for (int i = 0; i < size; ++i) expected[name].push_back(float(++count) / 8);
    bytes += made::raw<float>(expected[name]);
  }
  // Version 2: int8 and their scales behind them; the expected numbers are written out as products.
  void groups(const std::string& name, int size, int group) {
    std::vector<std::int8_t> q;
    std::vector<float> scales;
    for (int g = 0; g < size / group; ++g) scales.push_back(float(++count) / 3);
    for (int i = 0; i < size; ++i) {
      q.push_back(std::int8_t((i * 37 + count) % 255 - 127));
      expected[name].push_back(float(q.back()) * scales[std::size_t(i / group)]);
    }
    bytes += made::raw<std::int8_t>(q) + made::raw<float>(scales);
  }
};

written file(std::int32_t version, bool tied, int group = 4) {
  written w;
  w.bytes = header(version, tied, group);
  const auto matrix = [&](const std::string& name, int size) {
    version == 1 ? w.floats(name, size) : w.groups(name, size, group);
  };
  const auto layers = [&](const char* name, int size, bool norm = false) {
    for (int l = 0; l < 2; ++l) {
      const std::string full = "model.layers." + std::to_string(l) + "." + name + ".weight";
      norm ? w.floats(full, size) : matrix(full, size);
    }
  };
  layers("input_layernorm", 8, true);
  layers("post_attention_layernorm", 8, true);
  w.floats("model.norm.weight", 8);
  matrix("model.embed_tokens.weight", 11 * 8);
  layers("self_attn.q_proj", 8 * 8);
  layers("self_attn.k_proj", 4 * 8);
  layers("self_attn.v_proj", 4 * 8);
  layers("self_attn.o_proj", 8 * 8);
  layers("mlp.gate_proj", 10 * 8);
  layers("mlp.down_proj", 8 * 10);
  layers("mlp.up_proj", 10 * 8);
  if (!tied) matrix("lm_head.weight", 11 * 8);
  return w;
}

template <class T = float>
pretrained<T> parse(const std::string& bytes) {
  return load_bin<T>(byte_source::memory(bytes, "file", "load_llama"));
}
std::string refusal(const std::string& bytes) {
  return made::message([&] { parse(bytes); });
}

}  // namespace

TEST_CASE("llama2.c files of versions 1 and 2 put every number where their description says") {
  for (const std::int32_t version : {1, 2})
    for (const bool tied : {true, false})
      for (const int group : {4, 1, 8}) {
        INFO("version " << version << " tied " << tied << " group " << group);
        const written w = file(version, tied, group);
        const auto model = parse(w.bytes);
        config expected = made::tiny(tied);
        expected.pairs = rope_pairs::neighbours;
        CHECK(model.shape == expected);
        const weight_map map(model.shape);
        CHECK(map.names().blocks().size() == w.expected.size());
        for (const layout_block& b : map.names().blocks()) {
          INFO(b.name);
          const auto& numbers = w.expected.at(b.name);
          REQUIRE(index_t(numbers.size()) == b.size());
          CHECK(std::equal(numbers.begin(), numbers.end(), model.weights.data() + b.offset));
        }
        const auto wide = parse<double>(w.bytes);
        CHECK(std::equal(model.weights.begin(), model.weights.end(), wide.weights.begin()));
      }
}

TEST_CASE("matrices of int8 are read in pieces whose ends are not those of groups") {
  written w;
  w.groups("matrix", 3 * 5000, 3);
  std::vector<float> out(3 * 5000);
  llama::detail::read_int8(byte_source::memory(w.bytes, "file", "f"), 0, 3, view<float>(out));
  CHECK(out == w.expected.at("matrix"));
}

TEST_CASE("the bytes that a header of version 2 needs are counted exactly, whatever the group") {
  for (const std::int32_t group : {1, 3, 6, 7, 9, 48, 64})
    for (index_t n = 1; n < 200; ++n) {
      llama::detail::bin_header h;
      h.version = 2;
      h.group = group;
      h.first = 256;
      config& c = h.shape;
      c.hidden = c.intermediate_size = c.head_dim = 2 * group;
      c.layers = c.heads = c.kv_heads = 1;
      c.vocabulary = n;
      const index_t matrices = 7 * c.hidden * c.hidden + c.hidden * n;
      CHECK(index_t(llama::detail::bin_bytes(h)) ==
            256 + 4 * 3 * c.hidden + matrices + 4 * (matrices / group));
    }
}

TEST_CASE("llama2.c files of versions 1 and 2 of a wrong size or header are refused with both values") {
  for (const std::int32_t version : {1, 2}) {
    const std::string good = file(version, true).bytes;
    const std::string needs = "its header needs " + std::to_string(good.size());
    CHECK_THAT(refusal(good.substr(0, 255)),
               ContainsSubstring("load_llama: file: has 255 bytes, the header alone has 256"));
    CHECK_THAT(refusal(good.substr(0, 256)), ContainsSubstring("has 256 bytes, " + needs));
    CHECK_THAT(refusal(good.substr(0, good.size() - 1)), ContainsSubstring(needs));
    CHECK_THAT(refusal(good + "x"), ContainsSubstring(needs));
    const auto with = [&](std::size_t at, std::int32_t value, std::size_t size = 4) {
      std::string bytes = good;
      std::memcpy(bytes.data() + at, &value, size);
      return refusal(bytes);
    };
    CHECK_THAT(with(8, 9), ContainsSubstring("hidden size 9 and 4 heads"));
    CHECK_THAT(with(16, 1 << 30), ContainsSubstring("its header needs"));
    CHECK_THAT(with(28, -11), ContainsSubstring("vocabulary: is -11"));
    CHECK_THAT(with(36, 0, 1),
               ContainsSubstring("its header needs " + std::to_string(file(version, false).bytes.size())));
    CHECK_THAT(with(36, 2, 1), ContainsSubstring("has 2 at byte 36"));
    if (version == 1) continue;
    CHECK_THAT(with(37, 0), ContainsSubstring("has groups of 0, which do not divide the 88 numbers"));
    CHECK_THAT(with(37, -4), ContainsSubstring("has groups of -4"));
    CHECK_THAT(with(37, 64),
               ContainsSubstring("groups of 64, which do not divide the 88 numbers of embedding"));
    const std::string nan = made::raw<float>({std::nanf("")});
    std::string bytes = good;
    bytes.replace(256 + 4 * 5 * 8 + 88 + 4 * 3, 4, nan);  // the scale of numbers 12 to 15 of the embedding
    CHECK_THAT(refusal(bytes), ContainsSubstring("\"model.embed_tokens.weight\" is nan at [1, 4]") ||
                                   ContainsSubstring("\"model.embed_tokens.weight\" is -nan at [1, 4]"));
  }
  const std::int32_t most = std::numeric_limits<std::int32_t>::max();
  std::string huge = "24ka" + made::raw<std::int32_t>({2, most - 1, most, most, 1, 1, most, most}) + '\0';
  huge += made::raw<std::int32_t>({1}) + std::string(215, '\0');
  CHECK_THAT(refusal(huge), ContainsSubstring("its header needs more than 10^15"));
}

#endif
