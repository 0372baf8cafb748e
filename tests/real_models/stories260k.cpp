// A trained model says what its author says it says. Needs UNROLL_DATA_DIR and nlohmann-json.
#if __has_include(<nlohmann/json.hpp>)

#include <cstdio>
#include <numeric>

#include "tests/support/catch.hpp"
#include "tests/support/real_models.hpp"
#include "unroll/io/llama_checkpoint.hpp"
#include "unroll/llama/language_model.hpp"
#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;
using namespace unroll::llama;

namespace {

/// The most likely tokens behind `ids`, by whole passes.
std::vector<token> continued(const pretrained<float>& m, std::vector<token> ids, index_t count) {
  const transformer<float> stack(m.shape);
  for (index_t i = 0; i < count; ++i) {
    const pass<float> p = stack.pass_over(0, index_t(ids.size()));
    buffer<float> x(m.shape.hidden * p.length), logits(m.shape.vocabulary),
        work(std::max(stack.workspace_size(p, false), lm_head<exec::of<float>>::workspace_size(m.shape, 1)));
    const matrix<float> columns(x.data(), m.shape.hidden, p.length);
    embed(stack.executor(), stack.map(), m.weights.data(), ids, columns);
    stack.forward(m.weights.data(), {}, p, columns, {}, work);
    const lm_head<exec::of<float>> head{stack.executor(), stack.map(), m.weights.data(), work};
    head.logits(columns_of(columns, p.length - 1, 1), matrix<float>(logits.data(), m.shape.vocabulary, 1));
    ids.push_back(token(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  return ids;
}

}  // namespace

TEST_CASE("stories260K tells the story that its author shows") {
  const auto data = data_folder();
  if (!data) return;
  const auto m = load_llama<float>(*data / "models/stories260K/stories260K.bin");
  const auto words = load_tokenizer(*data / "models/stories260K/tok512.bin");
  const std::string text = words.decode(continued(m, {1}, 95));
  const std::string expected =
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, "
      "she saw a big, red ball. She wanted to play with it, but it was too high.";
  INFO(text);
  CHECK(text.find(expected) != std::string::npos);
}

TEST_CASE("Both file formats of stories260K have the loss per token that its author reports") {
  const auto data = data_folder();
  if (!data) return;
  const auto words = load_tokenizer(*data / "models/stories260K/tok512.bin");
  constexpr index_t length = 256;  // a story is cut there, or padded with what is not scored
  std::vector<token> ids, targets;
  index_t scored = 0;
  for (const std::string& story : stories(*data, 60)) {
    const auto pieces = words.encode(story, true);
    for (std::size_t i = 0; i < std::size_t(length); ++i) {
      ids.push_back(i < pieces.size() ? pieces[i] : 0);
      targets.push_back(i + 1 < pieces.size() ? pieces[i + 1] : -1);
      scored += targets.back() >= 0;
    }
  }
  const auto loss = [&](const char* path) {
    const auto m = load_llama<float>(*data / "models" / path);
    language_model<float> model(m.shape, {.sequences = 60, .length = length, .shares = 60});
    return double(model.nll(m.weights, ids, targets)) / double(scored);
  };
  const double original = loss("stories260K/stories260K.bin");
  CHECK(scored > 8000);
  CHECK(original == Approx(1.2968).margin(0.06));  // on its validation text; this is a piece of the other
  CHECK(loss("stories260K-hf") == Approx(original).epsilon(1e-5));
}

#endif
