// Memories over a trained model and real stories. Needs UNROLL_DATA_DIR and nlohmann-json.
#if __has_include(<nlohmann/json.hpp>)

#include <cstdio>

#include "tests/support/catch.hpp"
#include "tests/support/real_models.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/io/llama_checkpoint.hpp"
#include "unroll/llama/score.hpp"
#include "unroll/memory/memory_llama/session.hpp"
#include "unroll/memory/memory_llama/start.hpp"
#include "unroll/optim/adam.hpp"
#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;
using namespace unroll::llama;

namespace {

template <class T>
struct story {
  memory_llama<T> model;
  std::vector<token> ids;
  parameters<T> theta;

  story(const std::filesystem::path& data, std::size_t tokens, double b_scale)
      : model(make(data)), theta(model.names().size()) {
    const auto words = load_tokenizer(data / "models/stories260K/tok512.bin");
    ids = words.encode(
        read_file(data / "corpora/tinystories/tinystories_train_prefix_2MiB.txt").substr(0, 4 * tokens));
    ids.insert(ids.begin(), words.bos());
    ids.resize(tokens);
    init_memory<T>(model, theta, key{1}, {words.eos(), b_scale});
  }
  static memory_llama<T> make(const std::filesystem::path& data) {
    auto m = load_llama<T>(data / "models/stories260K/stories260K.bin");
    memory_options o;
    o.segment = 32;
    o.ratio = 8;
    return {m.shape, std::make_shared<const parameters<T>>(std::move(m.weights)), o};
  }
};

}  // namespace

TEST_CASE("the gradient through the memories of a trained model is that of finite differences") {
  const auto data = data_folder();
  if (!data) return;
  story<double> s(*data, 4 * 32 + 1, 0.05);
  const auto text = segments_of(s.ids, 32);
  REQUIRE(text.size() == 4);
  const small_memory::pass_over<double> exact(s.model, s.theta, text, true);
  rematerialise remat(s.model, {.segments = 4});
  std::vector<double> g(std::size_t(s.theta.size()));
  remat.reset(key{});
  const report r = remat.advance(s.theta, text, g);
  remat.finish(s.theta, g);
  CHECK(r.loss == Approx(exact.loss).epsilon(1e-13));
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    largest = std::max(largest, std::abs(exact.g[i]));
    difference = std::max(difference, std::abs(exact.g[i] - g[i]));
  }
  CHECK(difference < 1e-12 * largest);

  for (const layout_block& b : s.model.names().blocks()) {
    CAPTURE(b.name);
    std::vector<double> direction(std::size_t(b.size()), 0);
    draw_normals({8}, b.offset, view<double>(direction));
    const std::vector<double> base(s.theta.begin() + b.offset, s.theta.begin() + b.offset + b.size());
    double step = 0;
    const auto loss = [&] {
      for (std::size_t i = 0; i < base.size(); ++i)
        s.theta[b.offset + index_t(i)] = base[i] + step * direction[i] / 10;
      return small_memory::pass_over<double>(s.model, s.theta, text, false).loss;
    };
    const double slope = small_memory::slope(step, loss);
    loss();  // back at the start
    const double got = linalg::dot(g.data() + b.offset, direction.data(), b.size()) / 10;
    const double size = linalg::norm(g.data() + b.offset, b.size());
    CHECK(size > 0);
    CHECK(std::abs(got - slope) < 1e-7 * size);
  }
}

TEST_CASE("segments without memories cost a trained model what a short context costs") {
  const auto data = data_folder();
  if (!data) return;
  story<float> s(*data, 6 * 32 + 1, 0);
  const auto text = segments_of(s.ids, 32);
  std::vector<float> work(std::size_t(s.model.workspace(0)));
  double sum = 0;
  for (const segment& x : text) sum += s.model.read(x, 0, s.theta, {}, work);
  const auto windows = score<float>(s.model.stack(), s.model.weights(), s.ids, {.window = 32});
  CHECK(sum / 192 == Approx(windows.mean()).epsilon(1e-5));
}

TEST_CASE("a few steps on a story teach its memories to tell something about it") {
  const auto data = data_folder();
  if (!data) return;
  story<float> s(*data, 5 * 32 + 1, 0);
  const auto text = segments_of(s.ids, 32);
  rematerialise estimator(s.model, {.segments = 5, .keep = 4});
  adam<float> optimiser(s.theta.size(), {.rate = 3e-3});
  gradient<float> g(s.theta.size());
  double first = 0, last = 0;
  for (int step = 0; step < 25; ++step) {
    g.zero();
    estimator.reset(key{});
    const report r = estimator.advance(s.theta, text, g);
    estimator.finish(s.theta, g);
    REQUIRE(optimiser.step(s.theta, g) == status::ok);
    (step == 0 ? first : last) = r.loss / double(r.losses);
  }
  std::printf("loss a token: %.3f with untrained memories, %.3f after 25 steps, %.3f without any\n", first,
              last, score<float>(s.model.stack(), s.model.weights(), s.ids, {.window = 32}).mean());
  CHECK(last < first - 0.05);

  // the session of the trained memories goes on from the whole text
  memory_session<float> session(s.model, params<const float>(s.theta));
  session.append(s.ids);
  CHECK(session.memories() == 5);
  CHECK(linalg::all_finite(session.logits().data(), session.logits().size()));
}

#endif
