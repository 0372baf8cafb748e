#include "unroll/estimate/kf_rtrl.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
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

/// The golden network in the paper's timing, with W column by column as one matrix that multiplies [s; x; 1].
struct golden_columns {
  using scalar = double;
  using input = golden::delayed_rnn::input;
  dims size() const { return {8, 2, 2, 0, 1}; }
  void start(state<double> s) const { s[0] = s[1] = .3; }
  static double a(const input& in, state<const double> s, index_t j) {
    return j < 2 ? s[j] : j == 2 ? in.x : 1;
  }

  void step(const input& in, const edge<double>& e) const {
    *e.loss = 0;
    for (index_t i = 0; i < 2; ++i) {
      double z = 0;
      for (index_t j = 0; j < 4; ++j) z += e.theta[2 * j + i] * a(in, e.s, j);
      e.next[i] = std::tanh(z);
      e.tape[i] = 1 - e.next[i] * e.next[i];
      if (in.scored) *e.loss += (e.s[i] - in.y[std::size_t(i)]) * (e.s[i] - in.y[std::size_t(i)]) / 2;
    }
  }
  void vjp(const input& in, const const_edge<double>& e, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> dtheta) const {
    for (index_t i = 0; i < 2; ++i) {
      const double d = dnext.empty() ? 0 : dnext[i] * e.tape[i];
      for (index_t j = 0; j < 4; ++j) {
        if (!ds.empty() && j < 2) ds[j] += d * e.theta[2 * j + i];
        if (!dtheta.empty()) dtheta[2 * j + i] += d * a(in, e.s, j);
      }
      if (!ds.empty() && in.scored) ds[i] += dloss * (e.s[i] - in.y[std::size_t(i)]);
    }
  }
  void jacobian(const input&, const const_edge<double>& e, view<double> j) const {
    for (index_t k = 0; k < 4; ++k) j[k] = e.tape[k % 2] * e.theta[k];
  }
  void immediate(const input& in, const const_edge<double>& e, view<double> m, index_t p0, index_t p1) const {
    for (index_t p = p0; p < p1; ++p) m[2 * p + p % 2] += e.tape[p % 2] * a(in, e.s, p / 2);
  }
  std::vector<weight_matrix> weight_matrices() const { return {{0, 2, 4, 2}}; }
  void factors(const input& in, const const_edge<double>& e, view<double> out, view<double> d) const {
    for (index_t j = 0; j < 4; ++j) {
      out[j] = a(in, e.s, j);
      d[j] = j % 3 == 0 ? e.tape[j / 2] : 0;
    }
  }
};

/// Says of itself what is 1 % wrong.
struct wrong_factors : golden_columns {
  void factors(const input& in, const const_edge<double>& e, view<double> out, view<double> d) const {
    golden_columns::factors(in, e, out, d);
    d[3] *= 1.01;
  }
};

std::vector<double> by_columns(const auto& by_rows) {
  std::vector<double> v(8);
  for (std::size_t k = 0; k < 8; ++k) v[k] = by_rows[k % 2 * 4 + k / 2];
  return v;
}
std::vector<double> golden_theta() {
  const auto theta = golden::theta();
  return by_columns(std::vector<double>(theta.begin(), theta.end()));
}

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
  const auto theta = golden_theta();
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
  CHECK(testing::system_conformance(golden_columns{}, golden_theta(), golden::delayed_inputs()) ==
        std::vector<std::string>{});
  const auto wrong = testing::system_conformance(wrong_factors{}, golden_theta(), golden::delayed_inputs());
  REQUIRE_FALSE(wrong.empty());
  for (const auto& line : wrong) CHECK_THAT(line, ContainsSubstring("factors: disagree with vjp"));
  CHECK_THROWS_WITH(kf_rtrl(t.f, {.epsilon = -1}), ContainsSubstring("epsilon"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(kf_rtrl(unknown), ContainsSubstring("factors"));
  // there the candidate's weights multiply r s, the other gates' s
  const cells::gru<double> before({.in = 1, .hidden = 2, .out = 1, .reset = cells::reset_kind::before});
  CHECK_THROWS_WITH(kf_rtrl(before), ContainsSubstring("factors"));
}
