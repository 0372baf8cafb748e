#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/llama_pieces.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"
#include "tests/support/llama_gguf.hpp"
#include "unroll/testing/simt/executor.hpp"

#if defined(__GLIBC__) && !defined(UNROLL_ADDRESS_SANITIZER)
#include <malloc.h>
#endif

using namespace unroll;
using namespace unroll::llama;

namespace {

/// Bytes of the heap in use, 0 where nobody tells.
double heap_bytes() {
#if defined(__GLIBC__) && !defined(UNROLL_ADDRESS_SANITIZER)
  const auto info = mallinfo2();
  return double(info.uordblks) + double(info.hblkhd);
#else
  return 0;
#endif
}

/// The weights of `path` at the place of an executor, brought back.
template <class E>
parameters<typename E::numbers::weight> through(const E& e, const std::filesystem::path& path,
                                                load_options how = {}) {
  const auto loaded = load_llama_at(path, e, how);
  parameters<typename E::numbers::weight> back(loaded.weights.size());
  e.download(loaded.weights.data(), back.size(), back.data());
  e.synchronise();
  return back;
}

}  // namespace

TEST_CASE("weights come to an executor piece by piece, with the bits of load_llama") {
  const folder f;
  config c = made::tiny(false);
  c.vocabulary = 140'000;  // an embedding of 1,120,000 numbers: more than a piece of 4 MiB
  const weight_map map(c);
  const auto w = made::counted<float>(map.size());
  const auto all = made::tensors(map, w);
  nlohmann::json index;
  for (const auto& t : all)
    index["weight_map"][t.name] = t.name == all.back().name ? "b.safetensors" : "a.safetensors";
  write_file(f.path / "a.safetensors", made::safetensors({all.begin(), all.end() - 1}));
  write_file(f.path / "b.safetensors", made::safetensors({all.back()}));
  write_file(f.path / "model.safetensors.index.json", index.dump());
  write_file(f.path / "config.json", config_text(c));

  CHECK(made::same_bits(through(testing::simt::executor<numbers<float>>(), f.path), w));
  CHECK(made::same_bits(through(testing::simt::executor<numbers<bf16>>(), f.path),
                        load_llama<bf16>(f.path).weights));

  index_t next = 0, largest = 0;
  double before = 0, most = 0;
  const float* where = nullptr;
  const config shape = load_pieces<float>(
      f.path, [&](const config&) { before = heap_bytes(); },
      [&](index_t first, params<const float> part) {
        CHECK(first == next);
        if (where) CHECK(part.data() == where);  // one buffer
        where = part.data();
        next = first + part.size();
        largest = std::max(largest, part.size());
        most = std::max(most, heap_bytes() - before);
      });
  CHECK(shape == c);
  CHECK(next == map.size());
  CHECK(largest == 1 << 20);
  CHECK(most < 5e6);  // the weights have 9 MB
}

TEST_CASE("weights of a GGUF file come in pieces as load_llama reads them") {
  const folder f;
  config c = made::gguf_shape();
  c.vocabulary = 33'000;  // 1,056,000 numbers
  const auto w = made::counted<float>(weight_map(c).size());
  write_file(f.path / "a.gguf", made::llama_gguf(c, w.data()).bytes());
  index_t largest = 0;
  const config shape = load_pieces<float>(
      f.path / "a.gguf", [](const config&) {},
      [&](index_t, params<const float> part) { largest = std::max(largest, part.size()); });
  CHECK(shape == load_llama<float>(f.path / "a.gguf").shape);
  CHECK(largest == 1 << 20);
  CHECK(made::same_bits(through(testing::simt::executor<numbers<float>>(), f.path / "a.gguf"), w));
}

TEST_CASE("what load_llama refuses, pieces refuse, and a file that is no folder is loaded whole") {
  const folder f;
  const config c = made::tiny();
  auto w = made::counted<float>(weight_map(c).size());
  const testing::simt::executor<numbers<float>> e;
  const auto write = [&](const config& shape) {
    auto tensors = made::tensors(weight_map(c), w);
    write_file(f.path / "model.safetensors", made::safetensors(tensors));
    write_file(f.path / "config.json", config_text(shape));
  };
  const auto both_say = [&] {
    const auto at_place = made::message([&] { load_llama_at(f.path, e); });
    CHECK(at_place == made::message([&] { load_llama<float>(f.path); }));
    return at_place;
  };
  write(c);
  CHECK(both_say().empty());
  auto twice = made::tensors(weight_map(c), w);
  twice.push_back({"lm_head.weight", "F32", {11, 8}, made::raw(std::vector<float>(88, 2))});
  write_file(f.path / "model.safetensors", made::safetensors(twice));
  CHECK_THAT(both_say(), Catch::Matchers::ContainsSubstring("although tie_word_embeddings is true"));
  config other = c;
  other.intermediate_size = 12;
  write(other);
  CHECK_THAT(both_say(), Catch::Matchers::ContainsSubstring("the config needs"));
  w[w.size() - 1] = INFINITY;
  write(c);
  CHECK_THAT(both_say(), Catch::Matchers::ContainsSubstring("is inf at"));
  CHECK(made::same_bits(through(e, f.path, {.allow_non_finite = true}), w));
  CHECK_THAT(made::message([&] { load_llama_at(f.path / "model.safetensors", e); }),
             Catch::Matchers::ContainsSubstring("name its folder"));
}

#endif
