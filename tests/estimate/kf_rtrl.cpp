#include "unroll/estimate/kf_rtrl.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/golden_columns.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/enumerate.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

using golden::by_columns, golden::golden_columns;

/// Says of itself what is 1 % wrong.
struct wrong_factors : golden_columns {
  void factors(const input& in, const const_edge<double>& e, view<double> out, view<double> d) const {
    golden_columns::factors(in, e, out, d);
    d[3] *= 1.01;
  }
};

/// +, +, - and then +.
struct scripted {
  void reset(key) {}
  void mirror(bool) {}
  template <class T, class Space>
  void signs(std::int64_t t, view<T, Space> out) const {
    for (T& c : out) c = T(t == 2 ? -1 : 1);
  }
  bool coin(std::int64_t, double) const { return false; }
  index_t uniform(std::int64_t, index_t) const { return 0; }
  template <class T, class Space>
  void normals(std::int64_t, view<T, Space>) const {}
};

template <class F>
testing::enumeration exact(const F& f, params<const double> theta, std::span<const typename F::input> xs,
                           double epsilon) {
  testing::enumerator all;
  return testing::enumerate(all, kf_rtrl(f, {.epsilon = epsilon}, testing::enumerating_chooser(all)), theta,
                            xs);
}

template <class F>
struct task {
  F f;
  parameters<double> theta{f.size().params};
  std::vector<double> data = std::vector<double>(200);
  std::vector<cells::example<double>> xs;
  task(F cell, std::size_t steps) : f(cell) {
    f.init(theta, key{5});
    draw_normals(key{6}, 0, view<double>(data));
    for (std::size_t t = 0; t < steps; ++t) xs.push_back({data.data() + 12 * t, data.data() + 12 * t + 3});
  }
};

}  // namespace

TEST_CASE("kf_rtrl in the paper's timing has the golden mean, covariance and draw") {
  const auto theta = golden::columns_theta();
  const auto xs = golden::delayed_inputs();
  for (const double epsilon : {0., 1e-7, .5}) {
    const auto r = exact(golden_columns{}, theta, xs, epsilon);
    CHECK(golden::relative_error(r.mean, by_columns(golden::gradient)) < 1e-11);
    CHECK((std::abs(r.covariance_trace - golden::trace_kf_rtrl) < 1e-9) == (epsilon == 0));
  }
  gradient<double> g(8);
  kf_rtrl est(golden_columns{}, {.epsilon = 0}, scripted{});
  est.advance(theta, xs, g);
  CHECK(golden::relative_error(g, by_columns(golden::kf_rtrl_draw)) < 1e-13);
}

TEST_CASE("kf_rtrl is unbiased on cells of one matrix and of several, in lanes with signs of their own") {
  const auto unbiased = [](const auto& t) {
    const auto r = exact(t.f, t.theta, t.xs, 1e-7);
    CHECK(golden::relative_error(r.mean, testing::backward_gradient(t.f, t.theta, t.xs)) < 1e-11);
    CHECK(r.covariance_trace > 1e-9);
    return r.covariance_trace;
  };
  using cells::elman;
  unbiased(task(elman<double>({.in = 2, .hidden = 3, .out = 2}), 6));
  unbiased(task(cells::lstm<double>({.in = 2, .hidden = 2, .out = 1}), 6));
  unbiased(task(cells::gru<double>({.in = 2, .hidden = 3, .out = 2}), 6));

  // the covariances of the lanes add up
  const task both(elman<double>({.in = 1, .hidden = 2, .out = 0, .lanes = 2}), 4);
  double sum = 0;
  for (index_t l = 0; l < 2; ++l) {
    std::vector<cells::example<double>> own;
    for (const auto& x : both.xs) own.push_back(both.f.lanes_from(x, l));
    sum += exact(both.f.with_lanes(1), both.theta, own, 1e-7).covariance_trace;
  }
  CHECK(unbiased(both) == Approx(sum).epsilon(1e-10));
}

TEST_CASE("kf_rtrl costs a step, a vjp and a jacobian a step, and no more") {
  call_counts calls;
  const task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 5);
  kf_rtrl est(counted(t.f, calls));
  gradient<double> g(t.theta.size());
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK(calls == call_counts{.steps = 5, .vjps = 5, .jacobians = 5});
  CHECK((r.steps == 5 && r.vjps == 5 && r.jvps == 0));
}

TEST_CASE("kf_rtrl keeps the promises of every estimator and refuses what it cannot do") {
  const task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 15);
  CHECK(testing::estimator_conformance(kf_rtrl(t.f), t.theta, t.xs) == std::vector<std::string>{});
  CHECK(testing::system_conformance(golden_columns{}, golden::columns_theta(), golden::delayed_inputs()) ==
        std::vector<std::string>{});
  const auto wrong =
      testing::system_conformance(wrong_factors{}, golden::columns_theta(), golden::delayed_inputs());
  REQUIRE_FALSE(wrong.empty());
  for (const auto& line : wrong) CHECK_THAT(line, ContainsSubstring("factors: disagree with vjp"));
  CHECK_THROWS_WITH(kf_rtrl(t.f, {.epsilon = -1}), ContainsSubstring("epsilon"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(kf_rtrl(unknown), ContainsSubstring("factors"));
  // there the candidate's weights multiply r s, the other gates' s
  const cells::gru<double> before({.in = 1, .hidden = 2, .out = 1, .reset = cells::reset_kind::before});
  CHECK_THROWS_WITH(kf_rtrl(before), ContainsSubstring("factors"));
}
