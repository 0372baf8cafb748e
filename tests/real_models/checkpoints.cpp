// Every stored form of the same trained models is the same model. Needs UNROLL_DATA_DIR and nlohmann-json.
#if __has_include(<nlohmann/json.hpp>)

#include <cstdio>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"
#include "tests/support/real_models.hpp"
#include "unroll/io/lora_file.hpp"
#include "unroll/io/weight_hash.hpp"
#include "unroll/llama/score.hpp"
#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

// |a - b| of all weights, relative to |b| or to the smallest number with full precision.
double largest_difference(const parameters<double>& a, const parameters<double>& b, double smallest) {
  double most = 0;
  for (index_t i = 0; i < b.size(); ++i)
    most = std::max(most, std::abs(a[i] - b[i]) / std::max(std::abs(b[i]), smallest));
  return most;
}

// Of the first windows of the stories, in nats per token.
double mean_loss(const pretrained<double>& m, const std::vector<token>& ids) {
  const transformer<double> stack(m.shape);
  return score<double>(stack, m.weights, ids).mean();
}

struct forms {
  const char *bin, *plain, *rounded, *words;
  double rounding;  // relative, half a unit in the last place
  double smallest;  // the smallest number with full precision
  std::size_t bytes;
};

}  // namespace

TEST_CASE("the stored forms of a model have the same weights and the same loss") {
  const auto data = data_folder();
  if (!data) return;
  const auto models = *data / "models";
  for (const forms& f : {forms{"stories260K/stories260K.bin", "stories260K-hf", "stories260K-hf-f16-sharded",
                               "stories260K/tok512.bin", 0x1p-11, 0x1p-14, 1500},
                         forms{"babyllama105/babyllama105.bin", "babyllama105-hf", "babyllama105-hf-bf16",
                               "babyllama105/tok105.bin", 0x1p-8, 0x1p-126, 500}}) {
    INFO(f.plain);
    const auto bin = load_llama<double>(models / f.bin);
    const auto plain = load_llama<double>(models / f.plain);
    const auto rounded = load_llama<double>(models / f.rounded);
    CHECK(bin.shape.pairs == rope_pairs::neighbours);
    CHECK(bin.shape.tied);
    CHECK(plain.shape.tied);
    CHECK_FALSE(rounded.shape.tied);
    const auto hash = [](const auto& m, precision p) { return weight_hash<double>(m.shape, m.weights, p); };
    const precision stored = f.smallest == 0x1p-14 ? precision::f16 : precision::bf16;
    CHECK(hash(bin, precision::f32) == hash(plain, precision::f32));
    CHECK(hash(rounded, precision::f32) == hash(plain, stored));
    CHECK(hash(rounded, precision::f32) != hash(plain, precision::f32));

    auto turned = bin;
    permute_rope_pairs<double>(turned.shape, turned.weights);
    CHECK(turned.shape == plain.shape);
    CHECK(made::same_bits(turned.weights, plain.weights));
    const auto narrow = load_llama<float>(models / f.plain);
    CHECK(std::equal(narrow.weights.begin(), narrow.weights.end(), plain.weights.begin()));

    // the same numbers in the same order, and the embedding once more as the output matrix
    const index_t shared = plain.weights.size(), embedding = plain.shape.hidden * plain.shape.vocabulary;
    REQUIRE(rounded.weights.size() == shared + embedding);
    const auto part = [&](index_t offset, index_t size) {
      parameters<double> out(size);
      std::copy_n(rounded.weights.data() + offset, size, out.data());
      return out;
    };
    const auto own = part(shared, embedding);
    CHECK(made::same_bits(own, part(0, embedding)));
    const double difference = largest_difference(part(0, shared), plain.weights, f.smallest);
    CHECK(difference <= f.rounding);
    CHECK(difference > f.rounding / 2);

    const std::string text =
        read_file(*data / "corpora/tinystories/tinystories_train_prefix_2MiB.txt").substr(0, f.bytes);
    const auto ids = load_tokenizer(models / f.words).encode(text, true);
    const double loss = mean_loss(plain, ids);
    CHECK(std::abs(mean_loss(bin, ids) - loss) < 1e-10);
    CHECK(std::abs(mean_loss(rounded, ids) - loss) < 20 * f.rounding);
    CHECK(loss < 2);  // trained; an untrained model has log of the vocabulary, 6.2 and 4.7

    // saved and read again
    const folder out;
    save_llama<double>(out.path / "bin", bin.shape, bin.weights);
    save_llama<double>(out.path / "plain", plain.shape, plain.weights);
    CHECK(read_file(out.path / "bin/model.safetensors") == read_file(out.path / "plain/model.safetensors"));
    CHECK(made::same_bits(load_llama<double>(out.path / "bin").weights, plain.weights));
  }
}

TEST_CASE("a trained model with any byte of its header changed, or cut anywhere, is read or refused") {
  const auto data = data_folder();
  if (!data) return;
  const auto models = *data / "models";
  const std::string bytes = read_file(models / "stories260K-hf/model.safetensors");
  const config c = load_llama<float>(models / "stories260K-hf").shape;
  const auto load = [&](std::string_view input) {
    std::vector<safetensors> files;
    files.emplace_back(byte_source::memory(input, "file", "load_llama"));
    load_tensors<float>(c, tensor_files(std::move(files)));
  };
  load(bytes);
  for (std::size_t n = 0; n < bytes.size(); n += 9973)
    CHECK_THROWS_AS(load(std::string_view(bytes).substr(0, n)), unroll::error);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  std::string changed = bytes;
  int refused = 0, read = 0;
  for (std::size_t i = 0; i < 8 + std::size_t(length); i += 7) {
    changed[i] = char(changed[i] ^ 1);
    made::message([&] { load(changed); }).empty() ? ++read : ++refused;  // another exception ends the test
    changed[i] = bytes[i];
  }
  CHECK(refused > 20 * read);

  const std::string bin = read_file(models / "stories260K/stories260K.bin");
  for (std::size_t n = 0; n < bin.size(); n += 9973)
    CHECK_THROWS_AS(load_bin<float>(byte_source::memory(std::string_view(bin).substr(0, n), "file", "f")),
                    unroll::error);
}

TEST_CASE("the shape of Llama-2-7B is read from its config, and its weights are missed") {
  const auto data = data_folder();
  if (!data) return;
  const auto folder_of = *data / "models/llama2-7b-config";
  const config c = parse_config(read_file(folder_of / "config.json"), "config.json");
  CHECK(weight_map(c).size() == 6738415616);
  CHECK(c.head_dim == 128);
  CHECK(c.norm_epsilon == 1e-5);
  CHECK(c.rope_base == 10000);
  CHECK_FALSE(c.tied);
  CHECK_THROWS_WITH(load_llama<float>(folder_of), ContainsSubstring("model.safetensors\": does not exist"));
}

#endif
