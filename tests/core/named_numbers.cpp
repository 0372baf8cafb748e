#include "unroll/core/named_numbers.hpp"

#include "tests/support/catch.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("a name and the numbers behind it are read") {
  const named_numbers plain("uoro"), two("tbptt:3:1.5e1");
  CHECK(plain.name() == "uoro");
  CHECK(plain.size() == 0);
  CHECK(plain.number(0, 2.5) == 2.5);
  CHECK(two.text() == "tbptt:3:1.5e1");
  CHECK(two.name() == "tbptt");
  CHECK(two.size() == 2);
  CHECK(two.number(1, 0) == 15);
  CHECK(two.count(1, 1) == 15);
  CHECK(two.count(2, 7) == 7);
  CHECK(named_numbers("").name().empty());
}

TEST_CASE("what is no number behind a name is refused") {
  for (const char* text :
       {"a:", ":", "a:x", "a:1x", "a: 1", "a:1:", "a:nan", "a:inf", "a:1e999", "a:0x1", "a:+1"}) {
    INFO(text);
    CHECK_THROWS_WITH(named_numbers(text), ContainsSubstring("is not a finite number"));
  }
  for (const char* text : {"a:0", "a:-1", "a:1.5", "a:1e10", "a:1e300"}) {
    INFO(text);
    CHECK_THROWS_WITH(named_numbers(text).count(0, 1),
                      ContainsSubstring("needs whole numbers from 1 to 1e9"));
  }
}
