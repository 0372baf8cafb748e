#include "unroll/text/characters.hpp"

#include <filesystem>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("the bytes of the training part are numbered densely, all others share one number") {
  const data::text t("banana! bandana?", "words", {.held_out = 0.4});  // held out: "ndana?", '?' is new
  CHECK(t.train().size() == 10);
  CHECK(t.held_out().size() == 6);
  CHECK(t.vocabulary() == 6);  // space ! a b n, and the rest
  CHECK(t.decode(t.train()) == "banana! ba");
  CHECK(t.decode(t.held_out()) == "n?ana?");  // d is new as well
  CHECK(t.held_out()[1] == t.unknown());
  CHECK(t.encode("\xff")[0] == t.unknown());
  const std::vector<std::int32_t> wrong{6};
  CHECK_THROWS_AS(t.decode(wrong), unroll::error);
}

TEST_CASE("a text is read from a file, and errors name it") {
  const folder f;
  const auto path = f.path / "text.txt";
  write_file(path, "to be or not to be");
  const data::text t(path);
  CHECK(t.decode(t.train()) == "to be or not to b");
  write_file(path, "");
  CHECK_THROWS_WITH(data::text(path), ContainsSubstring(path.string()) && ContainsSubstring("is empty"));
  write_file(path, "abc");
  CHECK_THROWS_WITH(data::text(path), ContainsSubstring(path.string()) && ContainsSubstring("3 bytes"));
  std::filesystem::remove(path);
  CHECK_THROWS_WITH(data::text(path),
                    ContainsSubstring(path.string()) && ContainsSubstring("does not exist"));
  CHECK_THROWS_WITH(data::text(path.parent_path()), ContainsSubstring("not a regular file"));
  CHECK_THROWS_AS(data::text("abc", "x", {.held_out = 1}), unroll::error);
}
