#include "unroll/estimate/tbptt.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/lag_weights.hpp"

namespace {

using unroll::index_t;
using cell = golden::rnn<double>;

static_assert(unroll::gradient_estimator<unroll::tbptt<cell>>);
static_assert(unroll::gradient_estimator<unroll::tbptt<golden::rnn<float>>>);

unroll::testing::lag_table table(index_t k1, index_t k2, index_t steps) {
  return unroll::testing::lag_weights([&](auto f) { return unroll::tbptt(f, {.k1 = k1, .k2 = k2}); }, steps);
}

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

}  // namespace

TEST_CASE("tbptt(2, 4) has the lag weights of Williams and Peng") {
  const auto w = table(2, 4, 6);
  const std::array<std::string, 6> rows{"1.....", "11....", "111...", "1111..", "..111.", "..1111"};
  for (index_t t = 0; t < 6; ++t)
    for (index_t s = 0; s < 6; ++s) CHECK(w(t, s) == (rows[std::size_t(t)][std::size_t(s)] == '1' ? 1 : 0));
}

TEST_CASE("tbptt connects loss t with step s where s lies less than k2 in front of the end of t's group") {
  for (index_t k1 = 1; k1 <= 5; ++k1)
    for (index_t k2 = k1; k2 <= 9; ++k2) {
      const index_t steps = 13;
      const auto w = table(k1, k2, steps);
      for (index_t t = 0; t < steps; ++t) {
        const index_t end = (t / k1 + 1) * k1;  // also for the incomplete last group
        for (index_t s = 0; s < steps; ++s) CHECK(w(t, s) == (s <= t && s >= end - k2 ? 1 : 0));
      }
    }
}

TEST_CASE("tbptt's mean lag weight is 1, falls from lag k2 - k1 on and is 0 from lag k2 on") {
  const index_t k1 = 3, k2 = 8, steps = 30;
  const auto w = table(k1, k2, steps);
  for (index_t lag = 0; lag <= k2 + 2; ++lag) {
    double mean = 0;
    for (index_t t = 15; t < 15 + k1; ++t) mean += w(t, t - lag) / double(k1);
    const double expected = lag <= k2 - k1 ? 1 : lag < k2 ? double(k2 - lag) / double(k1) : 0;
    CHECK(std::abs(mean - expected) < 1e-15);
  }
}

TEST_CASE("tbptt with k1 = 1 gives the golden sliding gradients") {
  const auto xs = golden::inputs();
  // the constants have ten digits
  CHECK(golden::relative_error(run(unroll::tbptt(cell{}, {.k1 = 1, .k2 = 1}), xs), golden::lag_below_1) <
        1e-9);
  CHECK(golden::relative_error(run(unroll::tbptt(cell{}, {.k1 = 1, .k2 = 2}), xs), golden::lag_below_2) <
        1e-9);
  CHECK(golden::relative_error(run(unroll::tbptt(cell{}, {.k1 = 1, .k2 = 3}), xs), golden::gradient) < 1e-14);
}

TEST_CASE("tbptt over the whole sequence is bptt") {
  const auto xs = golden::long_inputs(20);
  const auto exact = run(unroll::bptt(cell{}, {.max_steps = 20, .block = 20}), xs);
  const auto whole = run(unroll::tbptt(cell{}, {.k1 = 20, .k2 = 20}), xs);
  for (index_t i = 0; i < 8; ++i) CHECK(whole[i] == exact[i]);  // the same pass, the same bits
  for (const index_t k1 : {1, 3, 7})
    CHECK(golden::relative_error(run(unroll::tbptt(cell{}, {.k1 = k1, .k2 = 26}), xs), exact) < 1e-13);
}

TEST_CASE("tbptt keeps every promise of an estimator") {
  const auto xs = golden::long_inputs(50);
  cell::input bad = xs[0];
  bad.x = std::nan("");
  for (const auto& [k1, k2] : {std::pair{1, 1}, {1, 16}, {3, 8}, {7, 7}, {40, 60}}) {
    const unroll::tbptt e(cell{}, {.k1 = k1, .k2 = k2});
    CHECK(unroll::testing::estimator_conformance(e, golden::theta(), xs, &bad) == std::vector<std::string>{});
  }
}

TEST_CASE("tbptt costs k2 / k1 vjps a step") {
  unroll::report r;
  run(unroll::tbptt(cell{}, {.k1 = 2, .k2 = 6}), golden::long_inputs(31), &r);
  CHECK(r.steps == 31);
  // groups end at 2, 4, 6, ..., 30 and 31; the last, incomplete one goes back to 32 - 6
  CHECK(r.vjps == 2 + 4 + 13 * 6 + 5);
  CHECK(r.losses == 31);
}

TEST_CASE("tbptt refuses k2 < k1") {
  CHECK_THROWS_AS(unroll::tbptt(cell{}, {.k1 = 0, .k2 = 4}), unroll::error);
  CHECK_THROWS_AS(unroll::tbptt(cell{}, {.k1 = 5, .k2 = 4}), unroll::error);
}

namespace {

// s' = theta s from 0.9; the loss is s' where the input says so.
struct power {
  using scalar = double;
  using input = int;
  unroll::dims size() const { return {.params = 1, .state = 1}; }
  void start(unroll::state<double> s) const { s[0] = .9; }
  void step(int counts, const unroll::edge<double>& e) const {
    e.next[0] = e.theta[0] * e.s[0];
    *e.loss = counts != 0 ? e.next[0] : 0;
  }
  void vjp(int counts, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext, double dloss,
           unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + (counts != 0 ? dloss : 0);
    if (!ds.empty()) ds[0] += d * e.theta[0];
    if (!dtheta.empty()) dtheta[0] += d * e.s[0];
  }
};

// The loss is theta[0] s' with s' = s + theta[1]: theta[0] enters only directly.
struct direct {
  using scalar = double;
  using input = int;
  unroll::dims size() const { return {.params = 2, .state = 1}; }
  void step(int, const unroll::edge<double>& e) const {
    e.next[0] = e.s[0] + e.theta[1];
    *e.loss = e.theta[0] * e.next[0];
  }
  void vjp(int, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext, double dloss,
           unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + dloss * e.theta[0];
    if (!ds.empty()) ds[0] += d;
    if (!dtheta.empty()) {
      dtheta[0] += dloss * e.next[0];
      dtheta[1] += d;
    }
  }
};

}  // namespace

TEST_CASE("no adjoint of an earlier pass leaks into a later one") {
  // d(theta^3 s0)/dtheta = 3 theta^2 s0 = 0.108; overlapping passes that keep old adjoints give 0.288
  const std::array<double, 1> theta{.2};
  const std::array counts{0, 0, 1}, all{1, 1, 1};
  unroll::tbptt e(power{}, {.k1 = 1, .k2 = 3});
  unroll::gradient<double> g(1);
  e.advance(theta, counts, g);
  CHECK(std::abs(g[0] - .108) < 1e-16);
  // the same with every loss counted: sum over t of t theta^(t - 1) s0
  g.zero();
  e.reset({});
  e.advance(theta, all, g);
  CHECK(std::abs(g[0] - (.9 + .36 + .108)) < 1e-15);
}

TEST_CASE("what a loss owes to theta directly is counted once") {
  // s_t = theta[1] t, so d/dtheta[0] = theta[1] (1 + ... + T) whatever k1 and k2
  const std::array<double, 2> theta{.5, 2};
  const std::vector<int> xs(10);
  for (const auto& [k1, k2] : {std::pair{1, 1}, {1, 4}, {2, 7}, {3, 3}}) {
    unroll::tbptt e(direct{}, {.k1 = k1, .k2 = k2});
    unroll::gradient<double> g(2);
    e.advance(theta, xs, g);
    e.finish(theta, g);
    CHECK(g[0] == 2 * 55);
  }
}

namespace {

// s' = A s + theta v with A = I/2 + superdiagonal/2 and v = +1 p times, then -1; the loss is s'_0, so that a
// gradient is a sum of the lag coefficients c_l = e_0' A^l v.
struct balancing {
  using scalar = double;
  using input = int;
  static constexpr index_t n = 23, p = 10;
  unroll::dims size() const { return {.params = 1, .state = n}; }
  static double v(index_t i) { return i < p ? 1 : -1; }
  void step(int, const unroll::edge<double>& e) const {
    for (index_t i = 0; i < n; ++i)
      e.next[i] = (e.s[i] + (i + 1 < n ? e.s[i + 1] : 0)) / 2 + e.theta[0] * v(i);
    *e.loss = e.next[0];
  }
  void vjp(int, const unroll::const_edge<double>&, unroll::dstate<const double> dnext, double dloss,
           unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    for (index_t i = 0; i < n; ++i) {
      const double d = (dnext.empty() ? 0 : dnext[i]) + (i == 0 ? dloss : 0);
      if (!ds.empty()) {
        ds[i] += d / 2;
        if (i + 1 < n) ds[i + 1] += d / 2;
      }
      if (!dtheta.empty()) dtheta[0] += d * v(i);
    }
  }
};

// Gradient that one period of k1 losses adds, a loss, far from the start.
double weight_per_loss(index_t k1, index_t k2) {
  unroll::tbptt e(balancing{}, {.k1 = k1, .k2 = k2});
  const std::array<double, 1> theta{.5};
  const std::vector<int> warm(static_cast<std::size_t>((k2 / k1 + 1) * k1)),
      period(static_cast<std::size_t>(k1));
  unroll::gradient<double> before(1), g(1);
  e.advance(theta, warm, before);
  e.advance(theta, period, g);
  return g[0] / double(k1);
}

}  // namespace

TEST_CASE("truncation points influence balancing the wrong way until it is very long") {
  // the true value is 2 (2 p - n) = -6
  CHECK(std::abs(weight_per_loss(1, 1) - 1) < 1e-15);
  CHECK(std::abs(weight_per_loss(1, 19) - 16.476) < 5e-4);
  CHECK(std::abs(weight_per_loss(1, 40) - .566) < 5e-4);
  CHECK(weight_per_loss(1, 41) < 0);
  CHECK(std::abs(weight_per_loss(1, 50) + 4.75) < 5e-3);
  CHECK(std::abs(weight_per_loss(1, 60) + 5.90) < 5e-3);
  CHECK(std::abs(weight_per_loss(1, 80) + 5.99989) < 5e-6);
  CHECK(weight_per_loss(109, 109) > 0);
  CHECK(weight_per_loss(110, 110) < 0);
  CHECK(std::abs(weight_per_loss(200, 200) + 2.71) < 5e-3);
}
