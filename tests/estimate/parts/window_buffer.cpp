#include "unroll/estimate/parts/window_buffer.hpp"

#include <map>

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"

namespace {

using namespace unroll;
using rnn = golden::rnn<>;

const parameters<double> theta = golden::theta();

// Takes the inputs [first, first + count) of the sequence and runs them.
void run(window_buffer<rnn>& memory, index_t first, index_t count) {
  const auto xs = golden::long_inputs(first + count);
  for (index_t i = first; i < first + count; ++i) memory.push(xs[std::size_t(i)]);
  report r;
  REQUIRE(memory.forward(rnn{}, theta, r) == -1);
  CHECK(r.steps == count);
}

// The state behind `steps` steps, one by one.
std::array<double, 2> state_behind(index_t steps) {
  block<double, state_space> s(2), next(2);
  block<double, tape_space> tape(2);
  double loss = 0;
  rnn{}.start(s);
  for (const auto& x : golden::long_inputs(steps)) {
    rnn{}.step(x, {theta, s, next, tape, &loss, {}, 0});
    std::swap(s, next);
  }
  return {s[0], s[1]};
}
std::array<double, 2> pair(state<const double> s) { return {s[0], s[1]}; }

// Steps [first, first + count) backwards from a zero cotangent.
gradient<double> backward(window_buffer<rnn>& memory, index_t first, index_t count) {
  gradient<double> g(8);
  block<double, state_cotangent_space> delta(2);
  report r;
  memory.backward(rnn{}, theta, first, count, {}, delta, g, r);
  CHECK(r.vjps == count);
  return g;
}

}  // namespace

TEST_CASE("a window buffer holds the steps that the system makes one by one") {
  window_buffer<rnn> memory(rnn{}, 6, 6);
  memory.reset(rnn{}, {});
  run(memory, 0, 4);
  run(memory, 4, 2);
  CHECK((memory.size() == 6 && memory.pending() == 0 && memory.end() == 6));
  for (index_t i = 0; i < 6; ++i) {
    const auto e = memory.edge(rnn{}, theta, i);
    CHECK(e.t == i);
    CHECK(pair(e.s) == state_behind(i));
    CHECK(pair(e.next) == state_behind(i + 1));
    CHECK(memory.x(i).x == golden::long_inputs(6)[std::size_t(i)].x);
  }
  CHECK(pair(memory.last_state(rnn{}, theta)) == state_behind(6));

  const std::vector<double> s0{.1, -.2};
  memory.reset(rnn{}, state<const double>(s0));
  CHECK((memory.size() == 0 && memory.end() == 0));
  CHECK(pair(memory.last_state(rnn{}, theta)) == std::array{.1, -.2});
}

TEST_CASE("what a window buffer remembers is walked backwards alike wherever it lies") {
  window_buffer<rnn> moved(rnn{}, 4, 4), whole(rnn{}, 9, 9);
  moved.reset(rnn{}, {});
  whole.reset(rnn{}, {});
  run(whole, 0, 9);
  for (index_t first = 0; first < 9; ++first) {
    run(moved, first, 1);
    const index_t n = moved.size();
    REQUIRE(n == std::min<index_t>(first + 1, 3));
    CHECK(moved.end() == first + 1);
    CHECK(moved.edge(rnn{}, theta, 0).t == first + 1 - n);
    CHECK(moved.x(0).x == whole.x(first + 1 - n).x);
    const auto a = backward(moved, 0, n), b = backward(whole, first + 1 - n, n);
    for (index_t p = 0; p < 8; ++p) CHECK(a[p] == b[p]);
    moved.keep_last(2, 1);
    CHECK(moved.size() == std::min<index_t>(first + 1, 2));
  }
  moved.keep_last(0, 4);
  CHECK(moved.size() == 0);
  CHECK(pair(moved.last_state(rnn{}, theta)) == state_behind(9));
}

TEST_CASE("inputs that wait are run for the last state and later once more") {
  window_buffer<rnn> memory(rnn{}, 6, 6);
  memory.reset(rnn{}, {});
  run(memory, 0, 2);
  const auto xs = golden::long_inputs(6);
  for (std::size_t i = 2; i < 6; ++i) memory.push(xs[i]);
  memory.drop(1);
  CHECK((memory.pending() == 3 && memory.size() == 2 && memory.end() == 5));
  CHECK(pair(memory.last_state(rnn{}, theta)) == state_behind(5));
  CHECK((memory.pending() == 3 && memory.size() == 2));
  const std::vector<double> wrong(7);
  CHECK_THROWS_AS(memory.last_state(rnn{}, params<const double>(wrong)), error);
  report r;
  CHECK(memory.forward(rnn{}, theta, r) == -1);
  CHECK(r.steps == 3);
  CHECK(pair(memory.last_state(rnn{}, theta)) == state_behind(5));
}

TEST_CASE("a window buffer whose window has a bad step still has it pending") {
  window_buffer<rnn> memory(rnn{}, 4, 4);
  memory.reset(rnn{}, {});
  auto xs = golden::long_inputs(3);
  xs[1].x = std::nan("");
  for (const auto& x : xs) memory.push(x);
  report r;
  CHECK(memory.forward(rnn{}, theta, r) == 1);
  CHECK((memory.pending() == 3 && memory.size() == 0 && r.losses == 0));
}

TEST_CASE("a window buffer is saved and goes on") {
  std::map<std::string, std::vector<double>, std::less<>> numbers;
  std::map<std::string, std::int64_t, std::less<>> integers;
  bool replace = false;
  const auto visitor = [&](std::string_view name, auto shown) {
    if constexpr (std::is_same_v<decltype(shown), view<std::int64_t>>) {
      auto& kept = integers[std::string(name)];
      (replace ? shown[0] : kept) = replace ? kept : shown[0];
    } else {
      auto& kept = numbers[std::string(name)];
      if (replace)
        std::copy(kept.begin(), kept.end(), shown.begin());
      else
        kept.assign(shown.begin(), shown.end());
    }
  };
  const window_buffer<rnn>::limits most{.kept = 2, .pending = 1, .room = 1};
  const auto xs = golden::long_inputs(6);
  window_buffer<rnn> memory(rnn{}, 4, 4), resumed(rnn{}, 4, 4);
  memory.reset(rnn{}, {});
  run(memory, 0, 4);
  memory.keep_last(2, 1);
  memory.push(xs[4]);
  memory.visit(visitor, most);

  replace = true;
  resumed.reset(rnn{}, {});
  resumed.visit(visitor, most);
  CHECK_THROWS_AS(resumed.check_held(), error);
  REQUIRE(resumed.held() == memory.held());
  resumed.hold(std::span(xs).first(5).last(std::size_t(resumed.held())));
  CHECK((resumed.size() == 2 && resumed.pending() == 1 && resumed.end() == 5));
  report r;
  for (auto* m : {&memory, &resumed}) CHECK(m->forward(rnn{}, theta, r) == -1);
  const auto a = backward(memory, 0, 3), b = backward(resumed, 0, 3);
  for (index_t p = 0; p < 8; ++p) CHECK(a[p] == b[p]);

  integers["run"] = 4;  // no room for the step that must fit
  CHECK_THROWS_AS(resumed.visit(visitor, most), error);
}
