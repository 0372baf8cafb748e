#include "unroll/data/streams.hpp"

#include "tests/support/catch.hpp"
#include "unroll/text/characters.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("streams are contiguous and predict the next character") {
  const data::text t("abcdefghijklm", "letters", {.held_out = 0});
  auto s = data::streams<float>(t.train(), 3);
  REQUIRE(s.steps() == 4);
  for (index_t l = 0; l < 3; ++l) {
    for (index_t i = 0; i < 4; ++i) {
      CHECK(s.inputs()[std::size_t(i)].token[l] == 4 * l + i);
      CHECK(s.inputs()[std::size_t(i)].label[l] == 4 * l + i + 1);
    }
  }
  CHECK_THROWS_WITH(data::streams(t.train(), 3, 5),
                    ContainsSubstring("13 characters") && ContainsSubstring("16"));
  CHECK_THROWS_AS(data::streams({}, 1), unroll::error);
}
