#include "unroll/llama/score.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/plain_llama.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;
using plain_llama::problem;
using plain_llama::small;

namespace {

std::vector<double> written_out(const problem<double>& p, index_t first, index_t inputs, index_t skip) {
  const std::vector<token> text(p.ids.begin() + first, p.ids.begin() + first + inputs);
  const auto logits = p.plain().logits(text);
  std::vector<double> nll;
  for (index_t i = skip; i < inputs; ++i)
    nll.push_back(plain_llama::nll(logits[std::size_t(i)], p.ids[std::size_t(first + i + 1)]));
  return nll;
}
void append(std::vector<double>& to, const std::vector<double>& more) {
  to.insert(to.end(), more.begin(), more.end());
}
void check_equal(const std::vector<double>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(expected[i]).epsilon(1e-11));
}

}  // namespace

TEST_CASE("a text within the context is scored in one pass") {
  for (const index_t tokens : {2, 3, 40, 41}) {
    const problem<double> p(small(), tokens);
    const auto s = score<double>(p.stack, p.weights, p.ids);
    check_equal(s.nll, written_out(p, 0, tokens - 1, 0));
    double sum = 0;
    for (const double x : s.nll) sum += x;
    CHECK(s.mean() == Approx(sum / double(tokens - 1)));
  }
}

TEST_CASE("a longer text is scored in consecutive windows, none of which sees what is in front of it") {
  const problem<double> p(small(), 100);
  std::vector<double> expected = written_out(p, 0, 40, 0);
  append(expected, written_out(p, 40, 40, 0));
  append(expected, written_out(p, 80, 19, 0));
  for (const index_t threads : {1, 2, 3, 7})
    check_equal(score<double>(p.stack, p.weights, p.ids, {.threads = threads}).nll, expected);
}

TEST_CASE("windows may repeat the end of the one before") {
  const problem<double> p(small(), 31);
  std::vector<double> expected = written_out(p, 0, 12, 0);
  append(expected, written_out(p, 7, 12, 5));
  append(expected, written_out(p, 14, 12, 5));
  append(expected, written_out(p, 21, 9, 5));
  check_equal(score<double>(p.stack, p.weights, p.ids, {.window = 12, .overlap = 5}).nll, expected);
  // all but one: every token sees the last window - 1 before it, computed afresh
  expected = written_out(p, 0, 12, 0);
  for (index_t t = 1; t + 12 <= 30; ++t) append(expected, written_out(p, t, 12, 11));
  check_equal(score<double>(p.stack, p.weights, p.ids, {.window = 12, .overlap = 11, .threads = 2}).nll,
              expected);
}

TEST_CASE("scores have the same bits on any number of threads") {
  const problem<float> p(small(), 333);
  const auto one = score<float>(p.stack, p.weights, p.ids, {.window = 20});
  CHECK(one.nll.size() == 332);
  for (const index_t threads : {2, 3, 16, 100})
    CHECK(score<float>(p.stack, p.weights, p.ids, {.window = 20, .threads = threads}).nll == one.nll);
}

TEST_CASE("the gradient is that of the mean, by differences") {
  for (const index_t layers : {1, 2}) {  // own and tied output matrix
    const config c = small(layers);
    problem<double> p(c, 50);
    gradient<double> g(p.weights.size());
    const score_options o{.window = 12, .overlap = 2};
    const text_mean mean = score_gradient<double>(c, p.weights, p.ids, g, o);
    CHECK(mean.tokens == 49);
    CHECK(mean.nll == Approx(score<double>(p.stack, p.weights, p.ids, o).mean()).epsilon(1e-12));
    const auto at = [&](index_t i, double h) {
      parameters<double> w = p.weights;
      w[i] += h;
      return score<double>(p.stack, w, p.ids, o).mean();
    };
    for (const layout_block& b : p.stack.map().names().blocks())
      for (index_t k = 0; k < 3; ++k) {
        const index_t i = b.offset + draw_index(key{9}, b.offset + k, b.size());
        const double h = 1e-3;  // five-point formula: the error is about h^4 and 1e-16 / h
        const double d = (8 * (at(i, h) - at(i, -h)) - (at(i, 2 * h) - at(i, -2 * h))) / (12 * h);
        INFO(b.name << " " << i);
        CHECK(g[i] == Approx(d).margin(1e-9).epsilon(1e-7));
      }
  }
}

TEST_CASE("gradients have the same bits on any number of threads, and what g held before is gone") {
  const problem<float> p(small(), 131);
  gradient<float> one(p.weights.size()), more(p.weights.size());
  const auto a = score_gradient<float>(p.stack.shape(), p.weights, p.ids, one, {.window = 20});
  for (const index_t threads : {2, 3, 9}) {
    std::fill(more.begin(), more.end(), 5.f);
    const auto b =
        score_gradient<float>(p.stack.shape(), p.weights, p.ids, more, {.window = 20, .threads = threads});
    CHECK(std::equal(one.begin(), one.end(), more.begin()));
    CHECK(a.nll == b.nll);
  }
}

TEST_CASE("scoring with sinks and a window sees what their cache keeps") {
  const problem<double> p(small(), 90);
  const std::vector<token> inputs(p.ids.begin(), p.ids.end() - 1);
  const auto nll = [&](const streaming_options& o) {
    const auto logits = p.plain().logits(inputs, plain_llama::kept_by(89, o.sinks, o.window, o.chunk));
    std::vector<double> out;
    for (std::size_t i = 0; i < logits.size(); ++i) out.push_back(plain_llama::nll(logits[i], p.ids[i + 1]));
    return out;
  };
  for (const streaming_options& o : {streaming_options{4, 12, 1}, {0, 16, 1}, {2, 12, 5}, {4, 36, 36}})
    check_equal(score_streaming<double>(p.stack, p.weights, p.ids, o).nll, nll(o));
}

TEST_CASE("scoring can be ended early") {
  const problem<double> p(small(), 100);
  const score_options o{.window = 10, .threads = 2};
  const auto all = score<double>(p.stack, p.weights, p.ids, o).nll;
  const auto some = score<double>(p.stack, p.weights, p.ids, o, {}, [](index_t done) { return done < 30; });
  CHECK(some.nll.size() == 40);
  CHECK(std::equal(some.nll.begin(), some.nll.end(), all.begin()));
  const auto none = score<double>(p.stack, p.weights, p.ids, o, {}, [](index_t) { return false; });
  CHECK(none.nll.empty());
  CHECK(none.mean() == 0);
  gradient<double> g(p.weights.size()), start(p.weights.size());
  const auto mean =
      score_gradient<double>(p.stack.shape(), p.weights, p.ids, g, o, [](index_t done) { return done < 30; });
  CHECK(mean.tokens >= 30);
  CHECK(mean.tokens < 99);
  const std::vector<token> begin(p.ids.begin(), p.ids.begin() + mean.tokens + 1);
  score_gradient<double>(p.stack.shape(), p.weights, begin, start, o);
  for (index_t i = 0; i < g.size(); ++i) CHECK(g[i] == Approx(start[i]).margin(1e-13).epsilon(1e-10));
  CHECK(score_streaming<double>(p.stack, p.weights, p.ids, {4, 12, 3}, {}, [](index_t done) {
          return done < 30;
        }).nll.size() == 30);
}

TEST_CASE("scoring refuses what does not fit the model") {
  const problem<double> p(small(), 50);
  const auto with = [&](const score_options& o) { return score<double>(p.stack, p.weights, p.ids, o); };
  CHECK_THROWS_WITH(with({.window = 41}), ContainsSubstring("window: is 41, the model has 40 positions"));
  CHECK_THROWS_WITH(with({.window = -1}), ContainsSubstring("window"));
  CHECK_THROWS_WITH(with({.window = 8, .overlap = 8}), ContainsSubstring("overlap: is 8"));
  CHECK_THROWS_WITH(with({.overlap = -1}), ContainsSubstring("overlap"));
  CHECK_THROWS_WITH(with({.threads = 0}), ContainsSubstring("threads"));
  const std::vector<token> one{1}, wrong{1, 23};
  gradient<double> g(p.weights.size()), small_g(3);
  CHECK_THROWS_WITH(score<double>(p.stack, p.weights, one),
                    ContainsSubstring("ids: is 1, must be at least 2"));
  CHECK_THROWS_WITH(score<double>(p.stack, p.weights, {}), ContainsSubstring("ids"));
  CHECK_THROWS_WITH(score<double>(p.stack, p.weights, wrong), ContainsSubstring("holds 23"));
  CHECK_THROWS_WITH(score<double>(p.stack, params<const double>{}, p.ids), ContainsSubstring("weights"));
  CHECK_THROWS_WITH(score_gradient<double>(p.stack.shape(), p.weights, p.ids, small_g),
                    ContainsSubstring("g: has"));
  CHECK_THROWS_WITH(score_streaming<double>(p.stack, p.weights, wrong), ContainsSubstring("holds 23"));
  CHECK_THROWS_WITH(score_streaming<double>(p.stack, p.weights, p.ids, {4, 37, 1}), ContainsSubstring("41"));
  CHECK_THROWS_WITH(score_streaming<double>(p.stack, p.weights, p.ids, {4, 12, 0}),
                    ContainsSubstring("chunk"));
}
