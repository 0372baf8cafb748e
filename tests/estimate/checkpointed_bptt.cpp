#include "unroll/estimate/checkpointed_bptt.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/lag_weights.hpp"

namespace {

using unroll::index_t;
using cell = golden::rnn<double>;
using unroll::checkpointed_bptt;

static_assert(unroll::gradient_estimator<checkpointed_bptt<cell>>);
static_assert(unroll::gradient_estimator<checkpointed_bptt<golden::rnn<float>>>);

template <class E>
unroll::gradient<double> run(E e, std::span<const cell::input> xs, unroll::report* total = nullptr) {
  const auto theta = golden::theta();
  unroll::gradient<double> g(8);
  unroll::report r = e.advance(theta, xs, g);
  r += e.finish(theta, g);
  REQUIRE(r.code == unroll::status::ok);
  if (total) *total = r;
  return g;
}

bool same(const unroll::gradient<double>& a, const unroll::gradient<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin());
}

}  // namespace

TEST_CASE("checkpointed bptt has the bits of bptt for every length and number of slots") {
  for (const index_t block : {1, 3})
    for (index_t steps = 1; steps <= 40; ++steps) {
      const auto xs = golden::long_inputs(steps);
      const auto exact = run(unroll::bptt(cell{}, {.max_steps = 40, .block = block}), xs);
      const index_t blocks = (steps + block - 1) / block;
      for (index_t slots = 1; slots <= blocks; ++slots) {
        unroll::report r;
        const auto known =
            run(checkpointed_bptt(cell{}, {.slots = slots, .steps = steps, .block = block}), xs, &r);
        CHECK(same(known, exact));
        CHECK(r.vjps == steps);
        CHECK(r.losses == steps);
        if (block == 1) CHECK(r.steps == steps + unroll::least_advances(steps, slots));
        const auto unknown = run(checkpointed_bptt(cell{}, {.slots = slots, .block = block}), xs, &r);
        CHECK(same(unknown, exact));
        if (block == 1 && steps <= (slots + 1) * (slots + 2) / 2)
          CHECK(r.steps == steps + unroll::least_advances(steps, slots));
      }
    }
}

TEST_CASE("checkpointed bptt keeps every promise of an estimator") {
  const auto xs = golden::long_inputs(50);
  cell::input bad = xs[0];
  bad.x = std::nan("");
  using strings = std::vector<std::string>;
  for (const index_t block : {1, 4, 16, 64}) {
    INFO("block " << block);
    const checkpointed_bptt known(cell{}, {.slots = 3, .steps = 50, .block = block});
    CHECK(unroll::testing::estimator_conformance(known, golden::theta(), xs, &bad) == strings{});
    // of unknown length: the list of inputs grows, everything else stays in place
    const checkpointed_bptt unknown(cell{}, {.slots = 3, .block = block});
    CHECK(unroll::testing::estimator_conformance(unknown, golden::theta(), xs, &bad,
                                                 {.allocations = false}) == strings{});
  }
}

TEST_CASE("checkpointed bptt weighs every pair of steps with one") {
  const auto w =
      unroll::testing::lag_weights([](auto f) { return checkpointed_bptt(f, {.slots = 2, .block = 3}); }, 11);
  for (index_t t = 0; t < 11; ++t)
    for (index_t s = 0; s < 11; ++s) CHECK(w(t, s) == (s <= t ? 1 : 0));
}

TEST_CASE("the memory of checkpointed bptt is what its slots and block say") {
  const auto xs = golden::long_inputs(30);
  unroll::report r;
  run(checkpointed_bptt(cell{}, {.slots = 4, .steps = 30, .block = 5}), xs, &r);
  // 4 snapshots, 6 states, the last state and a cotangent of 2; 5 tapes of 2; losses and factors; workspace
  CHECK(r.bytes == (4 * 2 + 6 * 2 + 2 + 2 + 5 * 2 + 5 + 5 + 4) * sizeof(double) + 30 * sizeof(cell::input));
  // a budget of 7 states and a half gives 7 slots
  run(checkpointed_bptt(cell{}, {.bytes = 15 * sizeof(double), .steps = 30}), xs, &r);
  CHECK(r.steps == 30 + unroll::least_advances(30, 7));
  CHECK_THROWS_AS(checkpointed_bptt(cell{}, {.bytes = 15}), unroll::error);
  CHECK_THROWS_AS(checkpointed_bptt(cell{}, {.slots = 0}), unroll::error);
  CHECK_THROWS_AS(checkpointed_bptt(cell{}, {.block = 0}), unroll::error);
  CHECK_THROWS_AS(checkpointed_bptt(cell{}, {.steps = -1}), unroll::error);
}

TEST_CASE("checkpointed bptt refuses more steps than announced, and calls after finish") {
  const auto xs = golden::long_inputs(6);
  const auto theta = golden::theta();
  unroll::gradient<double> g(8);
  checkpointed_bptt e(cell{}, {.slots = 2, .steps = 5});
  CHECK_THROWS_AS(e.advance(theta, xs, g), unroll::error);
  e.advance(theta, std::span(xs).first(4), g);
  e.finish(theta, g);  // fewer are fine
  CHECK_THROWS_AS(e.advance(theta, {}, g), unroll::error);
  CHECK(same(g, run(unroll::bptt(cell{}, {.block = 1}), std::span(xs).first(4))));
  e.reset({});
  CHECK_NOTHROW(e.finish(theta, g));
}

TEST_CASE("a failed block leaves the steps in front of it reversible") {
  // the bad state shows only when its block is run: theta too large for a while
  auto xs = golden::long_inputs(20);
  const auto theta = golden::theta();
  for (const index_t block : {1, 3, 4, 7})
    for (index_t k = 1; k < 20; ++k) {
      auto spoiled = xs;
      spoiled[std::size_t(k)].y[0] = 1e200;  // its loss overflows, the input itself is finite
      checkpointed_bptt e(cell{}, {.slots = 2, .block = block});
      unroll::gradient<double> g(8);
      unroll::report r = e.advance(theta, spoiled, g);
      if (r.code == unroll::status::ok) {  // in the last, incomplete block
        r = e.finish(theta, g);
        CHECK(r.code == unroll::status::non_finite);
        CHECK(r.at == k);
        CHECK(std::all_of(g.begin(), g.end(), [](double v) { return v == 0; }));
        continue;
      }
      CHECK(r.at == k);
      CHECK(r.consumed == k);
      const bool go_on = k % 2 == 0;
      if (go_on) CHECK(e.advance(theta, std::span(xs).subspan(std::size_t(k)), g).code == unroll::status::ok);
      e.finish(theta, g);
      const auto part = std::span(xs).first(go_on ? xs.size() : std::size_t(k));
      CHECK(same(g, run(unroll::bptt(cell{}, {.block = block}), part)));
    }
}

TEST_CASE("checkpointed bptt gives the gradient with respect to the start") {
  const auto xs = golden::long_inputs(17);
  const auto theta = golden::theta();
  unroll::gradient<double> g(8);
  unroll::bptt exact(cell{}, {.block = 4});
  checkpointed_bptt e(cell{}, {.slots = 2, .block = 4});
  exact.advance(theta, xs, g);
  exact.finish(theta, g);
  e.advance(theta, xs, g);
  e.finish(theta, g);
  CHECK(e.start_gradient()[0] == exact.start_gradient()[0]);
  CHECK(e.start_gradient()[1] == exact.start_gradient()[1]);
}
