#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/json.hpp"

#include "tests/support/catch.hpp"

using Catch::Matchers::ContainsSubstring;
using unroll::parse_json;

TEST_CASE("JSON becomes a value") {
  const auto j = parse_json(R"({"a": [1, 2.5, "x", null, true], "b": {"a": {}}})", "f", "n");
  CHECK(j["a"][1] == 2.5);
  CHECK(j["b"]["a"].is_object());
  CHECK(parse_json(" 3 ", "f", "n") == 3);
}

TEST_CASE("damaged JSON, repeated names and deep nesting are refused by the name of the file") {
  for (const char* text : {"", "{", "{\"a\":}", "[1,]", "{} x", "1e999", "\"\xff\"", "nul", "{'a': 1}"})
    CHECK_THROWS_WITH(parse_json(text, "f", "file"), ContainsSubstring("f: file: is damaged JSON at byte"));
  CHECK_THROWS_WITH(parse_json(R"({"a": {"b": 1, "c": 2, "b": 3}})", "f", "file"),
                    ContainsSubstring("f: file: names \"b\" twice"));
  CHECK_NOTHROW(parse_json("[[[1], [2]]]", "f", "file", 3));
  CHECK_THROWS_WITH(parse_json("[[[1], [[2]]]]", "f", "file", 3), ContainsSubstring("deeper than 3 levels"));
  const std::string bomb(1 << 20, '[');
  CHECK_THROWS_WITH(parse_json(bomb, "f", "file"), ContainsSubstring("deeper than 16 levels"));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  CHECK_THROWS_WITH(parse_json(objects, "f", "file"), ContainsSubstring("deeper than 16 levels"));
}

TEST_CASE("a long name from a file is cut in messages and has no control characters") {
  const std::string name(100000, 'x');
  try {
    parse_json("{\"" + name + "\": 1, \"" + name + "\": 1}", "f", "file");
    FAIL("nothing was thrown");
  } catch (const unroll::error& e) {
    CHECK(std::string(e.what()).size() < 300);
  }
  CHECK(unroll::detail::in_quotes("a\n\x1b[0m") == "\"a??[0m\"");
}

TEST_CASE("every key of an object is read, harmless or refused by name") {
  const auto j = parse_json(R"({"a": 1, "b": 2, "new": null, "c": true})", "f", "file");
  const unroll::harmless_key harmless[] = {{"b", "a comment"}, {"d", "another"}};
  const unroll::json_members m(j, "f", "file");
  CHECK(m.integer("a") == 1);
  CHECK(m.find("new") == nullptr);
  CHECK_THROWS_WITH(m.refuse_unknown(), ContainsSubstring("f: file: \"b\" is 2, expected no such key"));
  CHECK_THROWS_WITH(m.refuse_unknown(harmless),
                    ContainsSubstring("f: file: \"c\" is true, expected no such key"));
  CHECK(m.truth("c", false));
  CHECK_NOTHROW(m.refuse_unknown(harmless));
  // asked for in vain: an implemented key that is not there
  CHECK(m.text("e", "no") == "no");
  CHECK_THROWS_WITH(m.integer("e"), ContainsSubstring("file: lacks \"e\""));
}

#endif
