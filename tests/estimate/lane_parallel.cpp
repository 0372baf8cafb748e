#include "unroll/estimate/lane_parallel.hpp"

#include <new>
#include <utility>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/io/checkpoint.hpp"
#include "unroll/testing/conformance.hpp"

using namespace unroll;

namespace {

constexpr index_t lanes = 6, steps = 300;

template <class Cell>
struct task {
  Cell cell{{.in = 2, .hidden = 5, .out = 3, .lanes = lanes}};
  parameters<double> theta{cell.size().params};
  std::vector<double> x = std::vector<double>(steps * lanes * 2), y = std::vector<double>(steps * lanes * 3);
  std::vector<cells::example<double>> xs;
  task() {
    cell.init(theta, key{1});
    draw_normals(key{2}, 0, view<double>(x));
    draw_normals(key{3}, 0, view<double>(y));
    for (index_t t = 0; t < steps; ++t)
      xs.push_back({.x = x.data() + t * lanes * 2, .target = y.data() + t * lanes * 3});
  }
};

template <class E, class Task>
std::pair<gradient<double>, report> run(E& estimator, const Task& t) {
  gradient<double> g(t.theta.size());
  estimator.reset(key{7});
  report r = estimator.advance(t.theta, t.xs, g);
  r += estimator.finish(t.theta, g);
  return {g, r};
}

double distance(const gradient<double>& a, const gradient<double>& b) {
  double d = 0, n = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    d += (a[i] - b[i]) * (a[i] - b[i]);
    n += b[i] * b[i];
  }
  return std::sqrt(d / n);
}

bool same_bits(const gradient<double>& a, const gradient<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin());
}

const auto exact = [](const auto& part) { return bptt(part, {.max_steps = steps}); };

}  // namespace

TEMPLATE_TEST_CASE("dealing the lanes to several estimators leaves the gradient and the cost as they are", "",
                   cells::elman<double>, cells::linear<double>, cells::gru<double>, cells::lstm<double>) {
  task<TestType> t;
  t.xs[5].target = nullptr;
  bptt whole(t.cell, {.max_steps = steps});
  const auto [g, r] = run(whole, t);
  for (const index_t groups : {1, 2, 3, 6}) {
    lane_parallel dealt(t.cell, {.groups = groups}, exact);
    const auto [h, q] = run(dealt, t);
    CHECK(distance(h, g) < 1e-13);
    CHECK(q.loss == Approx(r.loss).epsilon(1e-12));
    CHECK(r.losses == (steps - 1) * lanes);
    CHECK(q.losses == r.losses);
    CHECK(q.consumed == r.consumed);
    CHECK(q.steps == r.steps);
    CHECK(q.vjps == r.vjps);
    CHECK(q.bytes > 0);
  }
}

TEST_CASE("the number of threads does not change a bit") {
  const task<cells::gru<double>> t;
  const auto make = [](const auto& part) { return tbptt(part, {.k1 = 3, .k2 = 7}); };
  lane_parallel one(t.cell, {.groups = 3, .threads = 1}, make);
  lane_parallel three(t.cell, {.groups = 3, .threads = 3}, make);
  const auto g = run(one, t).first;
  CHECK(same_bits(run(three, t).first, g));
  auto copy = three;
  CHECK(same_bits(run(copy, t).first, g));
}

TEST_CASE("an assignment that fails leaves what was dealt out as it was") {
  struct fragile : cells::elman<double> {
    index_t* copies;  // until one fails
    fragile(cells::elman<double> f, index_t& n) : cells::elman<double>(std::move(f)), copies(&n) {}
    fragile(const fragile& other) : cells::elman<double>(other), copies(other.copies) { count(); }
    fragile(fragile&&) noexcept = default;
    fragile& operator=(const fragile& other) {
      cells::elman<double>::operator=(other);
      count();
      return *this;
    }
    fragile& operator=(fragile&&) noexcept = default;
    ~fragile() = default;
    fragile with_lanes(index_t n) const { return {cells::elman<double>::with_lanes(n), *copies}; }
    void count() const {
      if (--*copies == 0) throw std::bad_alloc();
    }
  };
  const task<cells::elman<double>> t;
  index_t copies = -1;
  const auto dealt = [&](index_t groups) {
    return lane_parallel(fragile(t.cell, copies), {.groups = groups, .threads = 1}, exact);
  };
  auto to = dealt(3), from = dealt(2);
  const auto before = run(to, t).first, after = run(from, t).first;
  CHECK_FALSE(same_bits(before, after));
  index_t failures = 0;
  for (bool assigned = false; !assigned;) {
    copies = failures + 1;
    try {
      to = from;
      assigned = true;
    } catch (const std::bad_alloc&) {
      ++failures;
    }
    copies = -1;
    CHECK(same_bits(run(to, t).first, assigned ? after : before));
  }
  CHECK(failures >= 3);  // the system and the two groups
}

TEST_CASE("dealing out keeps the promises of every estimator") {
  task<cells::elman<double>> t;
  t.xs.resize(53);
  const std::vector<double> nan(lanes * 3, std::numeric_limits<double>::quiet_NaN());
  const cells::example<double> bad{.x = t.x.data(), .target = nan.data()};
  const auto wrong = [&](const auto& make) {
    return testing::estimator_conformance(lane_parallel(t.cell, {.groups = 3, .threads = 2}, make), t.theta,
                                          t.xs, &bad);
  };
  using strings = std::vector<std::string>;
  CHECK(wrong(exact) == strings{});
  CHECK(wrong([](const auto& part) { return tbptt(part, {.k1 = 3, .k2 = 7}); }) == strings{});
  CHECK(wrong([](const auto& part) { return uoro(part, {.block = 2}); }) == strings{});
  // groups that cut at different steps
  CHECK(wrong([](const auto& part) { return artbp(part, fixed_truncation(5), {.block = 4}); }) == strings{});
}

TEST_CASE("a random estimator draws from fold(key, group) in every group and replays") {
  const task<cells::elman<double>> t;
  lane_parallel dealt(t.cell, {.groups = 2}, [](const auto& part) { return uoro(part); });
  static_assert(gradient_estimator<decltype(dealt)>);
  static_assert(decltype(dealt)::unbiased);
  const auto g = run(dealt, t).first;
  CHECK(same_bits(run(dealt, t).first, g));
  gradient<double> by_hand(t.theta.size());
  for (const index_t group : {0, 1}) {
    uoro part(t.cell.with_lanes(lanes / 2));
    part.reset(fold(key{7}, std::uint64_t(group)));
    for (const auto& x : t.xs) {
      const auto own = t.cell.lanes_from(x, group * lanes / 2);
      part.advance(t.theta, {&own, 1}, by_hand);
    }
    part.finish(t.theta, by_hand);
  }
  CHECK(distance(g, by_hand) < 1e-12);
}

TEST_CASE("groups that do not divide the lanes are refused with both numbers") {
  const task<cells::elman<double>> t;
  CHECK_THROWS_WITH(lane_parallel(t.cell, {.groups = 4}, exact),
                    Catch::Matchers::ContainsSubstring("4") && Catch::Matchers::ContainsSubstring("6"));
}

TEST_CASE("a first state of the wrong size is refused before it is dealt out") {
  const task<cells::elman<double>> t;
  lane_parallel both(t.cell, {.groups = 2}, exact);
  const std::vector<double> s0(29);
  CHECK_THROWS_WITH(both.reset(key{1}, state<const double>(s0)),
                    "lane_parallel::reset: s0: has size 29, expected 30");
}

TEST_CASE("inputs given back after a resume are read only with the lanes and the numbers of those taken") {
  task<cells::elman<double>> t;
  const auto make = [](const auto& part) { return bptt(part, {.max_steps = steps}); };
  lane_parallel first(t.cell, {.groups = 3}, make), second(first);
  gradient<double> g(t.theta.size());
  first.reset(key{7});
  const std::span<const cells::example<double>> taken(t.xs.data(), 4);
  first.advance(t.theta, taken, g);
  checkpoint file;
  file.save("run", first);
  file.load("run", second);
  auto other = t.xs;
  other[1].lanes = lanes / 2;
  CHECK_THROWS_WITH(hold_inputs(second, std::span<const cells::example<double>>(other).first(4)),
                    "elman: x.lanes: is 3, the cell has 6");
  CHECK_THROWS_WITH(hold_inputs(second, taken.first(3)),
                    Catch::Matchers::ContainsSubstring("has size 3, expected 4"));
  const double kept = std::exchange(t.x[2 * lanes * 2], std::numeric_limits<double>::infinity());
  CHECK_THROWS_WITH(hold_inputs(second, taken), "hold_inputs: xs: input 2 is not finite");
  t.x[2 * lanes * 2] = kept;
  hold_inputs(second, taken);
  gradient<double> a(g), b(g);
  const auto rest = std::span<const cells::example<double>>(t.xs).subspan(4);
  first.advance(t.theta, rest, a);
  first.finish(t.theta, a);
  second.advance(t.theta, rest, b);
  second.finish(t.theta, b);
  CHECK(same_bits(a, b));
}

TEST_CASE("a step that is not finite is reported") {
  task<cells::elman<double>> t;
  t.x[5 * lanes * 2] = std::numeric_limits<double>::quiet_NaN();
  lane_parallel dealt(t.cell, {.groups = 3}, exact);
  gradient<double> g(t.theta.size());
  const report r = dealt.advance(t.theta, t.xs, g);
  CHECK(r.code == status::non_finite);
  CHECK(r.at == 5);
  CHECK(r.consumed == 5);
}

TEST_CASE("a group that diverges stops all of them, leaves no trace in g and asks for a reset") {
  task<cells::elman<double>> t;
  const auto make = [](const auto& part) { return tbptt(part, {.k1 = 4, .k2 = 8}); };
  lane_parallel dealt(t.cell, {.groups = 3}, make);
  const auto good = run(dealt, t).first;
  gradient<double> before(t.theta.size()), g(t.theta.size());
  dealt.reset(key{7});
  dealt.advance(t.theta, std::span(t.xs).first(8), before);
  t.y[(9 * lanes + 5) * 3] = 1e200;   // the loss of step 9 overflows in the last group,
  t.y[(10 * lanes + 0) * 3] = 1e200;  // that of step 10 in the first
  dealt.reset(key{7});
  report r = dealt.advance(t.theta, t.xs, g);
  CHECK(r.code == status::non_finite);
  CHECK(r.at == 9);
  CHECK(r.consumed == 11);  // all but the input that made the window complete
  CHECK(same_bits(g, before));
  r = dealt.advance(t.theta, t.xs, g);
  CHECK((r.code == status::non_finite && r.at == 9 && r.consumed == 0 && r.steps == 0));
  CHECK(dealt.finish(t.theta, g).code == status::non_finite);
  CHECK(same_bits(g, before));
  t.y[(9 * lanes + 5) * 3] = t.y[(10 * lanes + 0) * 3] = 0;
  task<cells::elman<double>> again;
  CHECK(same_bits(run(dealt, again).first, good));
}

TEST_CASE("dealing out allocates nothing after construction") {
  const task<cells::elman<double>> t;
  lane_parallel dealt(t.cell, {.groups = 2}, exact);
  gradient<double> g(t.theta.size());
  const testing::allocation_counter counter;
  dealt.reset(key{1});
  dealt.advance(t.theta, t.xs, g);
  dealt.finish(t.theta, g);
  CHECK(counter.count() == 0);
}
