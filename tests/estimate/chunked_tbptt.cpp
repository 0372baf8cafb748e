#include "unroll/estimate/chunked_tbptt.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/lag_weights.hpp"

namespace {

using unroll::index_t;
using cell = golden::rnn<double>;

static_assert(unroll::gradient_estimator<unroll::chunked_tbptt<cell>>);

}  // namespace

TEST_CASE("chunked_tbptt connects the steps of a chunk and no others") {
  for (const index_t window : {1, 2, 4, 5, 11, 20}) {
    const index_t steps = 11;
    const auto w = unroll::testing::lag_weights(
        [&](auto f) { return unroll::chunked_tbptt(f, {.window = window}); }, steps);
    for (index_t t = 0; t < steps; ++t)
      for (index_t s = 0; s < steps; ++s) CHECK(w(t, s) == (s <= t && s / window == t / window ? 1 : 0));
  }
}

TEST_CASE("chunked_tbptt gives lag l the mean weight 1 - l / K") {
  const index_t window = 5;
  const auto w =
      unroll::testing::lag_weights([&](auto f) { return unroll::chunked_tbptt(f, {.window = window}); }, 20);
  for (index_t lag = 0; lag <= window; ++lag) {
    double mean = 0;
    for (index_t t = 10; t < 15; ++t) mean += w(t, t - lag) / 5;
    CHECK(std::abs(mean - (1 - double(lag) / 5)) < 1e-15);
  }
}

TEST_CASE("chunked_tbptt is bptt of every chunk from the state the one before has left") {
  const auto xs = golden::long_inputs(23);
  const auto theta = golden::theta();
  unroll::gradient<double> g(8), expected(8);
  unroll::chunked_tbptt e(cell{}, {.window = 6});
  unroll::report r = e.advance(theta, xs, g);
  r += e.finish(theta, g);
  CHECK(r.steps == 23);
  CHECK(r.vjps == 23);

  std::array<double, 2> s{.3, .3}, next{}, tape{}, workspace{};
  double loss = 0;
  unroll::bptt chunk(cell{}, {.max_steps = 6, .block = 6});
  for (std::size_t first = 0; first < 23; first += 6) {
    const auto part = std::span(xs).subspan(first, std::min<std::size_t>(6, 23 - first));
    chunk.reset({}, unroll::state<const double>(s));
    chunk.advance(theta, part, expected);
    chunk.finish(theta, expected);
    for (const auto& x : part) {
      cell{}.step(x, {theta, s, next, tape, &loss, workspace, 0});
      s = next;
    }
  }
  for (index_t i = 0; i < 8; ++i) CHECK(g[i] == expected[i]);
}

TEST_CASE("chunked_tbptt keeps every promise of an estimator") {
  const auto xs = golden::long_inputs(50);
  cell::input bad = xs[0];
  bad.x = std::nan("");
  for (const index_t window : {1, 7, 16, 64}) {
    const unroll::chunked_tbptt e(cell{}, {.window = window});
    CHECK(unroll::testing::estimator_conformance(e, golden::theta(), xs, &bad) == std::vector<std::string>{});
  }
  CHECK_THROWS_AS(unroll::chunked_tbptt(cell{}, {.window = 0}), unroll::error);
}
