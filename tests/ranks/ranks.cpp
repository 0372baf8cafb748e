#include "unroll/ranks/ranks.hpp"

#include <cmath>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/thread_ranks.hpp"
#include "unroll/core/report.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

const std::vector<std::string> nothing(3);

// Numbers whose sum depends on the order in which they are added.
float item(index_t i, index_t j) {
  return std::ldexp(1.0f + float(i) / 7 + float(j % 11) / 13, int(i % 5) * 9);
}

}  // namespace

static_assert(communicator<thread_ranks::one_of>);
static_assert(!communicator<int>);

TEST_CASE("a process alone has every item and moves nothing") {
  const ranks one;
  CHECK(one.rank() == 0);
  CHECK(one.size() == 1);
  CHECK(one.first());
  CHECK(one.last());
  CHECK(one.owner(5) == 0);
  CHECK(one.begin(7) == 0);
  CHECK(one.end(7) == 7);
  CHECK(one.broadcast(0, 3.5) == 3.5);
  CHECK(one.broadcast_text(0, "text") == "text");
  CHECK(one.any(true));
  CHECK(!one.any(false));
  one.check_same("test", "a number", 3);
  double sum = 1;
  one.in_order(view<double>(&sum, 1), [](view<double> part, index_t begin) { part[begin] += 2; });
  CHECK(sum == 3);
}

TEST_CASE("every item has one rank, and their counts differ by one at most") {
  const auto said = thread_ranks::run(3, [](const ranks& all) {
    for (const index_t n : {0, 1, 2, 3, 7, 9}) {
      index_t end = 0;
      for (index_t r = 0; r < 3; ++r) {
        if (all.begin_of(n, r) != end) fail("test", "begin", "is not the end before");
        end = all.begin_of(n, r + 1);
        const index_t count = end - all.begin_of(n, r);
        if (count < n / 3 || count > n / 3 + 1) fail("test", "count", std::to_string(count));
      }
      if (end != n) fail("test", "end", std::to_string(end));
    }
    if (all.begin(7) != std::vector<index_t>{0, 3, 5}[std::size_t(all.rank())]) fail("test", "begin", "of 7");
  });
  CHECK(said == nothing);
}

TEST_CASE("numbers, texts and objects go from one rank to all") {
  const auto said = thread_ranks::run(3, [](const ranks& all) {
    for (index_t root = 0; root < 3; ++root) {
      check_size("test", "number", all.broadcast(root, all.rank() + 10), root + 10);
      const auto text = all.broadcast_text(root, std::string(std::size_t(all.rank()), 'a'));
      check_size("test", "text", index_t(text.size()), root);
      report r;
      r.loss = double(all.rank());
      r.steps = 7 * all.rank();
      all.broadcast_visited(root, r);
      check_size("test", "loss", index_t(r.loss), root);
      check_size("test", "steps", r.steps, 7 * root);
    }
  });
  CHECK(said == nothing);
}

TEST_CASE("sums over ranks have the bits of the sum in the order of the items") {
  constexpr index_t n = 150'000, items = 7;  // three slices
  std::vector<float> expected(n, 0.25f);
  for (index_t i = 0; i < items; ++i)
    for (index_t j = 0; j < n; ++j) expected[std::size_t(j)] += item(i, j);
  report work;
  for (index_t i = 0; i < items; ++i) work += report{.loss = double(item(i, 1)), .steps = i};
  for (const index_t size : {1, 2, 3, 9}) {
    const auto said = thread_ranks::run(size, [&](const ranks& all) {
      std::vector<float> sum(n, 0.25f);
      all.in_order(view<float>(sum), [&](view<float> part, index_t begin) {
        for (index_t i = all.begin(items); i < all.end(items); ++i)
          for (index_t j = 0; j < part.size(); ++j) part[j] += item(i, begin + j);
      });
      if (sum != expected) fail("test", "sum", "has other bits");
      report r;
      all.visited_in_order(r, [&](report& so_far) {
        for (index_t i = all.begin(items); i < all.end(items); ++i)
          so_far += report{.loss = double(item(i, 1)), .steps = i};
      });
      if (r.loss != work.loss || r.steps != work.steps) fail("test", "report", "is another");
    });
    CHECK(said == std::vector<std::string>(std::size_t(size)));
  }
}

TEST_CASE("ranks agree on what one of them knows, and say which of them differs") {
  const auto said = thread_ranks::run(3, [](const ranks& all) {
    for (index_t r = 0; r < 3; ++r)
      if (!all.any(all.rank() == r)) fail("test", "any", "is false");
    if (all.any(false)) fail("test", "any", "is true");
    all.check_same("test", "theta", 12);
    all.check_same("test", "theta", all.rank() == 0 ? 12 : 13);
  });
  for (const auto& text : said)
    CHECK_THAT(text, ContainsSubstring("test: theta: of rank 1 is not that of rank 0"));
}

TEST_CASE("a rank that ends in an error ends those that wait for it") {
  const auto said = thread_ranks::run(3, [](const ranks& all) {
    if (all.rank() == 1) fail("test", "rank", "has had enough");
    double sum = 0;
    all.in_order(view<double>(&sum, 1), [](view<double>, index_t) {});
  });
  CHECK_THAT(said[0], ContainsSubstring("rank 2 has ended"));
  CHECK_THAT(said[1], ContainsSubstring("has had enough"));
  CHECK_THAT(said[2], ContainsSubstring("rank 1 has ended"));
}
