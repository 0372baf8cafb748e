#include "unroll/llama/generate.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/plain_llama.hpp"
#include "unroll/testing/allocations.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

using plain_llama::distance;
using plain_llama::problem;
using plain_llama::small;

}  // namespace

TEST_CASE("token by token and in chunks the logits are those of the model written out") {
  for (const rope_pairs pairs : {rope_pairs::halves, rope_pairs::neighbours})
    for (const index_t layers : {1, 2, 3}) {
      const problem<double> p(small(layers, pairs));
      const auto expected = p.plain().logits(p.ids);
      generator<double> g(p.stack, p.weights);
      for (std::size_t t = 0; t < p.ids.size(); ++t) {
        g.append(p.ids[t]);
        CHECK(distance(g.logits(), expected[t]) < 1e-12);
      }
      for (const index_t chunk : {1, 3, 7, 40, 1000}) {
        generator<double> chunks(p.stack, p.weights, key_value_cache<double>(p.stack.shape(), 40), {}, chunk);
        chunks.append(p.part(0, 29));
        CHECK(distance(chunks.logits(), expected[28]) < 1e-12);
        chunks.append(p.part(29, 1));
        chunks.append(p.part(30, 10));
        CHECK(distance(chunks.logits(), expected[39]) < 1e-12);
        CHECK(chunks.consumed() == 40);
      }
    }
}

TEST_CASE("in float the logits are those of double up to rounding") {
  const problem<float> p(small());
  const auto expected = p.plain().logits(p.ids);
  generator<float> g(p.stack, p.weights);
  double largest = 0;
  for (const double l : expected.back()) largest = std::max(largest, std::abs(l));
  g.append(p.ids);
  CHECK(distance(g.logits(), expected.back()) < 200 * 1.2e-7 * largest);
}

TEST_CASE("appended tokens are scored as the model written out scores them") {
  const problem<double> p(small());
  const auto expected = p.plain().logits(p.ids);
  generator<double> g(p.stack, p.weights, key_value_cache<double>(p.stack.shape(), 40), {}, 16);
  std::vector<double> nll(39);
  const double sum = g.append_scored(p.part(0, 39), p.part(1, 39), view<double>(nll));
  double total = 0;
  for (std::size_t i = 0; i < nll.size(); ++i) {
    CHECK(nll[i] == Approx(plain_llama::nll(expected[i], p.ids[i + 1])).epsilon(1e-11));
    total += nll[i];
  }
  CHECK(sum == Approx(total).epsilon(1e-12));
}

TEST_CASE("a cache of another model that holds more than there are positions does not lead beyond them") {
  const problem<double> p(small());
  config longer = p.stack.shape();
  longer.context = 80;
  generator<double> g(p.stack, p.weights, key_value_cache<double>(longer, 80));
  CHECK_THROWS_WITH(g.append(std::vector<token>(50, 1)), Catch::Matchers::ContainsSubstring("40 positions"));
}

TEST_CASE("what is generated greedily is what the model written out finds most probable") {
  const problem<double> p(small());
  generator<double> g(p.stack, p.weights);
  sampler greedy(p.stack.shape().vocabulary, {.temperature = 0});
  std::vector<token> text{1};
  g.append(token(1));
  const auto done = generate(g, greedy, 12, {}, key{1}, [&](token t) {
    const auto logits = p.plain().logits(text).back();
    CHECK(t == token(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    text.push_back(t);
    return true;
  });
  CHECK(done.tokens == 12);
  CHECK(done.why == stop_reason::tokens);
  CHECK(text.size() == 13);
}

TEST_CASE("a sampler of fewer tokens than the model has draws among the first ones") {
  const problem<double> p(small());
  const index_t V = p.stack.shape().vocabulary, pieces = V / 2;
  const auto beyond = [&](sampler s) {
    generator<double> g(p.stack, p.weights);
    g.append(token(1));
    index_t n = 0;
    generate(g, s, 30, {}, key{1}, [&](token t) {
      n += t >= pieces;
      if (s.how().temperature == 0) {
        const auto logits = g.logits();
        CHECK(t == token(std::max_element(logits.begin(), logits.begin() + s.vocabulary()) - logits.begin()));
      }
      return true;
    });
    return n;
  };
  for (const double temperature : {0.0, 2.0}) {
    CHECK(beyond(sampler(pieces, {.temperature = temperature})) == 0);
    CHECK(beyond(sampler(V, {.temperature = temperature})) > 0);
  }
  CHECK_THROWS_WITH(beyond(sampler(V + 1)), ContainsSubstring("generate: logits"));
}

TEST_CASE("the same key generates the same text, in one call or in two") {
  const problem<float> p(small());
  sampler s(p.stack.shape().vocabulary, {.temperature = 1.5, .top_p = 0.9});
  const auto text = [&](key k, std::initializer_list<index_t> calls) {
    generator<float> g(p.stack, p.weights);
    g.append(p.part(0, 3));
    std::vector<token> out;
    for (const index_t n : calls)
      generate(g, s, n, {}, k, [&](token t) {
        out.push_back(t);
        return true;
      });
    return out;
  };
  CHECK(text(key{1}, {20}) == text(key{1}, {20}));
  CHECK(text(key{1}, {20}) == text(key{1}, {7, 0, 13}));
  CHECK(text(key{1}, {20}) != text(key{2}, {20}));
}

TEST_CASE("a generation ends at an end token, at the limit of the model, or when it is asked to") {
  const problem<double> p(small());
  const index_t V = p.stack.shape().vocabulary;
  sampler s(V, {.temperature = 3});
  generator<double> g(p.stack, p.weights);
  std::vector<token> out;
  const auto keep = [&](token t) {
    out.push_back(t);
    return true;
  };
  g.append(p.part(0, 5));
  auto done = generate(g, s, 1000, {}, key{4}, keep);
  CHECK(done.why == stop_reason::room);
  CHECK(done.tokens == 36);  // the last one needs no room
  CHECK(index_t(out.size()) == done.tokens);
  CHECK(g.consumed() == 40);

  const std::vector<token> first(out.begin(), out.begin() + 10), ends{-5, first[6]};
  const auto stop = std::find(first.begin(), first.end(), first[6]) - first.begin();
  g.reset();
  out.clear();
  g.append(p.part(0, 5));
  done = generate(g, s, 1000, ends, key{4}, keep);
  CHECK(done.why == stop_reason::end);
  CHECK(out == std::vector<token>(first.begin(), first.begin() + stop));

  g.reset();
  g.append(p.part(0, 5));
  done = generate(g, s, 1000, {}, key{4}, [](token) { return false; });
  CHECK(done.why == stop_reason::asked);
  CHECK(done.tokens == 1);

  generator<double, streaming_cache<double>> endless(p.stack, p.weights,
                                                     streaming_cache<double>(p.stack, 2, 10));
  endless.append(p.part(0, 5));
  done = generate(endless, s, 200, {}, key{4}, [](token) { return true; });
  CHECK(done.why == stop_reason::tokens);
  CHECK(done.tokens == 200);
}

TEST_CASE("generating allocates nothing") {
  const problem<float> p(small());
  generator<float> g(p.stack, p.weights);
  generator<float, streaming_cache<float>> streaming(p.stack, p.weights,
                                                     streaming_cache<float>(p.stack, 2, 6));
  sampler s(p.stack.shape().vocabulary, {.top_p = 0.9});
  const testing::allocation_counter counter;
  g.append(p.part(0, 11));
  generate(g, s, 20, {}, key{1}, [](token) { return true; });
  streaming.append(p.part(0, 11));
  generate(streaming, s, 20, {}, key{1}, [](token) { return true; });
  CHECK(counter.count() == 0);
}

TEST_CASE("a generator refuses what does not fit, and take nothing of it") {
  const problem<double> p(small());
  CHECK_THROWS_WITH(generator<double>(p.stack, params<const double>{}), ContainsSubstring("weights"));

  generator<double> g(p.stack, p.weights);
  CHECK_THROWS_WITH(g.logits(), ContainsSubstring("none were appended"));
  CHECK_THROWS_WITH(g.append(token(23)), ContainsSubstring("holds 23, the vocabulary has 23"));
  CHECK_THROWS_WITH(g.append(token(-1)), ContainsSubstring("holds -1"));
  CHECK(g.consumed() == 0);
  g.append(p.part(0, 38));
  CHECK_THROWS_WITH(g.append(p.part(0, 3)), ContainsSubstring("are 3 behind 38, there is room for 40"));
  CHECK(g.consumed() == 38);
  CHECK_THROWS_WITH(g.append_scored(p.part(0, 2), p.part(0, 1)), ContainsSubstring("targets"));
  g.append(p.part(0, 2));
  CHECK(!g.room());
}
