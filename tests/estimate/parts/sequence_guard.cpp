#include "unroll/estimate/parts/sequence_guard.hpp"

#include <map>

#include "tests/support/catch.hpp"
#include "unroll/core/block.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::Message;

struct system_of_sizes {
  using scalar = double;
  dims size() const { return {.params = 3, .state = 4, .tape = 5, .lanes = 2}; }
};

struct memory_of_sizes {
  using scalar = float;
  memory_dims size() const { return {.params = 3, .memory = 4, .tape = 5}; }
  bool independent() const { return false; }
  std::string identity() const { return "a map"; }
};

// What visit() shows, and the number it reads back as "finished".
struct visitor {
  std::map<std::string, std::string, std::less<>> texts;
  std::int64_t finished = -1;
  bool replace = false;

  void operator()(std::string_view name, std::string_view text) { texts.emplace(name, text); }
  void operator()(std::string_view name, view<std::int64_t> shown) {
    REQUIRE(name == "finished");
    if (replace)
      shown[0] = finished;
    else
      finished = shown[0];
  }
};

}  // namespace

TEST_CASE("a sequence is open from reset to close, and says which call it refuses") {
  const system_of_sizes f;
  sequence_guard<system_of_sizes> guard("name", f);
  const parameters<double> theta(3), few(2);
  gradient<double> g(3), many(4);
  CHECK(guard.estimator() == "name");
  guard.check_advance(theta, g);
  guard.check_finish(theta, g);
  CHECK_THROWS_MATCHES(guard.check_advance(few, g), error,
                       Message("name::advance: theta: has size 2, expected 3"));
  CHECK_THROWS_MATCHES(guard.check_finish(theta, many), error,
                       Message("name::finish: g: has size 4, expected 3"));

  const report r = guard.close({.steps = 7, .bytes = 8});
  CHECK((r.steps == 7 && r.bytes == 8));
  CHECK(guard.finished());
  CHECK_THROWS_MATCHES(guard.check_advance(theta, many), error,
                       Message("name::advance: call: comes after finish(), must come after reset()"));
  CHECK_THROWS_MATCHES(guard.check_finish(theta, g), error,
                       Message("name::finish: call: comes after finish(), must come after reset()"));
  guard.reset({});
  CHECK_FALSE(guard.finished());
  guard.check_advance(theta, g);
}

TEST_CASE("a sequence begins from a state of the system's size, or from its own") {
  const system_of_sizes f;
  sequence_guard<system_of_sizes> guard("name", f);
  const block<double, state_space> right(4), wrong(3);
  guard.close({});
  CHECK_THROWS_MATCHES(guard.reset(state<const double>(wrong)), error,
                       Message("name::reset: s0: has size 3, expected 4"));
  CHECK(guard.finished());
  guard.reset(state<const double>(right));
  CHECK_FALSE(guard.finished());
}

TEST_CASE("a sequence of segments begins without a state") {
  const memory_of_sizes f;
  sequence_guard<memory_of_sizes> guard("name", f);
  const block<float, state_space> any(4);
  guard.reset({});
  CHECK_THROWS_MATCHES(guard.reset(state<const float>(any)), error,
                       Message("name::reset: s0: is given, but a memory model begins without memories"));
}

TEST_CASE("a sequence is saved with whose numbers these are and whether it is finished") {
  sequence_guard<system_of_sizes> guard("name", {});
  guard.close({});
  visitor saved;
  guard.visit(saved, "window 2", {});
  CHECK(saved.finished == 1);
  CHECK(saved.texts == std::map<std::string, std::string, std::less<>>{
                           {"estimator", "name, window 2"},
                           {"system", "3 parameters, 4 of state, 5 of tape, 2 lanes"},
                           {"numbers", "double"}});

  sequence_guard<system_of_sizes> again("name", {});
  saved.replace = true;
  again.visit(saved, "window 2", {});
  CHECK(again.finished());
  saved.finished = 2;
  CHECK_THROWS_MATCHES(again.visit(saved, "", {}), error,
                       Message("visit: finished: is 2, must lie in [0, 1]"));

  sequence_guard<memory_of_sizes> segments("other", {});
  visitor shown;
  segments.visit(shown, "", {});
  CHECK(shown.finished == 0);
  CHECK(shown.texts == std::map<std::string, std::string, std::less<>>{
                           {"estimator", "other"},
                           {"system", "3 parameters, 4 of memory, 5 of tape"},
                           {"numbers", "float"},
                           {"kinds", "4 bytes a memory, 4 an activation, 4 a weight"},
                           {"model", "recurrent, a map"}});
}
