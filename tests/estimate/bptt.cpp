#include "unroll/estimate/bptt.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/lag_weights.hpp"

namespace {

using unroll::index_t;
using cell = golden::rnn<double>;

static_assert(unroll::gradient_estimator<unroll::bptt<cell>>);
static_assert(unroll::gradient_estimator<unroll::bptt<golden::rnn<float>>>);

template <class E>
unroll::gradient<double> run(E& e, std::span<const cell::input> xs, unroll::report* total = nullptr) {
  const auto theta = golden::theta();
  unroll::gradient<double> g(8);
  e.reset({});
  unroll::report r = e.advance(theta, xs, g);
  r += e.finish(theta, g);
  REQUIRE(r.code == unroll::status::ok);
  if (total) *total = r;
  return g;
}

}  // namespace

TEST_CASE("bptt gives the golden gradient and loss") {
  for (const index_t block : {1, 2, 3, 128}) {
    unroll::bptt e(cell{}, {.max_steps = 5, .block = block});
    unroll::report r;
    const auto g = run(e, golden::inputs(), &r);
    CHECK(golden::relative_error(g, golden::gradient) < 1e-14);
    CHECK(std::abs(r.loss - golden::loss) < 1e-15);
    CHECK(r.losses == 3);
  }
}

TEST_CASE("bptt agrees with differences of the loss and with the sum of jvps") {
  const auto xs = golden::long_inputs(40);
  const auto theta = golden::theta();
  unroll::bptt e(cell{}, {.max_steps = 40, .block = 16});
  const auto g = run(e, xs);
  CHECK(unroll::testing::relative_error(g, unroll::testing::difference_gradient(cell{}, theta, xs)) < 1e-9);
  CHECK(unroll::testing::relative_error(g, unroll::testing::forward_gradient(cell{}, theta, xs)) < 1e-13);
}

TEST_CASE("bptt keeps every promise of an estimator") {
  const auto xs = golden::long_inputs(50);
  cell::input bad = xs[0];
  bad.y[1] = std::nan("");
  for (const index_t block : {1, 7, 16, 64}) {
    INFO("block " << block);
    const unroll::bptt e(cell{}, {.max_steps = 64, .block = block});
    CHECK(unroll::testing::estimator_conformance(e, golden::theta(), xs, &bad) == std::vector<std::string>{});
  }
  const auto single = golden::long_inputs<float>(50);
  const unroll::bptt e(golden::rnn<float>{}, {.max_steps = 50});
  CHECK(unroll::testing::estimator_conformance(e, golden::theta<float>(), single) ==
        std::vector<std::string>{});
}

TEST_CASE("bptt weighs every pair of steps with one") {
  const auto w =
      unroll::testing::lag_weights([](auto f) { return unroll::bptt(f, {.max_steps = 12, .block = 5}); }, 12);
  for (index_t t = 0; t < 12; ++t)
    for (index_t s = 0; s < 12; ++s) CHECK(w(t, s) == (s <= t ? 1 : 0));
}

TEST_CASE("bptt costs one step and one vjp a step") {
  unroll::bptt e(cell{}, {.max_steps = 50, .block = 16});
  unroll::report r;
  run(e, golden::long_inputs(50), &r);
  CHECK(r.steps == 50);
  CHECK(r.vjps == 50);
  CHECK(r.jvps == 0);
  CHECK(r.consumed == 50);
  // 51 states of 2, 50 tapes of 2, 50 losses, 2 + 2 of workspace, one cotangent of 2; and the inputs
  CHECK(r.bytes == (102 + 100 + 50 + 4 + 2) * sizeof(double) + 50 * sizeof(cell::input));
}

TEST_CASE("bptt gives the gradient with respect to the start") {
  const auto xs = golden::long_inputs(9);
  const auto theta = golden::theta();
  unroll::bptt e(cell{}, {.max_steps = 9, .block = 4});
  run(e, xs);
  for (index_t i = 0; i < 2; ++i) {
    const double expected = unroll::testing::ridders_derivative([&](double h) {
      std::array<double, 2> s{.3, .3};
      s[std::size_t(i)] += h;
      return unroll::testing::sequence_loss(cell{}, theta, xs, unroll::state<const double>(s));
    });
    CHECK(std::abs(e.start_gradient()[i] - expected) < 1e-10);
  }
}

TEST_CASE("bptt refuses a sequence that does not fit, and calls after finish") {
  const auto xs = golden::long_inputs(6);
  const auto theta = golden::theta();
  unroll::gradient<double> g(8);
  unroll::bptt e(cell{}, {.max_steps = 5});
  CHECK_THROWS_AS(e.advance(theta, xs, g), unroll::error);
  e.advance(theta, std::span(xs).first(5), g);  // the call that threw has taken nothing
  CHECK_THROWS_AS(e.advance(theta, std::span(xs).first(1), g), unroll::error);
  e.finish(theta, g);
  CHECK_THROWS_AS(e.advance(theta, {}, g), unroll::error);
  CHECK_THROWS_AS(e.finish(theta, g), unroll::error);
  e.reset({});
  CHECK_NOTHROW(e.finish(theta, g));  // an empty sequence
  CHECK_THROWS_AS(unroll::bptt(cell{}, {.max_steps = 0}), unroll::error);
  CHECK_THROWS_AS(unroll::bptt(cell{}, {.block = 0}), unroll::error);
}

namespace {

// s' = theta s, loss = s'^2 / 2: overflows where theta > 1.
struct growth {
  using scalar = double;
  using input = int;
  unroll::dims size() const { return {.params = 1, .state = 1}; }
  void start(unroll::state<double> s) const { s[0] = 1; }
  void step(int, const unroll::edge<double>& e) const {
    e.next[0] = e.theta[0] * e.s[0];
    *e.loss = e.next[0] * e.next[0] / 2;
  }
  void vjp(int, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext, double dloss,
           unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + dloss * e.next[0];
    if (!ds.empty()) ds[0] += d * e.theta[0];
    if (!dtheta.empty()) dtheta[0] += d * e.s[0];
  }
};

}  // namespace

TEST_CASE("a state that overflows ends the sequence in front of it") {
  // theta = 1e40: losses are 1e80 / 2, 1e160 / 2, 1e240 / 2 and then infinite, at step 3
  const std::array<double, 1> theta{1e40};
  const std::vector<int> xs(10);
  for (const index_t block : {1, 2, 3, 8, 10}) {
    unroll::bptt e(growth{}, {.max_steps = 10, .block = block});
    unroll::gradient<double> g(1);
    unroll::report r = e.advance(theta, xs, g);
    CHECK(r.code == unroll::status::non_finite);
    CHECK(r.at == 3);
    CHECK(r.consumed == 3);
    r = e.finish(theta, g);
    CHECK(r.code == unroll::status::ok);
    unroll::bptt three(growth{}, {.max_steps = 3, .block = block});
    unroll::gradient<double> expected(1);
    three.advance(theta, std::span(xs).first(3), expected);
    three.finish(theta, expected);
    CHECK(g[0] == expected[0]);
  }
  // an input of an earlier call stays taken; the failure shows when its block is run
  unroll::bptt e(growth{}, {.max_steps = 10, .block = 6});
  unroll::gradient<double> g(1);
  CHECK(e.advance(theta, std::span(xs).first(5), g).consumed == 5);
  for (int again = 0; again < 2; ++again) {
    const unroll::report r = e.advance(theta, std::span(xs).first(5), g);
    CHECK(r.code == unroll::status::non_finite);
    CHECK(r.at == 3);
    CHECK(r.consumed == 0);
  }
  CHECK(e.finish(theta, g).code == unroll::status::non_finite);
  CHECK(e.finish(theta, g).at == 3);
  CHECK(g[0] == 0);
  // and it is gone with another theta
  const std::array<double, 1> smaller{0.5};
  CHECK(e.advance(smaller, std::span(xs).first(5), g).consumed == 5);
  CHECK(e.finish(smaller, g).code == unroll::status::ok);
}
