#include "unroll/system/learned_start.hpp"

#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/core/block.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/kf_rtrl.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/snap.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;
using strings = std::vector<std::string>;

namespace {

// Steps of a cell of one input, with a flag at step 3 of every second lane.
template <class Cell>
struct task {
  using input = resettable<cells::example<double>>;
  with_resets<Cell, true> f;
  parameters<double> theta;
  std::vector<double> x, y;
  std::vector<std::uint8_t> flags;
  std::vector<input> xs;

  task(const Cell& cell, index_t steps) : f(cell), theta(f.size().params) {
    const index_t lanes = cell.size().lanes, width = cell.options().hidden;
    x.resize(std::size_t(steps * lanes)), y.resize(std::size_t(steps * lanes * width));
    draw_normals(key{1}, 0, view<double>(x));
    draw_normals(key{1}, 1, view<double>(y));
    draw_normals(key{1}, 2, params<double>(theta));
    for (double& v : theta) v *= 0.5;
    for (index_t l = 0; l < lanes; ++l) flags.push_back(l % 2 == 0);
    for (index_t t = 0; t < steps; ++t)
      xs.push_back({{.x = x.data() + t * lanes, .target = y.data() + t * lanes * width},
                    t == 3 ? flags.data() : nullptr});
  }
  task(const task&) = delete;
};
const cells::elman<double> elman({.in = 1, .hidden = 2, .out = 0}),
    lanes({.in = 1, .hidden = 2, .out = 0, .lanes = 3});
const cells::lstm<double> lstm({.in = 1, .hidden = 2, .out = 0});

template <class E, class Task>
std::vector<double> gradient_by(E estimator, const Task& t) {
  gradient<double> g(t.theta.size());
  estimator.reset(key{3});
  estimator.advance(t.theta, t.xs, g);
  estimator.finish(t.theta, g);
  return {g.begin(), g.end()};
}
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double far = 0;
  for (std::size_t i = 0; i < a.size(); ++i) far = std::max(far, std::abs(a[i] - b[i]));
  return far;
}

}  // namespace

TEST_CASE("a learned start is a system in every respect") {
  const task<cells::elman<double>> one(elman, 6), three(lanes, 6);
  const task<cells::lstm<double>> gated(lstm, 6);
  CHECK(testing::system_conformance(one.f, one.theta, one.xs, {.steps = 6}) == strings{});
  CHECK(testing::system_conformance(three.f, three.theta, three.xs, {.steps = 6}) == strings{});
  CHECK(testing::system_conformance(gated.f, gated.theta, gated.xs, {.steps = 6}) == strings{});
}

TEST_CASE(
    "the gradient of a learned start is that of differences, and is the same for every exact estimator") {
  const auto check = [](const auto& t) {
    const auto g = gradient_by(bptt(t.f, {.max_steps = 7}), t);
    CHECK(testing::relative_error(testing::difference_gradient(t.f, t.theta, t.xs), g) < 1e-8);
    CHECK(std::any_of(g.end() - 2, g.end(), [](double v) { return std::abs(v) > 1e-3; }));
    CHECK(distance(gradient_by(rtrl(t.f), t), g) < 1e-12);
  };
  const task<cells::elman<double>> one(elman, 7), three(lanes, 7);
  const task<cells::lstm<double>> gated(lstm, 7);
  check(one);
  check(three);
  check(gated);
  CHECK(distance(gradient_by(snap(one.f, {.reach = 7}), one),
                 gradient_by(bptt(one.f, {.max_steps = 7}), one)) < 1e-12);
}

TEST_CASE("estimators that draw are unbiased for a learned start too") {
  const task<cells::elman<double>> t(elman, 4);
  const auto exact = gradient_by(bptt(t.f, {.max_steps = 4}), t);
  const auto unbiased = [&](auto make) {
    testing::enumerator all;
    const auto r = testing::enumerate(all, make(testing::enumerating_chooser(all)),
                                      params<const double>(t.theta), std::span(t.xs));
    CHECK(distance(r.mean, exact) < 1e-12);
    CHECK(r.covariance_trace > 0);
  };
  unbiased([&](const auto& c) { return uoro(t.f, {}, c); });
  unbiased([&](const auto& c) { return kf_rtrl(t.f, {}, c); });
}

TEST_CASE("a learned start over several lanes refuses what only one lane has") {
  const task<cells::elman<double>> three(lanes, 4);
  CHECK_THROWS_WITH(kf_rtrl(three.f), Catch::Matchers::ContainsSubstring("kf_rtrl"));
  bptt estimator(three.f, {.max_steps = 4});
  const std::vector<double> s0(6, 1.0);
  CHECK_THROWS_WITH(estimator.reset(key{1}, state<const double>(s0)),
                    Catch::Matchers::ContainsSubstring("learned_start: s0: is given, 6 numbers"));
  CHECK_FALSE(supports(three.f, hook::jacobian));
  CHECK(supports(three.f, hook::window));
}

TEST_CASE("a learned start begins with the start of its cell and has a name") {
  const auto f = learned_start(elman);
  parameters<double> theta(f.size().params), plain(elman.size().params);
  f.init(theta, key{5});
  elman.init(plain, key{5});
  CHECK(std::equal(plain.begin(), plain.end(), theta.begin()));
  const auto names = f.layout();
  CHECK(names.at("s0").offset == plain.size());
  for (const double v : names.part(params<double>(theta), "s0")) CHECK(v == 0);
}
