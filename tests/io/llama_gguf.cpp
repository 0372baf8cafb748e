#include "unroll/io/llama_gguf.hpp"

#include <numbers>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_gguf.hpp"
#include "unroll/llama/positions.hpp"
#include "unroll/llama/score.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

gguf parse(const std::string& bytes, const std::string& name = "file") {
  return gguf(byte_source::memory(bytes, name, "load_llama"));
}
gguf_files files(const std::string& bytes) {
  std::vector<gguf> parts;
  parts.push_back(parse(bytes));
  return gguf_files(std::move(parts));
}
template <class T = float>
pretrained<T> load(const std::string& bytes) {
  return load_gguf<T>(files(bytes));
}
config shape_of(const made::gguf_file& f) {
  const std::string bytes = f.bytes();
  return gguf_config(files(bytes));
}
void refuses(const made::gguf_file& f, const std::string& message) {
  const std::string bytes = f.bytes();
  CHECK_THROWS_WITH(load(bytes), ContainsSubstring("load_llama: file: ") && ContainsSubstring(message));
}

parameters<float> random_weights(const config& c) {
  const weight_map map(c);
  parameters<float> w(map.size());
  init_weights<float>(map, w, key{1});
  for (float& x : w) x *= 8;
  return w;
}
made::gguf_file sample(bool tied = true) {
  const config c = made::gguf_shape(tied);
  return made::llama_gguf(c, random_weights(c).data());
}

std::vector<double> losses(const config& c, params<const float> w) {
  const weight_map map(c);
  parameters<double> exact(map.size());
  std::copy(w.begin(), w.end(), exact.begin());
  const std::vector<token> ids{1, 7, 3, 10, 0, 5, 5, 2};
  const auto s = score<double>(transformer<double>(c), exact, ids);
  return {s.nll.begin(), s.nll.end()};
}

}  // namespace

TEST_CASE("a Llama in GGUF has the shape that its keys say and the weights that were written") {
  for (const bool tied : {true, false}) {
    const config c = made::gguf_shape(tied);
    const auto w = random_weights(c);
    const std::string bytes = made::llama_gguf(c, w.data()).bytes();
    const auto model = load(bytes);
    auto expected = c;
    expected.norm_epsilon = double(float(c.norm_epsilon));
    CHECK(model.shape == expected);
    CHECK(std::equal(w.begin(), w.end(), model.weights.begin(), model.weights.end()));
    const auto half = load<bf16>(bytes);
    for (index_t i = 0; i < w.size(); ++i) REQUIRE(float(half.weights[i]) == float(bf16(w[i])));
  }
}

// gguf.md of ggml and conversion scripts: row 2i + j of each head in GGUF is row j head_dim / 2 + i of
// HuggingFace.
TEST_CASE("rows of queries and keys in GGUF are those of HuggingFace's halves in pairs") {
  config c = made::gguf_shape();
  c.pairs = rope_pairs::halves;
  const auto w = random_weights(c);
  auto permuted = w;
  const weight_map map(c);
  for (index_t l = 0; l < c.layers; ++l)
    for (const auto& [offset, heads] : {std::pair(map[l].q, c.heads), std::pair(map[l].k, c.kv_heads)})
      for (index_t h = 0; h < heads; ++h)
        for (index_t i = 0; i < c.head_dim / 2; ++i)
          for (index_t j = 0; j < 2; ++j)
            std::copy_n(w.data() + offset + (h * c.head_dim + j * c.head_dim / 2 + i) * c.hidden, c.hidden,
                        permuted.data() + offset + (h * c.head_dim + 2 * i + j) * c.hidden);
  const std::string bytes = made::llama_gguf(c, permuted.data()).bytes();
  const auto model = load(bytes);
  c.norm_epsilon = model.shape.norm_epsilon;
  const auto ours = losses(model.shape, model.weights), theirs = losses(c, w);
  REQUIRE(ours.size() == theirs.size());
  for (std::size_t i = 0; i < ours.size(); ++i) CHECK(ours[i] == Approx(theirs[i]).epsilon(1e-12));
  c.pairs = rope_pairs::neighbours;
  CHECK(std::abs(losses(c, w)[5] - theirs[5]) > 1e-3);  // the order matters
}

TEST_CASE("quantised matrices of a Llama are dequantised into their places") {
  const config c = made::gguf_shape(false);
  auto w = random_weights(c);
  for (float& x : w) x = std::clamp(std::nearbyint(x * 64), -100.0f, 100.0f) / 64;
  auto f = made::llama_keys(c);
  made::add_weights(f, c, w.data(), [](const std::vector<float>& x) {
    std::string blocks;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (i % 32 == 0) blocks += made::bytes_of(to_f16(1 / 64.0f));
      blocks += char(std::int8_t(x[i] * 64));
    }
    return std::pair(8u, blocks);
  });
  const std::string bytes = f.bytes();
  const auto model = load(bytes);
  CHECK(std::equal(w.begin(), w.end(), model.weights.begin(), model.weights.end()));
}

TEST_CASE("defaults of absent keys are those of llama.cpp") {
  const auto f = sample();
  const auto without = [&](const char* key) { return f.with(std::string("llama.") + key, ""); };
  CHECK(shape_of(without("rope.freq_base")).rope_base == 10000);
  CHECK(shape_of(f).beyond == position_policy::refuse);
  for (const char* key : {"context_length", "block_count", "embedding_length", "feed_forward_length",
                          "attention.head_count", "attention.layer_norm_rms_epsilon"})
    refuses(without(key), "lacks key \"llama." + std::string(key) + "\"");
  refuses(f.with("general.architecture", ""), "lacks key \"general.architecture\"");
  // as many key-value heads as heads
  refuses(without("attention.head_count_kv"),
          "tensor \"blk.0.attn_k.weight\" has shape [16, 32], the keys need [32, 32]");
  auto c = made::gguf_shape();
  c.head_dim = 6;
  auto other = made::llama_gguf(c, random_weights(c).data());
  refuses(other, "tensor \"blk.0.attn_q.weight\" has shape [24, 32], the keys need [32, 32]");
  other.u32("llama.attention.key_length", 6).u32("llama.attention.value_length", 6);
  other.u32("llama.rope.dimension_count", 6);
  CHECK(shape_of(other).head_dim == 6);
}

TEST_CASE("numbers for each layer are read where they agree") {
  const auto list = [](std::uint32_t type, std::vector<std::uint32_t> all) {
    std::string elements;
    for (const auto n : all) elements += made::bytes_of(n);
    return made::bytes_of(std::uint32_t{9}) + made::bytes_of(type) +
           made::bytes_of(std::uint64_t(all.size())) + elements;
  };
  const char* key = "llama.attention.head_count_kv";
  for (const std::uint32_t type : {4u, 5u}) {
    CHECK(shape_of(sample().with(key, list(type, {2, 2}))).kv_heads == 2);
    refuses(sample().with(key, list(type, {2, 4})),
            "\"llama.attention.head_count_kv\" is 2 in one layer and 4 in another, expected one number");
    refuses(sample().with(key, list(type, {2})), "is a list of 1, expected one for each of 2 layers");
  }
  refuses(sample().with(key, list(6, {2, 2})), "is an array of f32, expected an array of u32");
  const std::string none = made::bytes_of(std::uint32_t{4}) + made::bytes_of(std::uint32_t{0});
  refuses(sample().with("llama.block_count", none).with(key, list(4, {})), "is a list of none");
}

TEST_CASE("a factor of positions is linear unless a type says otherwise") {
  const auto with = [](float factor, const std::string& type) {
    auto f = sample();
    f.f32("llama.rope.scaling.factor", factor);
    if (!type.empty()) f.text("llama.rope.scaling.type", type);
    return f;
  };
  for (const char* type : {"", "linear"}) {
    CHECK(shape_of(with(4, type)).beyond == position_policy::linear);
    CHECK(shape_of(with(4, type)).position_factor == 4);
    CHECK(shape_of(with(1, type)).beyond == position_policy::refuse);
  }
  CHECK(shape_of(with(4, "none")).beyond == position_policy::refuse);
  CHECK(shape_of(sample().f32("llama.rope.scale_linear", 2)).position_factor == 2);
  CHECK(shape_of(with(4, "").f32("llama.rope.scale_linear", 2)).position_factor == 4);

  auto yarn = with(4, "yarn");
  CHECK(shape_of(yarn).original_context() == 16);
  yarn.u32("llama.rope.scaling.original_context_length", 8).f32("llama.rope.scaling.yarn_beta_fast", 32);
  const config c = shape_of(yarn);
  CHECK(c.beyond == position_policy::yarn);
  CHECK(c.original_context() == 8);
  CHECK(frequencies(c).attention == Approx(0.1 * std::log(4.0) + 1).epsilon(1e-14));
  yarn.f32("llama.rope.scaling.attn_factor", 0.5f);
  CHECK(frequencies(shape_of(yarn)).attention == Approx(0.05 * std::log(4.0) + 0.5).epsilon(1e-14));
  refuses(yarn.with("llama.rope.scaling.yarn_beta_fast", made::f32_value(16)),
          "\"llama.rope.scaling.yarn_beta_fast\" is 16, expected 32");
  refuses(with(4, "longrope"),
          "\"llama.rope.scaling.type\" is \"longrope\", expected \"none\", \"linear\" or \"yarn\"");
  refuses(with(4, "").f32("llama.rope.scaling.attn_factor", 2), "\"llama.rope.scaling.attn_factor\" is 2");
  refuses(with(0.5f, ""), "position_factor: is 0.5");
  refuses(with(NAN, ""), "position_factor: is nan");
}

TEST_CASE("rope_freqs.weight divides the inverse frequencies, as Llama 3.1 is stretched") {
  config c = made::gguf_shape();
  c.context = 1024;
  c.beyond = position_policy::llama3;
  c.position_factor = 8;
  c.scaling.original_context = 64;
  auto f = made::llama_gguf(c, random_weights(c).data());
  std::vector<float> factors;
  for (index_t i = 0; i < 4; ++i) {
    const double turns = 64 * std::pow(10000, -2.0 * double(i) / 8) / (2 * std::numbers::pi);
    const double s = std::clamp((turns - 1) / 3, 0.0, 1.0);
    factors.push_back(float(1 / ((1 - s) / 8 + s)));
  }
  CHECK(factors.front() == 1);
  CHECK(factors.back() == 8);
  auto scaled = f;
  scaled.add("rope_freqs.weight", {4}, factors);
  const config read = shape_of(scaled);
  CHECK(read.positions() == 1024);
  const auto ours = frequencies(read), theirs = frequencies(c);
  CHECK(ours.attention == 1);
  for (std::size_t i = 0; i < 4; ++i) CHECK(ours.inverse[i] == Approx(theirs.inverse[i]).epsilon(1e-7));
  CHECK(std::abs(ours.inverse[3] / frequencies(shape_of(f)).inverse[3] - 0.125) < 1e-12);

  auto none = f;
  none.add("rope_freqs.weight", {4}, std::vector<float>(4, 1.0f));
  CHECK(shape_of(none).beyond == position_policy::refuse);
  auto both = scaled;
  refuses(both.f32("llama.rope.scaling.factor", 2),
          "tensor \"rope_freqs.weight\" stands beside positions that are linear of factor 2");
  auto wrong = f;
  refuses(wrong.add("rope_freqs.weight", {3}, {1, 1, 2}),
          "tensor \"rope_freqs.weight\" has shape [3], heads of 8 need [4]");
  wrong = f;
  refuses(wrong.add("rope_freqs.weight", {4}, {1, 1, 2, 0}), "scaling.short_factor: is 0");
}

TEST_CASE("what is no Llama that is computed here is refused by name") {
  const auto f = sample();
  refuses(f.with("general.architecture", made::text_value("qwen2")),
          "\"general.architecture\" is \"qwen2\", expected \"llama\"");
  auto more = f;
  refuses(more.f32("llama.attention.scale", 1),
          "has key \"llama.attention.scale\", which is not implemented");
  more = f;
  refuses(more.u32("llama.expert_count", 8), "\"llama.expert_count\" is 8, expected 0");
  more = f;
  refuses(more.add("blk.1.attn_q.bias", {32}, std::vector<float>(32)),
          "tensor \"blk.1.attn_q.bias\" is none of a Llama without biases");
  refuses(f.with("llama.attention.value_length", made::u32_value(4)),
          "\"llama.attention.value_length\" is 4, expected 8");
  refuses(f.with("llama.rope.dimension_count", made::u32_value(4)),
          "\"llama.rope.dimension_count\" is 4, expected 8");
  refuses(f.with("llama.vocab_size", made::u32_value(12)), "\"llama.vocab_size\" is 12, expected 11");
  refuses(f.with("llama.block_count", made::u32_value(3)), "lacks tensor \"blk.2.attn_norm.weight\"");
  refuses(f.with("llama.block_count", made::u32_value(1)),
          "tensor \"blk.1.attn_k.weight\" is none of a Llama");
  refuses(f.with("llama.block_count", made::u32_value(1000000)), "its keys say 1000000 layers");
  refuses(f.with("llama.block_count", made::u32_value(0)), "layers: is 0");
  refuses(f.with("llama.attention.head_count", made::u32_value(0)),
          "\"llama.embedding_length\" is 32, expected a multiple of the 0 heads");
  refuses(f.with("llama.attention.head_count_kv", made::u32_value(3)),
          "heads: are 4, not a multiple of the 3");
  refuses(
      f.with("llama.context_length", made::bytes_of(std::uint32_t{10}) + made::bytes_of(std::uint64_t{16})),
      "\"llama.context_length\" is of type u64, expected of type u32");
  auto bad = f;
  bad.tensors[3].data.replace(4, 4, made::bytes_of(std::nanf("")));
  refuses(bad, "tensor \"blk.0.attn_k.weight\" is nan at [0, 1]");
}

TEST_CASE("norms with a slow extent of 1 are read") {
  auto f = sample();
  for (auto& t : f.tensors)
    if (t.extents.size() == 1) t.extents.push_back(1);
  CHECK(shape_of(f).hidden == 32);
  const std::string bytes = f.bytes();
  CHECK_NOTHROW(load(bytes));
}

TEST_CASE("a model in several GGUF files is one model") {
  const folder at;
  const auto whole = sample();
  const auto part = [&](std::uint16_t no, std::uint16_t count, std::size_t first, std::size_t last) {
    made::gguf_file f;
    if (no == 0) f.keys = whole.keys;
    if (no == 1) f.f32("llama.rope.freq_base", 500).u32("llama.no_such_key", 1);  // of a later part: unread
    const auto u16 = [](std::uint16_t n) { return made::bytes_of(std::uint32_t{2}) + made::bytes_of(n); };
    f.key("split.no", u16(no)).key("split.count", u16(count));
    f.key("split.tensors.count",
          made::bytes_of(std::uint32_t{5}) + made::bytes_of(std::int32_t(whole.tensors.size())));
    for (std::size_t i = first; i < last; ++i) {
      const auto& t = whole.tensors[i];
      f.add(t.name, t.extents, t.kind, t.data);
    }
    return f;
  };
  const std::size_t n = whole.tensors.size();
  const auto path = [&](int i) { return at.path / ("m-0000" + std::to_string(i) + "-of-00003.gguf"); };
  write_file(path(1), part(0, 3, 0, 0).bytes());
  write_file(path(2), part(1, 3, 0, 5).bytes());
  write_file(path(3), part(2, 3, 5, n).bytes());
  const auto model = load_gguf<float>(gguf_files::open(path(1), "load_llama"));
  const std::string bytes = whole.bytes();
  const auto expected = load(bytes);
  CHECK(model.shape == expected.shape);
  CHECK(std::equal(expected.weights.begin(), expected.weights.end(), model.weights.begin(),
                   model.weights.end()));

  const auto fails = [&](const std::filesystem::path& p, const std::string& message) {
    CHECK_THROWS_WITH(gguf_files::open(p, "load_llama"), ContainsSubstring(message));
  };
  fails(path(2), "is one of 3 parts, the first of which is named ...-00001-of-00003.gguf");
  write_file(path(3), part(2, 3, 4, n).bytes());
  fails(path(1), "tensor \"blk.0.attn_v.weight\" is also in \"" + path(2).string());
  write_file(path(3), part(2, 3, 6, n).bytes());
  fails(path(1),
        "\"split.tensors.count\" is " + std::to_string(n) + ", expected the " + std::to_string(n - 1));
  write_file(path(3), part(1, 3, 5, n).bytes());
  fails(path(1), "\"split.no\" is 1, expected 2");
  write_file(path(3), part(2, 2, 5, n).bytes());
  fails(path(1), "\"split.count\" is 2, expected 3");
  std::filesystem::remove(path(3));
  fails(path(1), "m-00003-of-00003.gguf\": does not exist");
  const std::string one = part(0, 3, 0, 0).bytes();
  CHECK_THROWS_WITH(files(one), ContainsSubstring("is one of 3 parts, of which 1 are given"));
}

// As the package gguf 0.19.0 writes parts with another alignment than 32, and as llama.cpp does.
TEST_CASE("a part of a model whose data begin where only the first part says is refused") {
  using made::bytes_of;
  const auto u16 = [](std::uint16_t n) { return bytes_of(std::uint32_t{2}) + bytes_of(n); };
  const auto part = [&](std::uint16_t no, std::size_t more, std::uint64_t alignment) {
    made::gguf_file f;
    f.alignment = alignment;
    f.key("split.no", u16(no)).key("split.count", u16(2));
    if (no == 0) return f.u32("general.alignment", 64);
    return f.text("more", std::string(more, ' ')).add("m", {8}, {1, 2, 3, 4, 5, 6, 7, 8});
  };
  const auto value = [&](const std::string& second) {
    const std::string first = part(0, 0, 64).bytes();
    std::vector<gguf> parts;
    parts.emplace_back(byte_source::memory(first, "first", "reader"));
    parts.emplace_back(byte_source::memory(second, "second", "reader"));
    const gguf_files files(std::move(parts));
    std::vector<float> x(8);
    files.holding("m").read("m", 0, view<float>(x));
    return x[3];
  };
  int refused = 0;
  for (std::size_t more = 0; more < 64; more += 8) {
    CHECK(value(part(1, more, 32).bytes()) == 4);
    const std::string wide = part(1, more, 64).bytes();
    try {
      const float found = value(wide);
      CHECK(found == 4);
    } catch (const unroll::error& e) {
      ++refused;
      CHECK_THAT(e.what(), ContainsSubstring("reader: second: \"general.alignment\" is absent, expected 64"));
    }
  }
  CHECK(refused == 4);
}
