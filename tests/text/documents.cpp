#include "unroll/text/documents.hpp"

#include <algorithm>
#include <set>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

using ids = std::vector<llama::token>;

ids range(int first, int count) {
  ids r;
  for (int i = 0; i < count; ++i) r.push_back(first + i);
  return r;
}

data::documents three() {
  data::documents d;
  d.add("a", range(0, 7));
  d.add("empty", {});
  d.add("b", range(100, 3));
  d.add("one", range(200, 1));
  return d;
}

}  // namespace

TEST_CASE("documents that are too short are counted") {
  data::documents all;
  for (const int n : {0, 1, 2, 2, 5}) all.add("", range(0, n));
  CHECK(all.shorter_than(0) == 0);
  CHECK(all.shorter_than(1) == 1);
  CHECK(all.shorter_than(2) == 2);
  CHECK(all.shorter_than(3) == 4);
  CHECK(all.shorter_than(6) == 5);
}

TEST_CASE("the .txt files of a folder are documents in the order of their names") {
  const folder f;
  write_file(f.path / "b.txt", "bb");
  write_file(f.path / "a.txt", std::string("\xff\x00z", 3));  // no UTF-8
  write_file(f.path / "c.txt", "");
  write_file(f.path / "a.md", "left out");
  std::filesystem::create_directory(f.path / "d.txt");
  const auto t = llama::byte_tokenizer();
  const data::documents d(f.path, t);
  REQUIRE(d.size() == 3);
  CHECK(d[0].name == "a.txt");
  CHECK(d[0].ids == ids{256, 255, 0, 'z'});
  CHECK(d[1].ids == ids{256, 'b', 'b'});
  CHECK(d[2].ids.empty());
  CHECK(d.tokens() == 7);
  const data::documents again(f.path, t, {.bos = false, .threads = 3});
  CHECK(again[0].ids == ids{255, 0, 'z'});
  CHECK(again[1].ids == ids{'b', 'b'});
  const data::documents one(f.path / "b.txt", t);
  CHECK(one.size() == 1);
  CHECK(one[0].ids == d[1].ids);
}

TEST_CASE("a folder without texts, a missing file and a refused text are named") {
  const folder f;
  const auto t = llama::byte_tokenizer();
  CHECK_THROWS_WITH(data::documents(f.path, t),
                    ContainsSubstring(f.path.string()) && ContainsSubstring("no .txt"));
  CHECK_THROWS_WITH(data::documents(f.path / "x.txt", t), ContainsSubstring("does not exist"));
  write_file(f.path / "x.txt", "xyz");
  const llama::tokenizer narrow({{"x"}}, {.unk = -1, .bos = -1, .eos = -1, .prefix = false});
  CHECK_THROWS_WITH(data::documents(f.path, narrow, {.bos = false}), ContainsSubstring("x.txt\": has \"y\""));
}

TEST_CASE("every place of every document begins a window, with the next ids as targets") {
  const auto d = three();
  data::windows w(d, 2, 4, key{5});
  std::multiset<int> starts;
  for (int n = 0; n < 500; ++n) {
    ids x(8), y(8);
    w.next(x, y);
    for (std::size_t l = 0; l < 2; ++l) {
      const int first = x[4 * l];
      starts.insert(first);
      if (first == 100) {  // three ids: filled up
        CHECK(ids(&x[4 * l], &x[4 * l] + 4) == ids{100, 101, 102, 0});
        CHECK(ids(&y[4 * l], &y[4 * l] + 4) == ids{101, 102, -1, -1});
      } else {
        for (std::size_t i = 0; i < 4; ++i) {
          CHECK(x[4 * l + i] == first + int(i));
          CHECK(y[4 * l + i] == first + int(i) + 1);
        }
      }
    }
  }
  CHECK(std::set<int>(starts.begin(), starts.end()) == std::set<int>{0, 1, 2, 100});
  for (const int s : {0, 1, 2, 100})
    CHECK(std::abs(int(starts.count(s)) - 250) < 5 * 14);  // 5 standard deviations
}

TEST_CASE("windows continue at a position and depend on the key") {
  const auto d = three();
  data::windows w(d, 2, 2, key{5}), resumed(d, 2, 2, key{5}), other(d, 2, 2, key{6});
  ids x(4), y(4), x2(4), y2(4);
  bool differs = false;
  for (int n = 0; n < 20; ++n) {
    w.next(x, y);
    other.next(x2, y2);
    differs = differs || x != x2;
  }
  CHECK(differs);
  CHECK(w.position() == 20);
  resumed.seek(19);
  resumed.next(x2, y2);
  CHECK(x == x2);
  CHECK(y == y2);
  CHECK_THROWS_WITH(w.next(std::span(x).first(3), y), ContainsSubstring("has size 3, expected 4"));
  data::documents small;
  small.add("one", {1});
  CHECK_THROWS_WITH(data::windows(small, 1, 1, key{}), ContainsSubstring("two ids"));
}

TEST_CASE("a stream reads every document once an epoch, from begin to end") {
  const auto d = three();
  data::document_stream s(d, 3, key{9});
  CHECK(s.segments(0) == 3);
  CHECK(s.segments(1) == 0);
  CHECK(s.segments_per_epoch() == 5);
  std::set<std::vector<index_t>> orders;
  for (int epoch = 0; epoch < 40; ++epoch) {
    std::vector<index_t> order;
    for (int n = 0; n < 5;) {
      ids whole;
      data::document_segment x;
      do {
        x = s.next();
        ++n;
        CHECK(x.epoch == epoch);
        CHECK(x.first == whole.empty());
        CHECK(x.at == index_t(whole.size()));
        CHECK((x.ids.size() == 3 || x.last));
        whole.insert(whole.end(), x.ids.begin(), x.ids.end());
      } while (!x.last);
      CHECK(whole == d[x.document].ids);
      order.push_back(x.document);
    }
    auto sorted = order;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == std::vector<index_t>{0, 2, 3});
    orders.insert(order);
  }
  CHECK(orders.size() == 6);  // all orders of three documents
}

TEST_CASE("a stream continues at any position") {
  const auto d = three();
  data::document_stream s(d, 2, key{3});
  for (int n = 0; n < 30; ++n) {
    data::document_stream resumed(d, 2, key{3});
    resumed.seek(s.position());
    const auto a = s.next(), b = resumed.next();
    CHECK(a.epoch == b.epoch);
    CHECK(a.ids.data() == b.ids.data());
    CHECK(a.ids.size() == b.ids.size());
    CHECK(a.last == b.last);
  }
  data::documents none;
  none.add("empty", {});
  CHECK_THROWS_WITH(data::document_stream(none, 2, key{}), ContainsSubstring("no ids"));
  CHECK_THROWS_AS(s.seek(-1), unroll::error);
}

TEST_CASE("stretches are whole, spread evenly and have the id behind their end") {
  data::documents d;
  d.add("a", {1, 2, 3, 4, 5, 6, 7});  // stretches of 3 begin at 1 and 4
  d.add("b", {8, 9, 10});             // none has an id behind its end
  d.add("c", {});
  d.add("d", {11, 12, 13, 14});
  using texts = std::vector<std::vector<llama::token>>;
  const auto of = [&](index_t length, index_t most) {
    texts out;
    for (const auto& s : data::stretches(d, length, most)) out.emplace_back(s.begin(), s.end());
    return out;
  };
  CHECK(of(3, 9) == texts{{1, 2, 3, 4}, {4, 5, 6, 7}, {11, 12, 13, 14}});
  CHECK(of(3, 2) == texts{{1, 2, 3, 4}, {4, 5, 6, 7}});
  CHECK(of(7, 2).empty());
}
