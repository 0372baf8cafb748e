#include "unroll/train/held_out.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/small_memory.hpp"
#include "tests/support/thread_ranks.hpp"
#include "unroll/text/documents.hpp"

using namespace unroll;
using small_memory::make;
using small_memory::shape;
using small_memory::start;

namespace {

data::documents texts() {
  data::documents all;
  for (const index_t n : {40, 30, 19}) all.add("text", small_memory::text(n, 17, std::uint64_t(n)));
  return all;
}

}  // namespace

TEST_CASE("the mean of held-out texts is that of their tokens, on any number of threads") {
  const auto model = make<double>(shape(), small_memory::options());
  const auto theta = start(model);
  const auto all = texts();
  auto stretches = data::stretches(all, 18, 9);
  REQUIRE(stretches.size() == 4);
  stretches[1] = stretches[1].first(10);  // one segment and a shorter one
  double sum = 0, tokens = 0;
  for (const auto& ids : stretches) {
    const auto text = llama::segments_of(ids, 6);
    const small_memory::pass_over<double> pass(model, theta, text, false);
    for (const double loss : pass.losses) sum += loss;
    tokens += double(ids.size()) - 1;
  }
  const auto on = [](index_t) { return true; };
  const double nll = training::mean_nll(model, theta, stretches, 6, 1, on);
  CHECK(nll == Approx(sum / tokens).epsilon(1e-13));
  CHECK(training::mean_nll(model, theta, stretches, 6, 3, on) == nll);
  CHECK(training::mean_nll(model, theta, {}, 6, 1, on) == 0);
  for (const index_t size : {2, 5})
    CHECK(thread_ranks::run(size, [&](const ranks& among) {
            if (training::mean_nll(model, theta, stretches, 6, 2, on, among) != nll)
              fail("test", "nll", "has other bits");
          }) == std::vector<std::string>(std::size_t(size)));
  // ended early: the mean of what was read
  std::vector<training::stretch> firsts;
  for (const auto& ids : stretches) firsts.push_back(ids.first(7));
  CHECK(training::mean_nll(model, theta, stretches, 6, 2, [](index_t t) { return t < 1; }) ==
        training::mean_nll(model, theta, firsts, 6, 1, on));
  CHECK(training::mean_nll(model, theta, stretches, 6, 2, [](index_t) { return false; }) == 0);
}

TEST_CASE("a reader of memories is asked before each segment whether to go on, and has no room for more") {
  const auto model = make<double>(shape(), small_memory::options());
  const auto theta = start(model);
  const auto ids = small_memory::text(25);
  const auto text = llama::segments_of(ids, 6);
  const small_memory::pass_over<double> pass(model, theta, text, false);
  memory_reader<llama::memory_llama<double>> reader(model, 4);
  CHECK(reader.losses(theta, text) == pass.losses);
  CHECK(reader.losses(theta, text, [](index_t t) { return t < 2; }) ==
        std::vector<double>(pass.losses.begin(), pass.losses.begin() + 2));
  CHECK(reader.losses(theta, text) == pass.losses);
  memory_reader<llama::memory_llama<double>> small(model, 3);
  CHECK_THROWS_AS(small.losses(theta, text), unroll::error);
}

TEST_CASE("the mean of a plain Llama is over the tokens of all stretches, whatever is computed together") {
  const auto all = texts();
  const auto stretches = data::stretches(all, 9, 5);
  REQUIRE(stretches.size() == 5);
  const llama::config c = shape();
  const auto model = make<double>(c, small_memory::options());
  double sum = 0;
  llama::language_model<double> one(c, {.sequences = 1, .length = 9});
  for (const auto& ids : stretches) sum += one.nll(model.weights(), ids.first(9), ids.subspan(1));
  llama::language_model<double> three(c, {.sequences = 3, .length = 9});
  CHECK(training::mean_nll(three, model.weights(), stretches) == Approx(sum / 45).epsilon(1e-13));
  CHECK(training::mean_nll(one, model.weights(), {}) == 0);
  llama::language_model<double> longer(c, {.sequences = 1, .length = 10});
  CHECK_THROWS_AS(training::mean_nll(longer, model.weights(), stretches), unroll::error);
}
