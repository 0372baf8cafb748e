#include "unroll/train/samples.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

// Ids that tell their document and place: document * 1000 + place + 1.
data::documents texts() {
  data::documents all;
  for (const auto& [name, document, size] : {std::tuple{"long", 0, 60}, {"middle", 1, 13}, {"short", 2, 4}}) {
    std::vector<llama::token> ids;
    for (int i = 0; i < size; ++i) ids.push_back(document * 1000 + i + 1);
    all.add(name, std::move(ids));
  }
  return all;
}

using copied = std::vector<std::vector<std::vector<llama::token>>>;  // tokens and targets, segment by segment
copied copy(std::span<const std::vector<llama::segment>> samples) {
  copied out;
  for (const auto& sample : samples) {
    out.emplace_back();
    for (const auto& x : sample) {
      out.back().emplace_back(x.tokens.begin(), x.tokens.end());
      out.back().emplace_back(x.targets.begin(), x.targets.end());
    }
  }
  return out;
}

const training::samples_options how{.documents = 3, .segments = 2, .segment = 5};

}  // namespace

TEST_CASE("samples are stretches of documents, cut into segments, with the token behind each as its target") {
  const auto all = texts();
  training::samples drawn(all, how, key{4});
  index_t filled = 0;
  for (int step = 0; step < 40; ++step)
    for (const auto& sample : drawn.next()) {
      REQUIRE(sample.size() == 2);
      llama::token last = sample[0].tokens[0] - 1;
      for (const auto& x : sample) {
        REQUIRE(x.tokens.size() == 5);
        for (std::size_t i = 0; i < 5; ++i) {
          if (x.tokens[i] == 0) {
            CHECK(x.targets[i] == -1);
            ++filled;
            continue;
          }
          CHECK(x.tokens[i] == last + 1);
          CHECK((x.targets[i] == x.tokens[i] + 1 || x.targets[i] == -1));
          last = x.tokens[i];
        }
      }
    }
  CHECK(filled > 0);  // the short document was drawn
}

TEST_CASE("samples are a function of the key and the step") {
  const auto all = texts();
  training::samples_options mixed = how;
  mixed.autoencode = 0.5;
  training::samples one(all, mixed, key{4}), resumed(all, mixed, key{4}), other(all, mixed, key{5});
  std::vector<copied> steps;
  for (int step = 0; step < 6; ++step) steps.push_back(copy(one.next()));
  CHECK(one.step() == 6);
  resumed.seek(4);
  CHECK(copy(resumed.next()) == steps[4]);
  CHECK(copy(resumed.next()) == steps[5]);
  CHECK(copy(other.next()) != steps[0]);
}

TEST_CASE("a share of the samples reproduces its first segment, where the document is as long as that") {
  const auto all = texts();
  training::samples_options mixed = how;
  mixed.begin = 7777;
  mixed.documents = 8;
  const auto reproduced = [&](double share) {
    mixed.autoencode = share;
    training::samples drawn(all, mixed, key{4});
    index_t n = 0, whole = 0;
    for (int step = 0; step < 100; ++step)
      for (const auto& sample : drawn.next()) {
        if (sample[0].tokens.back() != 0) ++whole;
        if (!sample[0].targets.empty()) continue;
        ++n;
        CHECK(sample[1].tokens[0] == 7777);
        CHECK(std::equal(sample[1].tokens.begin() + 1, sample[1].tokens.end(), sample[0].tokens.begin()));
        CHECK(std::equal(sample[1].targets.begin(), sample[1].targets.end(), sample[0].tokens.begin()));
        CHECK(sample[0].tokens.back() != 0);
      }
    return std::pair{n, whole};
  };
  CHECK(reproduced(0).first == 0);
  const auto [n, whole] = reproduced(1);
  CHECK(n == whole);
  CHECK(n < 800);
  const auto [some, all_of_them] = reproduced(0.25);
  CHECK(std::abs(double(some) / double(all_of_them) - 0.25) <
        4 * std::sqrt(0.25 * 0.75 / double(all_of_them)));
}

TEST_CASE("what samples cannot be of is refused by name") {
  const auto all = texts();
  CHECK_THROWS_WITH(training::samples(all, {.documents = 0}, key{}), ContainsSubstring("documents"));
  CHECK_THROWS_WITH(training::samples(all, {.segments = 0}, key{}), ContainsSubstring("segments"));
  CHECK_THROWS_WITH(training::samples(all, {.segment = 0}, key{}), ContainsSubstring("segment"));
  CHECK_THROWS_WITH(training::samples(all, {.autoencode = 1.5}, key{}), ContainsSubstring("autoencode"));
}
