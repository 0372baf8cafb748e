#include "unroll/text/sealed_map.hpp"

#include <map>
#include <string>

#include "tests/support/catch.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/text/vocabulary.hpp"
#include "unroll/text/word_cache.hpp"

using namespace unroll;
using namespace unroll::llama::detail;

namespace {

struct one_bucket {
  std::size_t operator()(int) const { return 7; }
};
struct four_buckets {
  std::size_t operator()(int key) const { return std::size_t(key & 3); }
};

}  // namespace

TEST_CASE("a sealed map holds the least value of every key and tells of the others") {
  const int keys = GENERATE(1, 12, 150);
  sealed_map<int, int, four_buckets> map;
  CHECK(map.find(3) == nullptr);
  std::map<int, int> right;
  int more = 0;
  for (int i = 0; i < 3 * keys; ++i) {
    const int key = int(draw_index({1}, i, keys)), value = int(draw_index({2}, i, 1000));
    map.add(key, value);
    const auto [at, is_new] = right.emplace(key, value);
    at->second = std::min(at->second, value);
    more += !is_new;
  }
  int told = 0;
  map.seal([&](int kept, int dropped) { told += kept <= dropped; });
  CHECK(told == more);
  for (int key = -1; key <= keys; ++key) {
    const int* found = map.find(key);
    const auto at = right.find(key);
    REQUIRE((found != nullptr) == (at != right.end()));
    if (found) CHECK(*found == at->second);
  }
  std::size_t all = 0;
  map.each([&](int key, int value) { all += right.at(key) == value; });
  CHECK(all == right.size());
}

TEST_CASE("keys of one hash are found as fast as any others") {
  sealed_map<int, int, one_bucket> map;
  const int n = 100000;  // searched one behind the other these would take 5 10^9 steps
  for (int i = 0; i < n; ++i) map.add(i * 2, i);
  map.seal();
  int right = 0;
  for (int i = 0; i < n; ++i) right += map.find(2 * i) && *map.find(2 * i) == i && !map.find(2 * i + 1);
  CHECK(right == n);
}

TEST_CASE("a cache of words has a place for every word, and a word that is there is found") {
  word_cache cache(100);
  std::vector<std::string> words;
  for (int i = 0; i < 300; ++i) words.push_back("word " + std::to_string(i));
  std::size_t found = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    cache.slot_of(words[i]) = {words[i], i, 1};
    found += cache.slot_of(words[i]).from == i;
    for (std::size_t j = 0; j < i; ++j)
      if (const auto& s = cache.slot_of(words[j]); s.word == words[j]) CHECK(s.from == j);
  }
  CHECK(found == words.size());
}
