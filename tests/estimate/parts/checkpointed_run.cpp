#include "unroll/estimate/parts/checkpointed_run.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"

namespace {

using namespace unroll;
using rnn = golden::rnn<>;

const parameters<double> theta = golden::theta();

// Takes the inputs [first, first + count) of the sequence, block by block; what is over is run at the end.
report run(checkpointed_run<rnn>& steps, index_t first, index_t count) {
  const auto xs = golden::long_inputs(first + count);
  report r;
  for (index_t i = first; i < first + count; ++i) {
    steps.push(xs[std::size_t(i)]);
    if (steps.full()) REQUIRE(steps.forward(rnn{}, theta, r) == -1);
  }
  if (steps.pending() > 0) REQUIRE(steps.forward(rnn{}, theta, r) == -1);
  return r;
}

double carry(index_t k) { return 1 + .25 * double(k % 3); }

// The gradient and the cotangent of the first state, all steps in memory: blocks of `block` steps from s0 on.
struct result {
  gradient<double> g{8};
  block<double, state_cotangent_space> start{2};
};
result reference(index_t first, index_t count, index_t block, state<const double> s0, bool carried) {
  result out;
  report r;
  window_buffer<rnn> memory(rnn{}, count, block);
  memory.reset(rnn{}, s0);
  const auto xs = golden::long_inputs(first + count);
  for (index_t i = 0; i < count; ++i) {
    memory.push(xs[std::size_t(first + i)]);
    if (memory.pending() == block || i + 1 == count) REQUIRE(memory.forward(rnn{}, theta, r) == -1);
  }
  for (index_t at = (count - 1) / block * block; at >= 0; at -= block) {
    std::vector<double> factor;
    for (index_t i = at; i < at + block; ++i) factor.push_back(carry(i + 1));
    injection<double> in;
    if (carried) in.carry = factor.data();
    memory.backward(rnn{}, theta, at, std::min(block, count - at), in, out.start, out.g, r);
  }
  return out;
}

void check_same(const result& expected, const gradient<double>& g, dstate<const double> start) {
  for (index_t p = 0; p < 8; ++p) CHECK(g[p] == expected.g[p]);
  for (index_t i = 0; i < 2; ++i) CHECK(start[i] == expected.start[i]);
}

}  // namespace

TEST_CASE("a run in few states has the bits of one that keeps everything") {
  for (const index_t block : {1, 2, 5})
    for (const index_t slots : {1, 2, 4})
      for (const index_t count : {1, 4, 11}) {
        checkpointed_run<rnn> steps(rnn{}, slots, block, 0, 0);
        steps.reset(rnn{}, {});
        CHECK(run(steps, 0, count).steps == count);
        CHECK((steps.size() == count && steps.end() == count && steps.pending() == 0));
        gradient<double> g(8);
        report r;
        steps.backward(rnn{}, theta, nullptr, g, r);
        CHECK(r.vjps == count);
        CHECK((r.steps == 0) == (count <= block));  // the last block is still there, the others run again
        check_same(reference(0, count, block, {}, false), g, steps.start_gradient());
      }
}

TEST_CASE("the factor on an adjoint is asked for by the step that it passes") {
  checkpointed_run<rnn> steps(rnn{}, 2, 2, 7, 7);
  steps.reset(rnn{}, {});
  run(steps, 0, 7);
  gradient<double> g(8);
  report r;
  steps.backward(rnn{}, theta, carry, g, r);
  check_same(reference(0, 7, 2, {}, true), g, steps.start_gradient());
}

TEST_CASE("the next run begins where the last one ended, with an empty memory") {
  const std::vector<double> s0{.1, -.2};
  checkpointed_run<rnn> steps(rnn{}, 2, 2, 0, 4);
  steps.reset(rnn{}, state<const double>(s0));
  run(steps, 0, 5);
  const auto last = steps.last_state(rnn{}, theta);
  const std::vector<double> between{last[0], last[1]};
  steps.next();
  CHECK((steps.size() == 0 && steps.end() == 5 && steps.held() == 0));
  CHECK(steps.last_state(rnn{}, theta)[1] == between[1]);
  run(steps, 5, 3);
  CHECK(steps.end() == 8);
  gradient<double> g(8);
  report r;
  steps.backward(rnn{}, theta, nullptr, g, r);
  check_same(reference(5, 3, 2, state<const double>(between), false), g, steps.start_gradient());
}

TEST_CASE("inputs that wait for their block are run for the last state and later once more") {
  const auto xs = golden::long_inputs(5);
  checkpointed_run<rnn> waits(rnn{}, 2, 4, 0, 8), whole(rnn{}, 2, 4, 0, 8);
  for (auto* r : {&waits, &whole}) r->reset(rnn{}, {});
  run(waits, 0, 4);
  run(whole, 0, 5);
  waits.push(xs[4]);
  waits.push(xs[0]);
  waits.drop(1);
  CHECK((waits.pending() == 1 && !waits.full() && waits.held() == 5));
  const auto expected = whole.last_state(rnn{}, theta), shown = waits.last_state(rnn{}, theta);
  CHECK((shown[0] == expected[0] && shown[1] == expected[1]));
  report r;
  CHECK(waits.forward(rnn{}, theta, r) == -1);
  gradient<double> g(8);
  waits.backward(rnn{}, theta, nullptr, g, r);
  check_same(reference(0, 5, 4, {}, false), g, waits.start_gradient());
}

TEST_CASE("the bytes of a run are those reserved, until a longer one makes its list grow") {
  checkpointed_run<rnn> steps(rnn{}, 2, 2, 0, 4);
  steps.reset(rnn{}, {});
  const std::size_t before = steps.bytes();
  run(steps, 0, 4);
  CHECK(steps.bytes() == before);
  run(steps, 4, 2);
  CHECK(steps.bytes() > before);
}
