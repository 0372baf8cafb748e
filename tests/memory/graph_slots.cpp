#include "unroll/memory/graph_slots.hpp"

#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("slots know whose graphs they hold, and batches come and go together") {
  graph_slots slots(5);
  CHECK(slots.size() == 5);
  CHECK(slots.live() == 0);
  slots.fill(1, 6, 3);
  slots.fill(4, 9, 1);
  CHECK(slots.live() == 4);
  const auto owners = [&] {
    std::vector<index_t> out;
    for (index_t slot = 0; slot < 5; ++slot) out.push_back(slots.owner(slot));
    return out;
  };
  CHECK(owners() == std::vector<index_t>{-1, 6, 7, 8, 9});
  CHECK(slots.first_of_batch(3) == 6);
  CHECK(slots.first_of_batch(4) == 9);
  CHECK(slots.size_of_batch(1) == 3);
  CHECK(slots.size_of_batch(4) == 1);
  CHECK(slots.size_of_batch(0) == 0);

  slots.release(0);  // is empty
  slots.release(2);
  CHECK(owners() == std::vector<index_t>{-1, -1, -1, -1, 9});
  CHECK(slots.live() == 1);
  slots.fill(0, 7, 2);
  slots.release_from(8);  // the graph of segment 7 goes with that of segment 8
  CHECK(slots.live() == 0);
  slots.fill(0, 3, 2);
  slots.release_from(5);
  CHECK(slots.live() == 2);
  slots.clear();
  CHECK(owners() == std::vector<index_t>(5, -1));
}

TEST_CASE("slots are read back only where their graphs fit together") {
  using pairs = std::vector<std::int64_t>;  // of each slot: segment, first segment of its batch
  const auto read_back = [](const pairs& numbers, index_t written = 8, index_t batch = 2) {
    graph_slots slots(3);
    std::size_t i = 0;
    slots.visit([&](std::string_view, view<std::int64_t> shown) { shown[0] = numbers[i++]; }, written, batch);
    return slots;
  };
  const graph_slots slots = read_back({4, 4, 5, 4, -1, -1});
  CHECK(slots.live() == 2);
  CHECK(slots.owner(1) == 5);
  CHECK(slots.size_of_batch(0) == 2);
  pairs shown;
  graph_slots(slots).visit([&](std::string_view, view<std::int64_t> v) { shown.push_back(v[0]); }, 8, 2);
  CHECK(shown == pairs{4, 4, 5, 4, -1, -1});
  CHECK_NOTHROW(read_back({2, 2, 4, 4, 1, 1}));
  for (const pairs& wrong :
       {pairs{8, 8, -1, -1, -1, -1},  // not written
        pairs{-2, -1, -1, -1, -1, -1}, pairs{4, 5, -1, -1, -1, -1}, pairs{4, -1, -1, -1, -1, -1},  // no first
        pairs{5, 4, -1, -1, -1, -1},                           // does not start with its first
        pairs{4, 4, -1, -1, 5, 4},                             // not side by side
        pairs{4, 4, 6, 4, -1, -1}, pairs{4, 4, 4, 4, -1, -1},  // twice
        pairs{3, 3, 5, 4, -1, -1}, pairs{2, 2, 3, 2, 4, 2}})   // a batch of three
    CHECK_THROWS_AS(read_back(wrong), error);
}
