// Trained models tell the story that their author shows, find stories as probable as he reports, and every
// stored form of them does the same. Needs UNROLL_DATA_DIR and nlohmann-json.
#if __has_include(<nlohmann/json.hpp>)

#include <cstdio>

#include "tests/support/catch.hpp"
#include "tests/support/real_models.hpp"
#include "unroll/io/llama_checkpoint.hpp"
#include "unroll/llama/score.hpp"
#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;
using namespace unroll::llama;

namespace {

template <class T>
std::string greedy(const std::filesystem::path& model, const std::filesystem::path& words, index_t tokens) {
  const auto m = load_llama<T>(model);
  const auto t = load_tokenizer(words);
  const transformer<T> stack(m.shape);
  generator<T> g(stack, m.weights);
  sampler s(m.shape.vocabulary, {.temperature = 0});
  std::vector<token> ids;
  g.append(t.bos());
  const token ends[] = {t.eos()};
  generate(g, s, tokens, ends, key{1}, [&](token id) {
    ids.push_back(id);
    return true;
  });
  return t.decode(ids);
}

constexpr const char* lily =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, "
    "she "
    "saw a big, red ball. She wanted to play with it, but it was too high.";

}  // namespace

TEST_CASE("every form of stories260K tells the story that its author shows") {
  const auto data = data_folder();
  if (!data) return;
  const auto models = *data / "models";
  for (const auto& [model, words] : {std::pair{"stories260K/stories260K.bin", "stories260K/tok512.bin"},
                                     {"stories260K-hf", "stories260K-hf/tokenizer.json"},
                                     {"stories260K-hf-f16-sharded", "stories260K/tok512.bin"}}) {
    CHECK(greedy<float>(models / model, models / words, 61) == lily);
    CHECK(greedy<double>(models / model, models / words, 61) == lily);
  }
}

TEST_CASE("every form of babyllama105 tells the same story") {
  const auto data = data_folder();
  if (!data) return;
  const auto models = *data / "models";
  const std::string story =
      greedy<double>(models / "babyllama105/babyllama105.bin", models / "babyllama105/tok105.bin", 200);
  CHECK(story.find("Once upon a time, there was a little girl named Lily.") == 0);
  CHECK(greedy<float>(models / "babyllama105-hf", models / "babyllama105-hf/tokenizer.json", 200) == story);
  CHECK(greedy<float>(models / "babyllama105/babyllama105.bin", models / "babyllama105/tok105.bin", 200) ==
        story);
}

TEST_CASE("stories are as probable as the authors of the models report") {
  const auto data = data_folder();
  if (!data) return;
  struct reported {
    const char *model, *words;
    double loss;
  };
  // Of other stories than these; single ones differ by 0.2.
  for (const reported& r : {reported{"stories260K/stories260K.bin", "stories260K/tok512.bin", 1.2968},
                            reported{"babyllama105/babyllama105.bin", "babyllama105/tok105.bin", 0.7366}}) {
    const auto m = load_llama<float>(*data / "models" / r.model);
    const auto t = load_tokenizer(*data / "models" / r.words);
    const transformer<float> stack(m.shape);
    double sum = 0, tokens = 0;
    for (const std::string& story : stories(*data, 40)) {
      const auto s = score<float>(stack, m.weights, t.encode(story, true));
      sum += s.mean() * double(s.nll.size());
      tokens += double(s.nll.size());
    }
    INFO(r.model << ": " << sum / tokens << " nats a token over " << tokens << " tokens");
    CHECK(std::abs(sum / tokens - r.loss) < 0.1);
  }
}

TEST_CASE("on a trained model prefill and decode agree with one pass, and sinks help a window") {
  const auto data = data_folder();
  if (!data) return;
  const auto m = load_llama<float>(*data / "models/stories260K-hf");
  const auto t = load_tokenizer(*data / "models/stories260K-hf/tokenizer.json");
  const transformer<float> stack(m.shape);
  std::string text;
  for (const std::string& story : stories(*data, 4)) text += story + "\n";
  const auto ids = t.encode(text, true);
  REQUIRE(ids.size() > 1000);

  const std::span<const token> start = std::span(ids).first(400);
  const auto whole = score<float>(stack, m.weights, start);
  for (const index_t chunk : {1, 50}) {
    generator<float> g(stack, m.weights, key_value_cache<float>(m.shape, m.shape.context), {}, chunk);
    std::vector<float> nll(399);
    g.append_scored(start.first(399), start.subspan(1), view<float>(nll));
    for (std::size_t i = 0; i < nll.size(); ++i) CHECK(std::abs(nll[i] - whole.nll[i]) < 1e-4f);
  }

  // Xiao et al. 2024; in a model this small the sinks matter little
  const double sinks = score_streaming<float>(stack, m.weights, ids, {.sinks = 4, .window = 124}).mean();
  const double none = score_streaming<float>(stack, m.weights, ids, {.sinks = 0, .window = 128}).mean();
  const double fresh = score<float>(stack, m.weights, ids, {.window = 128, .overlap = 64}).mean();
  INFO("sinks " << sinks << ", no sinks " << none << ", fresh windows " << fresh);
  CHECK(sinks < none);
  CHECK(std::abs(sinks - fresh) < 0.15);
}

TEST_CASE("every form of a model has the same gradient, and that of a tied matrix is the sum of its uses") {
  const auto data = data_folder();
  if (!data) return;
  const auto models = *data / "models";
  const auto ids = load_tokenizer(models / "stories260K/tok512.bin").encode(stories(*data, 1).front(), true);
  const auto norms = [&](const char* name) {
    const auto m = load_llama<double>(models / name);
    gradient<double> g(m.weights.size());
    score_gradient<double>(m.shape, m.weights, ids, g);
    const weight_map map(m.shape);
    std::vector<std::pair<std::string, double>> out;
    for (const layout_block& b : map.names().blocks())
      out.emplace_back(b.name, linalg::norm(g.data() + b.offset, b.size()));
    if (!m.shape.tied) {
      out.pop_back();
      double sum = 0;
      for (index_t i = 0; i < m.shape.hidden * m.shape.vocabulary; ++i)
        sum += std::pow(g[map.embedding() + i] + g[map.output() + i], 2);
      out.front().second = std::sqrt(sum);
    }
    return out;
  };
  const auto bin = norms("stories260K/stories260K.bin"), plain = norms("stories260K-hf"),
             rounded = norms("stories260K-hf-f16-sharded");
  REQUIRE(bin.size() == 47);
  REQUIRE(rounded.size() == 47);
  for (std::size_t i = 0; i < bin.size(); ++i) {
    INFO(bin[i].first);
    CHECK(bin[i].first == plain[i].first);
    CHECK(bin[i].second > 0);
    CHECK(plain[i].second == Approx(bin[i].second).epsilon(1e-10));
    CHECK(rounded[i].second == Approx(bin[i].second).epsilon(0.02));
  }
}

#endif
