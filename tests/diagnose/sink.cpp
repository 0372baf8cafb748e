#include "unroll/diagnose/sink.hpp"

#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "unroll/diagnose/csv_file.hpp"
#if __has_include(<nlohmann/json.hpp>)
#include "unroll/diagnose/json_sink.hpp"
#endif

using namespace unroll;

namespace {

std::vector<row> two_rows() {
  std::vector<row> rows(2);
  rows[0].add("name", "plain").add("value", 0.1).add("count", 3);
  rows[1].add("name", "a \"b\", c\nd").add("value", std::numeric_limits<double>::infinity()).add("note", "x");
  return rows;
}

}  // namespace

TEST_CASE("a table is aligned and leaves missing values blank") {
  std::vector<row> rows(2);
  rows[0].add("name", "uoro").add("value", 0.123456).add("count", 3);
  rows[1].add("name", "artbp c=.5").add("value", 12.0).add("note", "x");
  CHECK(to_table(rows) ==
        "name         value  count  note\n"
        "uoro        0.1235      3\n"
        "artbp c=.5      12         x\n");
  CHECK(to_table({}) == "\n");
}

TEST_CASE("csv quotes what must be quoted and keeps every digit") {
  CHECK(to_csv(two_rows()) ==
        "name,value,count,note\n"
        "plain,0.1,3,\n"
        "\"a \"\"b\"\", c\nd\",inf,,x\n");
  std::vector<row> rows(1);
  rows[0].add("third", 1.0 / 3);
  CHECK(to_csv(rows) == "third\n0.3333333333333333\n");
}

TEST_CASE("a name that is added again replaces its value") {
  row r;
  r.add("a", 1).add("b", 2.0).add("a", "x");
  REQUIRE(r.fields().size() == 2);
  CHECK(*r.find("a")->text() == "x");
  CHECK(r.find("c") == nullptr);
}

TEST_CASE("a file of rows replaces its predecessor and leaves nothing else behind") {
  const folder f;
  write_csv(f.path / "a.csv", two_rows());
  write_csv(f.path / "a.csv", {});
  CHECK(read_file(f.path / "a.csv") == "\n");
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(f.path)) ++files;
  CHECK(files == 1);
  CHECK_THROWS_AS(write_csv(f.path / "missing" / "a.csv", {}), unroll::error);
}

TEST_CASE("every number of a measurement has a column") {
  measurement m;
  m.code = status::non_finite;
  m.heavy_tails = true;
  m.bytes = 7;
  const row r = to_row("uoro", m);
  CHECK(r.fields().size() == 34);
  CHECK(*r.find("status")->text() == "non_finite");
  CHECK(*r.find("bytes")->count() == 7);
  CHECK(*to_short_row("uoro", m).find("note")->text() == "not finite: 0, heavy tails");
  m.code = status::ok;
  m.variance = 1;
  CHECK(note_of(m) == "heavy tails, no batches");
  m.heavy_tails = false;
  m.batches = 32;
  CHECK(note_of(m).empty());
  CHECK(to_short_row("uoro", m).find("note") == nullptr);
}

TEST_CASE("a profile of lags has norms as shares of the gradient and what lies behind each") {
  lag_profile p;
  p.gradient_norm = 2;
  p.lags = {{0, 2, 0.75, 0.75, 4}, {1, 1, 0.25, 1, 5}};
  CHECK(to_csv(to_rows(p)) ==
        "lag,norm,tail,projection,cumulative,phi\n"
        "0,1,0.5,0.75,0.75,4\n"
        "1,0.5,0,0.25,1,5\n");
}

#if __has_include(<nlohmann/json.hpp>)
TEST_CASE("json lines hold one object a row") {
  const auto text = to_json_lines(two_rows());
  const auto cut = text.find('\n');
  CHECK(text.substr(0, cut) == R"({"name":"plain","value":0.1,"count":3})");
  const auto second = nlohmann::json::parse(text.substr(cut + 1));
  CHECK(second["name"] == "a \"b\", c\nd");
  CHECK(second["value"].is_null());
  std::vector<row> rows(1);
  rows[0].add("bytes", "\xff");
  CHECK_NOTHROW(to_json_lines(rows));
}
#endif
