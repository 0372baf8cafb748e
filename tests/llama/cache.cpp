#include "unroll/llama/cache.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/plain_llama.hpp"
#include "unroll/llama/generate.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

using plain_llama::distance;
using plain_llama::problem;
using plain_llama::small;

// kv_width x n: first, first + 1, ...
matrix<const double> made(std::vector<double>& v, const config& c, index_t n, double first) {
  v.resize(std::size_t(c.kv_width() * n));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = first + double(i);
  return {v.data(), c.kv_width(), n};
}

}  // namespace

TEST_CASE("a cache holds what it is given, behind what it has, layer by layer") {
  const config c = small(2);
  key_value_cache<double> cache(c, 5);
  CHECK(cache.bytes() == sizeof(double) * std::size_t(2 * 2 * c.kv_width() * 5));
  std::vector<double> k, v;
  const double width = double(c.kv_width());
  const auto append = [&](index_t n, double first) {
    cache.make_room(n);
    auto hook = cache.hook();
    for (index_t layer = 0; layer < 2; ++layer)
      hook.keys(layer, made(k, c, n, first + 1000 * double(layer)),
                made(v, c, n, -first - 1000 * double(layer)));
    cache.extend(n);
  };
  const auto holds = [&](index_t column, double k_first, double v_first) {
    const prefix<double> p = cache.before();
    REQUIRE((p.blocks.size() == 1 && p.keys == cache.size() && p.capacity == 5));
    bool all = true;
    for (index_t layer = 0; layer < 2; ++layer) {
      const auto at = p.at(layer, c.kv_width());
      for (index_t i = 0; i < c.kv_width(); ++i) {
        const index_t to = column * c.kv_width() + i;
        all = all && at.blocks[0][at.key_offset + to] == k_first + 1000 * double(layer) + double(i) &&
              at.blocks[0][at.value_offset + to] == v_first - 1000 * double(layer) + double(i);
      }
    }
    return all;
  };
  append(2, 100);
  append(1, 200);
  CHECK(cache.size() == 3);
  CHECK((holds(0, 100, -100) && holds(1, 100 + width, -100 + width) && holds(2, 200, -200)));
  const key_value_cache<double> copy = cache;
  cache.keep_first(1);
  append(1, 300);
  CHECK(cache.size() == 2);
  CHECK((holds(0, 100, -100) && holds(1, 300, -300)));
  CHECK(copy.size() == 3);
  CHECK(copy.before().blocks[0] != cache.before().blocks[0]);

  CHECK((cache.takes(3) && !cache.takes(4)));
  CHECK_THROWS_WITH(cache.make_room(4), ContainsSubstring("is 5, too little for 2 tokens and 4 more"));
  CHECK_THROWS_WITH(cache.extend(4), ContainsSubstring("too little"));
  cache.clear();
  CHECK((cache.size() == 0 && cache.takes(5)));
}

TEST_CASE("a cache of sinks and a window gives what the kept tokens give at compact positions") {
  for (const config& c : {small(2), small(2, rope_pairs::neighbours), plain_llama::small_yarn()})
    for (const auto [sinks, window, chunk] :
         {std::array<index_t, 3>{0, 5, 1}, {4, 6, 1}, {1, 1, 1}, {2, 9, 3}, {3, 8, 8}, {0, 40, 7}}) {
      const problem<double> p(c, 60);
      const auto expected = p.plain().logits(p.ids, plain_llama::kept_by(60, sinks, window, chunk));
      generator<double, streaming_cache<double>> g(
          p.stack, p.weights, streaming_cache<double>(p.stack, sinks, window), {}, chunk);
      double most = 0;
      for (index_t t = 0; t < 60; t += chunk) {
        const index_t n = std::min(chunk, 60 - t);
        g.append(p.part(t, n));
        most = std::max(most, distance(g.logits(), expected[std::size_t(t + n - 1)]));
      }
      CHECK(most < 1e-11);
    }
}

TEST_CASE("with one layer a streaming cache equals a pass over exactly the kept tokens") {
  const problem<double> p(small(1), 60);
  const auto kept = plain_llama::kept_by(60, 3, 10, 1);
  generator<double, streaming_cache<double>> g(p.stack, p.weights, streaming_cache<double>(p.stack, 3, 10));
  generator<double> again(p.stack, p.weights);
  for (std::size_t t = 0; t < p.ids.size(); ++t) {
    g.append(p.ids[t]);
    std::vector<token> seen;
    for (const index_t i : kept[t]) seen.push_back(p.ids[std::size_t(i)]);
    again.reset();
    again.append(seen);
    for (index_t i = 0; i < again.logits().size(); ++i)
      CHECK(std::abs(g.logits()[i] - again.logits()[i]) < 1e-12);
  }
}

TEST_CASE("a streaming cache that never evicts is a plain cache") {
  const problem<double> p(small(), 20);
  generator<double> all(p.stack, p.weights);
  generator<double, streaming_cache<double>> g(p.stack, p.weights, streaming_cache<double>(p.stack, 4, 16));
  all.append(p.ids);
  g.append(p.ids);
  for (index_t i = 0; i < all.logits().size(); ++i)
    CHECK(g.logits()[i] == Approx(all.logits()[i]).epsilon(1e-12));
}

TEST_CASE("caches refuse what does not fit") {
  const problem<double> p(small());
  const config& c = p.stack.shape();
  CHECK_THROWS_WITH(key_value_cache<double>(c, 41), ContainsSubstring("41, the model has 40 positions"));
  CHECK_THROWS_WITH(key_value_cache<double>(c, 0), ContainsSubstring("capacity"));
  CHECK_THROWS_WITH(streaming_cache<double>(p.stack, 20, 21), ContainsSubstring("41"));
  CHECK_THROWS_WITH(streaming_cache<double>(p.stack, -1, 21), ContainsSubstring("sinks"));
  CHECK_THROWS_WITH(streaming_cache<double>(p.stack, 1, 0), ContainsSubstring("window"));
  streaming_cache<double> cache(p.stack, 2, 6);
  CHECK(cache.largest_chunk() == 6);
  CHECK_THROWS_WITH(cache.make_room(7), ContainsSubstring("is 6, too little for 7 tokens at once"));
}
