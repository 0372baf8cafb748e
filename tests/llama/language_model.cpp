#include "unroll/llama/language_model.hpp"

#include "tests/llama/small_llama.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/plain_llama.hpp"
#include "unroll/testing/allocations.hpp"
#include "unroll/testing/guarded.hpp"

using namespace unroll;
using namespace unroll::llama;
using tests::lively_weights;
using tests::normals;
using tests::small_llama;
using unroll::testing::detail::dot;
using unroll::testing::detail::same_bits;

namespace {

constexpr index_t length = 8;

template <class T>
struct batch {
  language_model<T> model;
  std::vector<T> weights, g;
  std::vector<token> ids, targets;

  explicit batch(language_model_options o, config c = small_llama()) : model(c, o) {
    weights = lively_weights<T>(model.stack().map());
    g.assign(weights.size(), T(0));
    for (index_t i = 0; i < o.sequences * o.length; ++i) {
      ids.push_back(token(i * i % c.vocabulary));
      targets.push_back(i % 5 == 1 ? -1 : token(i * 3 % c.vocabulary));
    }
  }
  T gradient() { return model.gradient(params<const T>(weights), ids, targets, dparams<T>(g)); }
  T nll() { return model.nll(params<const T>(weights), ids, targets); }
};

}  // namespace

TEST_CASE("Scores of a language model are those of a Llama written with loops") {
  for (const rope_pairs pairs : {rope_pairs::halves, rope_pairs::neighbours})
    for (const bool tied : {true, false}) {
      config c = small_llama();
      c.pairs = pairs;
      c.tied = tied;
      batch<double> at({.sequences = 1, .length = length}, c);
      const plain_llama::model plain(c, at.weights);
      std::vector<std::vector<index_t>> kept;
      for (index_t t = 0; t < length; ++t) {
        kept.emplace_back();
        for (index_t s = 0; s <= t; ++s) kept.back().push_back(s);
      }
      const auto logits = plain.logits(at.ids, kept);
      std::vector<double> each(std::size_t(length), -1);
      at.model.nll(params<const double>(at.weights), at.ids, at.targets, view<double>(each));
      for (std::size_t t = 0; t < std::size_t(length); ++t) {
        double total = 0;
        for (const double l : logits[t]) total += std::exp(l);
        const double expected =
            at.targets[t] < 0 ? 0 : std::log(total) - logits[t][std::size_t(at.targets[t])];
        CHECK(each[t] == Approx(expected).margin(1e-11));
      }
    }
}

TEST_CASE("The gradient of a language model agrees with differences in every weight") {
  for (const bool tied : {true, false}) {
    config c = small_llama();
    c.tied = tied;
    batch<double> at({.sequences = 3, .length = length, .shares = 2}, c);
    const double loss = at.gradient();
    CHECK(loss == Approx(at.nll()).epsilon(1e-14));
    for (const layout_block& b : at.model.stack().map().names().blocks()) {
      INFO(b.name);
      const auto u = normals<double>(b.size(), 60, 1);
      const double h = 2e-3 / std::sqrt(dot(u, u));
      const auto begin = at.weights.begin() + b.offset;
      const auto moved = [&](double step) {
        const std::vector<double> centre(begin, begin + b.size());
        for (index_t i = 0; i < b.size(); ++i) begin[i] += step * u[std::size_t(i)];
        const double l = at.nll();
        std::copy(centre.begin(), centre.end(), begin);
        return l;
      };
      const double expected = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
      double slope = 0, size = 0;
      for (index_t i = 0; i < b.size(); ++i) {
        slope += at.g[std::size_t(b.offset + i)] * u[std::size_t(i)];
        size += std::abs(at.g[std::size_t(b.offset + i)] * u[std::size_t(i)]);
      }
      CHECK(std::abs(slope - expected) <= 1e-8 * (1 + size));
      CHECK(size > 0);
    }
  }
}

TEST_CASE("Gradients have the same bits for any number of threads and for both kinds of tape") {
  batch<float> one({.sequences = 5, .length = length, .shares = 3, .threads = 1});
  const float loss = one.gradient();
  for (const index_t threads : {2, 3, 4})
    for (const saved keep : {saved::activations, saved::inputs}) {
      batch<float> many({.sequences = 5, .length = length, .shares = 3, .threads = threads, .keep = keep});
      CHECK(many.gradient() == loss);
      CHECK(same_bits(many.g, one.g));
    }
  batch<float> lean({.sequences = 5, .length = length, .shares = 3, .threads = 1, .keep = saved::inputs});
  CHECK(lean.model.bytes() < one.model.bytes());
}

TEST_CASE("Shares only change the order of sums and gradients are added") {
  batch<double> whole({.sequences = 4, .length = length}),
      shared({.sequences = 4, .length = length, .shares = 4});
  CHECK(whole.gradient() == Approx(shared.gradient()).epsilon(1e-13));
  double worst = 0, size = 0;
  for (std::size_t i = 0; i < whole.g.size(); ++i) {
    worst = std::max(worst, std::abs(whole.g[i] - shared.g[i]));
    size = std::max(size, std::abs(whole.g[i]));
  }
  CHECK(worst <= 1e-12 * size);
  shared.gradient();
  for (std::size_t i = 0; i < whole.g.size(); ++i)
    CHECK(std::abs(shared.g[i] - 2 * whole.g[i]) <= 1e-12 * size);
}

TEST_CASE("Scores and gradients allocate nothing") {
  batch<float> at({.sequences = 4, .length = length, .shares = 2, .threads = 2});
  const unroll::testing::allocation_counter counter;
  at.nll();
  at.gradient();
  CHECK(counter.count() == 0);
}

TEST_CASE("Wrong options, sizes and ids are refused by name") {
  using Catch::Matchers::ContainsSubstring;
  const auto model = [](language_model_options o) { language_model<float>(small_llama(), o); };
  CHECK_THROWS_WITH(model({.sequences = 0}), ContainsSubstring("sequences"));
  CHECK_THROWS_WITH(model({.length = 33}), ContainsSubstring("length"));
  CHECK_THROWS_WITH(model({.sequences = 2, .length = 4, .shares = 3}), ContainsSubstring("shares"));
  CHECK_THROWS_WITH(model({.length = 4, .threads = 0}), ContainsSubstring("threads"));
  batch<float> at({.sequences = 2, .length = length});
  at.ids[3] = 23;
  CHECK_THROWS_WITH(at.nll(), ContainsSubstring("ids: holds 23"));
  CHECK_THROWS_WITH(at.gradient(), ContainsSubstring("ids: holds 23"));
  at.ids[3] = 1;
  at.targets[2] = 23;
  CHECK_THROWS_WITH(at.nll(), ContainsSubstring("targets: holds 23"));
  at.targets.pop_back();
  CHECK_THROWS_WITH(at.nll(), ContainsSubstring("targets: has size"));
}
