#include "unroll/llama/sampling.hpp"

#include <limits>

#include "tests/support/catch.hpp"
#include "unroll/testing/allocations.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

template <class T>
view<const T> of(const std::vector<T>& v) {
  return {v.data(), index_t(v.size())};
}
std::vector<double> logs(std::vector<double> p) {
  for (double& x : p) x = std::log(std::max(x, 1e-300));
  return p;
}
std::vector<token> draws(const std::vector<double>& logits, sampling how, key k, std::int64_t count) {
  sampler s(index_t(logits.size()), how);
  std::vector<token> out;
  for (std::int64_t n = 0; n < count; ++n) out.push_back(s.draw(of(logits), k, n));
  return out;
}
// The token at which the cumulative probabilities, in the given order, pass u.
token by_inversion(const std::vector<double>& p, const std::vector<token>& order, double u) {
  double mass = 0, below = 0;
  for (const token t : order) mass += p[std::size_t(t)];
  for (const token t : order)
    if (u * mass < (below += p[std::size_t(t)])) return t;
  return order.back();
}

}  // namespace

TEST_CASE("greedy sampling takes the most probable token and the lowest id on ties") {
  CHECK(most_probable(of<float>({-1, 3, 2, 3})) == 1);
  CHECK(most_probable(of<double>({0, 0, 0})) == 0);
  CHECK(draws({-5, -1, -1, -2}, {.temperature = 0}, key{1}, 1) == std::vector<token>{1});
  CHECK(draws({-5, -1, -1, -2}, {.temperature = 0, .top_p = 0.1}, key{1}, 1) == std::vector<token>{1});
}

TEST_CASE("draws invert the cumulative probabilities of the tokens by id") {
  const std::vector<double> p{0.05, 0.4, 0, 0.25, 0.3};
  const auto got = draws(logs(p), {}, key{7}, 2000);
  std::vector<double> share(p.size());
  for (std::size_t n = 0; n < got.size(); ++n) {
    CHECK(got[n] == by_inversion(p, {0, 1, 3, 4}, draw_uniform(key{7}, std::int64_t(n))));
    share[std::size_t(got[n])] += 1.0 / double(got.size());
  }
  CHECK(share[2] == 0);
  for (std::size_t i = 0; i < p.size(); ++i)  // five standard deviations
    CHECK(std::abs(share[i] - p[i]) <= 5 * std::sqrt(p[i] * (1 - p[i]) / double(got.size())));
}

TEST_CASE("a temperature divides the logits") {
  const std::vector<double> logits{0.3, -1.2, 2.5, 0.9};
  std::vector<double> warm = logits;
  for (double& x : warm) x /= 3;
  CHECK(draws(logits, {.temperature = 3}, key{2}, 300) == draws(warm, {}, key{2}, 300));
  const auto cold = draws(logits, {.temperature = 1e-3}, key{2}, 300);
  CHECK(cold == std::vector<token>(300, 2));
}

TEST_CASE("top-p draws from the fewest most probable tokens that reach it") {
  const std::vector<double> p{0.1, 0.3, 0.05, 0.35, 0.2};  // by size: 3, 1, 4, 0, 2
  const auto nucleus = [&](double top_p, const std::vector<token>& order) {
    const auto got = draws(logs(p), {.top_p = top_p}, key{3}, 500);
    for (std::size_t n = 0; n < got.size(); ++n)
      CHECK(got[n] == by_inversion(p, order, draw_uniform(key{3}, std::int64_t(n))));
  };
  nucleus(1e-9, {3});
  nucleus(0.34, {3});
  nucleus(0.36, {3, 1});
  nucleus(0.64, {3, 1});
  nucleus(0.66, {3, 1, 4});
  nucleus(0.94, {3, 1, 4, 0});
  nucleus(0.96, {3, 1, 4, 0, 2});
}

TEST_CASE("equally probable tokens enter the nucleus by their ids") {
  const std::vector<double> p(8, 0.125);
  const auto got = draws(logs(p), {.top_p = 0.3}, key{4}, 400);
  for (std::size_t n = 0; n < got.size(); ++n)
    CHECK(got[n] == by_inversion(p, {0, 1, 2}, draw_uniform(key{4}, std::int64_t(n))));
}

TEST_CASE("the nucleus of a large vocabulary is that of sorting all of it") {
  const index_t V = 3000;
  std::vector<double> logits;
  for (index_t i = 0; i < V; ++i) logits.push_back(2.5 * draw_normal(key{5}, 0, std::uint64_t(i)));
  std::vector<double> p(logits.size());
  double total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(logits[i]);
  std::vector<token> order(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) order[i] = token(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](token a, token b) { return p[std::size_t(a)] > p[std::size_t(b)]; });
  for (const double top_p : {0.05, 0.5, 0.9, 0.999}) {
    double mass = 0;
    std::vector<token> nucleus;
    for (std::size_t i = 0; mass < top_p * total; ++i) {
      nucleus.push_back(order[i]);
      mass += p[std::size_t(order[i])];
    }
    const auto got = draws(logits, {.top_p = top_p}, key{6}, 50);
    for (std::size_t n = 0; n < got.size(); ++n)
      CHECK(got[n] == by_inversion(p, nucleus, draw_uniform(key{6}, std::int64_t(n))));
  }
}

TEST_CASE("the same key draws the same tokens, another key others") {
  const std::vector<double> logits(50, 0.0);
  CHECK(draws(logits, {}, key{8}, 100) == draws(logits, {}, key{8}, 100));
  CHECK(draws(logits, {}, key{8}, 100) != draws(logits, {}, key{9}, 100));
}

TEST_CASE("drawing allocates nothing") {
  std::vector<float> logits(300, 0.f);
  sampler s(300, {.top_p = 0.999999});
  const testing::allocation_counter counter;
  for (std::int64_t n = 0; n < 10; ++n) s.draw(of(logits), key{1}, n);
  CHECK(counter.count() == 0);
}

TEST_CASE("sampling refuses options and logits that make no sense") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(sampler(5, {.temperature = -1}), ContainsSubstring("temperature"));
  CHECK_THROWS_WITH(sampler(5, {.temperature = nan}), ContainsSubstring("temperature"));
  CHECK_THROWS_WITH(sampler(5, {.top_p = 0}), ContainsSubstring("top_p"));
  CHECK_THROWS_WITH(sampler(5, {.top_p = 1.5}), ContainsSubstring("top_p"));
  CHECK_THROWS_WITH(sampler(0), ContainsSubstring("vocabulary"));
  sampler s(2);
  CHECK_THROWS_WITH(s.draw(of<double>({1, 2, 3}), key{1}, 0), ContainsSubstring("logits: has size 3"));
  CHECK_THROWS_WITH(s.draw(of<double>({1, nan}), key{1}, 0), ContainsSubstring("not finite"));
  CHECK_THROWS_WITH(most_probable(of<double>({})), ContainsSubstring("logits"));
}

TEST_CASE("top_k keeps the largest logits and all that equal the last of them") {
  const auto logits = logs({0.1, 0.3, 0.2, 0.2, 0.05, 0.15});
  const auto kept = [&](sampling how) {
    std::vector<int> count(logits.size());
    for (const token t : draws(logits, how, key{3}, 2000)) ++count[std::size_t(t)];
    std::vector<token> out;
    for (std::size_t i = 0; i < count.size(); ++i)
      if (count[i] > 0) out.push_back(token(i));
    return out;
  };
  using ids = std::vector<token>;
  CHECK(kept({.top_k = 1}) == ids{1});
  CHECK(kept({.top_k = 2}) == ids{1, 2, 3});
  CHECK(kept({.top_k = 4}) == ids{1, 2, 3, 5});
  CHECK(kept({.temperature = 50, .top_k = 4}) == ids{1, 2, 3, 5});
  CHECK(kept({.top_k = 6}) == kept({}));
  // top_p is of what top_k leaves: 0.3, 0.2, 0.2, 0.15 of 0.85, of which 0.8 are the first three
  CHECK(kept({.top_p = 0.8, .top_k = 4}) == ids{1, 2, 3});
  // the same draws as from a vocabulary that has no others
  const auto all = draws(logs({0, 0.3, 0.2, 0.2, 0, 0.15}), {}, key{4}, 200);
  CHECK(draws(logits, {.top_k = 4}, key{4}, 200) == all);
  CHECK_THROWS_WITH(sampler(5, {.top_k = -1}), ContainsSubstring("top_k: is -1"));
  // also where the others are nothing beside the largest
  for (const double top : {1e25, -1e250, 1e307})
    for (const double temperature : {1e-9, 1.0, 1e9})
      CHECK(draws({top, top * (top > 0 ? 0.5 : 2.0)}, {.temperature = temperature, .top_k = 1}, key{5}, 50) ==
            std::vector<token>(50, 0));
}

TEST_CASE("repetition_penalty divides positive logits of seen tokens and multiplies the others") {
  const std::vector<double> logits{2, 1.5, -1, -1.2};
  sampler s(4, {.temperature = 0, .repetition_penalty = 2});
  CHECK(s.draw(of(logits), key{1}, 0) == 0);
  s.saw(std::vector<token>{0, 9, -1});  // 1, 1.5, -1, -1.2
  CHECK(s.draw(of(logits), key{1}, 1) == 1);
  s.saw(std::vector<token>{1});  // 1, 0.75, -1, -1.2
  CHECK(s.draw(of(logits), key{1}, 2) == 0);
  s.forget();
  CHECK(s.draw(of(logits), key{1}, 3) == 0);
  const std::vector<double> low{-2, -1, -1.2, -5};
  s.saw(std::vector<token>{1});  // -2, -2, -1.2, -5
  CHECK(s.draw(of(low), key{1}, 4) == 2);
  CHECK_THROWS_WITH(sampler(5, {.repetition_penalty = 0}), ContainsSubstring("repetition_penalty: is 0"));
  sampler tiny(4, {.top_p = 0.5, .repetition_penalty = 1e-320});
  tiny.saw(std::vector<token>{0});
  CHECK_THROWS_WITH(tiny.draw(of(logits), key{1}, 0),
                    ContainsSubstring("not finite behind a repetition_penalty of 1e-320"));
}
