#include "unroll/text/segments.hpp"

#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("segments cover every input once, the last one shorter") {
  const std::vector<int> xs{1, 2, 3, 4, 5, 6, 7};
  std::vector<std::size_t> sizes;
  int next = 1;
  for (auto part : segments(std::span<const int>(xs), 3)) {
    sizes.push_back(part.size());
    for (int x : part) CHECK(x == next++);
  }
  CHECK(sizes == std::vector<std::size_t>{3, 3, 1});
  for (auto part : segments(std::span<const int>(), 3)) FAIL(part.size());
  CHECK_THROWS_AS(segments(std::span<const int>(xs), 0), unroll::error);
}
