#include "unroll/estimate/parts/input_list.hpp"

#include "tests/support/catch.hpp"

namespace {

using namespace unroll;

std::vector<int> content(const input_list<int>& list) {
  const auto all = list.part(0, list.size());
  return {all.begin(), all.end()};
}

}  // namespace

TEST_CASE("inputs are given up at either end") {
  input_list<int> list(4);
  for (const int x : {1, 2, 3, 4, 5}) list.push(x);
  list.drop_last(1);
  list.drop_first(2);
  CHECK(content(list) == std::vector<int>{3, 4});
  CHECK(list.part(1, 1).front() == 4);
  list.clear();
  CHECK(list.size() == 0);
}

TEST_CASE("a copy of a list of inputs reserves what the original has") {
  input_list<int> list(100);
  list.push(7);
  const input_list<int> copy = list;
  CHECK(content(copy) == std::vector<int>{7});
  CHECK(copy.bytes() == list.bytes());
  CHECK(copy.bytes() >= 100 * sizeof(int));
  input_list<int> assigned(0);
  assigned = list;
  CHECK(assigned.bytes() == list.bytes());
}

TEST_CASE("after a resume a list waits for its inputs") {
  using Catch::Matchers::ContainsSubstring;
  input_list<int> list(4), resumed(4);
  for (const int x : {1, 2, 3}) list.push(x);
  std::int64_t count = 0;
  list.visit([&](std::string_view, view<std::int64_t> shown) { count = shown[0]; });
  CHECK(count == 3);
  const auto resume = [&](view<std::int64_t> shown) { shown[0] = count; };
  resumed.visit([&](std::string_view, view<std::int64_t> shown) { resume(shown); }, 4);
  CHECK(resumed.size() == 3);
  CHECK_THROWS_WITH(resumed.check_held(), ContainsSubstring("gives the last 3 inputs back"));
  const std::vector<int> two{2, 3}, three{1, 2, 3};
  CHECK_THROWS_WITH(resumed.hold(two), ContainsSubstring("has size 2, expected 3"));
  const input_list<int> copy = resumed;
  CHECK(copy.size() == 3);
  CHECK_THROWS_AS(copy.check_held(), error);
  resumed.hold(three);
  CHECK_NOTHROW(resumed.check_held());
  CHECK(content(resumed) == three);
  count = 5;
  CHECK_THROWS_WITH(
      input_list<int>(4).visit([&](std::string_view, view<std::int64_t> shown) { resume(shown); }, 4),
      ContainsSubstring("is 5, must lie in [0, 4]"));
}
