#include "unroll/text/segments.hpp"

#include <numeric>
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

TEST_CASE("pieces of any length and overlap cover all items, as many as it takes") {
  for (index_t items = 0; items < 12; ++items)
    for (index_t length = 1; length < 14; ++length)
      for (index_t overlap = 0; overlap < length; ++overlap) {
        const segmenter cut(items, length, overlap);
        INFO(items << " items, length " << length << ", overlap " << overlap);
        index_t done = 0;
        for (index_t i = 0; i < cut.size(); ++i) {
          const piece p = cut[i];
          CHECK(p.first + p.repeated == done);  // what is new begins where the piece before ends
          CHECK(p.count > p.repeated);
          CHECK(p.count <= length);
          if (i > 0) CHECK(p.repeated == overlap);
          if (i + 1 < cut.size()) CHECK(p.count == length);
          done = p.first + p.count;
          CHECK(cut.covered(i + 1) == done);
        }
        CHECK(done == items);
        if (overlap == length - 1 && items > 0) CHECK(cut.size() == std::max<index_t>(items - length + 1, 1));
      }
  CHECK(segmenter(-1, 3).size() == 0);
  CHECK_THROWS_AS(segmenter(5, 0), unroll::error);
  CHECK_THROWS_AS(segmenter(5, 2, 2), unroll::error);
  CHECK_THROWS_AS(segmenter(5, 2, -1), unroll::error);
}

TEST_CASE("texts are cut so that every token but the first is scored once") {
  std::vector<llama::token> ids(20);
  std::iota(ids.begin(), ids.end(), 5);
  const auto cut = llama::segments_of(ids, 6);
  REQUIRE(cut.size() == 4);
  index_t scored = 0;
  for (std::size_t s = 0; s < cut.size(); ++s) {
    scored += cut[s].scored();
    for (std::size_t i = 0; i < cut[s].tokens.size(); ++i) {
      CHECK(cut[s].tokens[i] == ids[6 * s + i]);
      CHECK(cut[s].targets[i] == ids[6 * s + i + 1]);
    }
  }
  CHECK(scored == 19);
  CHECK(llama::scored(cut) == 19);
  CHECK(cut.back().tokens.size() == 1);
  CHECK(llama::segments_of(std::span(ids).first(1), 6).empty());
  CHECK(llama::segments_of({}, 6).empty());
  CHECK(llama::segments_of(std::span(ids).first(7), 6).size() == 1);
}

TEST_CASE("tokens with given targets are cut alike, which have to be as many") {
  const std::vector<llama::token> ids{1, 2, 3, 4, 5}, targets{2, 3, -1, 5, 6};
  const auto cut = llama::segments_of(ids, targets, 2);
  REQUIRE(cut.size() == 3);
  CHECK(cut[1].tokens.data() == &ids[2]);
  CHECK(cut[1].targets.data() == &targets[2]);
  CHECK(cut[1].scored() == 1);
  CHECK(cut[2].tokens.size() == 1);
  CHECK_THROWS_AS(llama::segments_of(ids, std::span(targets).first(4), 2), unroll::error);
}
