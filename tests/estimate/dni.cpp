#include "unroll/estimate/dni.hpp"

#include <Eigen/Dense>
#include <limits>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "tests/support/gradient_of.hpp"
#include "tests/support/owed.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/estimate/bp_lambda.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/estimate/lane_parallel.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/system/with_resets.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/oracle.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using support::gradient_of;

const std::vector<double> half{.5};

// What the third loss of the golden network owes to the second state.
std::vector<double> owed_to_second_state() {
  testing::edge_memory<golden::rnn<>> m(golden::rnn<>{});
  const auto xs = golden::inputs();
  for (std::size_t t = 0; t < 3; ++t) {
    if (t > 0) m.s.swap(m.next);
    golden::rnn<>{}.step(xs[t], m.at(golden::theta()));
  }
  std::vector<double> ds(2);
  golden::rnn<>{}.vjp(xs[2], m.at(golden::theta()), {}, 1, dstate<double>(ds), {});
  return ds;
}

}  // namespace

TEST_CASE("dni with S = 0 is chunked_tbptt bit by bit") {
  const auto xs = golden::long_inputs(23);
  for (const index_t window : {1, 4, 23, 30}) {
    const auto g = gradient_of(dni(golden::rnn<>{}, {.window = window, .rate = 0}), golden::theta(), xs);
    const auto h = gradient_of(chunked_tbptt(golden::rnn<>{}, {.window = window}), golden::theta(), xs);
    for (index_t i = 0; i < g.size(); ++i) CHECK(g[i] == h[i]);
  }
}

TEST_CASE("dni with the true cotangent at the end of a window is bptt, and else as wrong as that") {
  const auto c = owed_to_second_state();
  dni est(golden::rnn<>{}, {.window = 2, .rate = 0});
  est.set_synthesiser(std::vector<double>{0, 0, 0, 0, c[0], c[1]});
  const auto exact = gradient_of(est, golden::theta(), golden::inputs());
  CHECK(golden::relative_error(exact, golden::gradient) < 1e-14);

  // the bias: (S(s_2) - c_2) (J_2 F_1 + F_2), the gradient by theta of that much of the second state
  const std::vector<double> phi{.3, -.2, .5, .7, -.1, .4};
  est.reset({});
  est.set_synthesiser(phi);
  const auto g = gradient_of(est, golden::theta(), golden::inputs());
  const auto& s = golden::states[1];
  const std::vector<double> wrong{phi[0] * s[0] + phi[2] * s[1] + phi[4] - c[0],
                                  phi[1] * s[0] + phi[3] * s[1] + phi[5] - c[1]};
  testing::edge_memory<golden::rnn<>> first(golden::rnn<>{}), second(golden::rnn<>{});
  const auto xs = golden::inputs();
  golden::rnn<>{}.step(xs[0], first.at(golden::theta()));
  second.s = first.next;
  golden::rnn<>{}.step(xs[1], second.at(golden::theta()));
  std::vector<double> ds(2), bias(8);
  golden::rnn<>{}.vjp(xs[1], second.at(golden::theta()), dstate<const double>(wrong), 0, dstate<double>(ds),
                      dparams<double>(bias));
  golden::rnn<>{}.vjp(xs[0], first.at(golden::theta()), dstate<const double>(ds), 0, {},
                      dparams<double>(bias));
  for (index_t i = 0; i < 8; ++i)
    CHECK(g[i] - golden::gradient[std::size_t(i)] == Approx(bias[std::size_t(i)]).margin(1e-14));
}

TEST_CASE("dni learns towards a third where each state is half of the one before, and is exact there") {
  // one step a window, a rate of 1: w = 0, 1/4, 17/64, and the states die away
  dni est(support::halving{}, {.window = 1, .rate = 1, .affine = false});
  gradient<double> g(1);
  for (const double w : {1 / 4., 17 / 64.}) {
    est.advance(half, std::vector<double>{0}, g);
    CHECK(est.synthesiser_numbers()[0] == w);
  }
  est.advance(half, std::vector<double>(60), g);
  CHECK(est.synthesiser_numbers()[0] == Approx(.26980403101412975));
  for (const index_t window : {1, 2, 3}) {
    dni fixed(support::halving{}, {.window = window, .rate = 1, .affine = false});
    fixed.set_synthesiser(std::vector<double>{1 / 3.});
    g.zero();
    fixed.advance(half, std::vector<double>(6), g);
    CHECK(fixed.synthesiser_numbers()[0] == Approx(1 / 3.).epsilon(1e-15));
    double owed = 0;  // 4/3 s_t to each of the first six, however long the sequence goes on
    for (int t = 1; t <= 6; ++t) owed += 4 / 3. * std::pow(.5, t) * std::pow(.5, t - 1);
    CHECK(g[0] == Approx(owed).epsilon(1e-14));
  }
}

TEST_CASE("dni finds what is owed in a linear network where that is an affine function of the state") {
  for (const index_t window : {1, 3}) {
    const auto phi = support::driven::learned(dni(support::driven{}, {.window = window, .rate = .01}));
    CAPTURE(window, phi, support::driven::owed(1));
    CHECK((phi - support::driven::owed(1)).norm() < .1 * support::driven::owed(1).norm());
  }
}

TEST_CASE("dni and bp_lambda have less bias than truncation where the state tells what is owed") {
  using support::driven;
  const double exact = driven::late_gradient(rtrl(driven{}));
  const auto bias = [&](auto est) { return std::abs(driven::late_gradient(std::move(est)) / exact - 1); };
  for (const index_t window : {1, 3}) {
    const double truncated = bias(chunked_tbptt(driven{}, {.window = window}));
    CAPTURE(window, truncated, bias(dni(driven{}, {.window = window})));
    CHECK(truncated > .2);
    CHECK(bias(dni(driven{}, {.window = window})) < .2 * truncated);
  }
  CHECK(bias(bp_lambda(driven{})) < .2 * bias(tbptt(driven{}, {.k1 = 1, .k2 = 1})));
}

TEST_CASE("dni learns from every lane, and of a lane that begins anew that nothing is owed") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 14,
                               key{3});
  using resetting = with_resets<cells::elman<double>>;
  const resetting f(t.cell);
  const std::uint8_t first[] = {1, 0}, both[] = {1, 1};
  std::vector<resetting::input> xs;
  for (std::size_t k = 0; k < t.xs.size(); ++k)
    xs.push_back({t.xs[k], k == 5 ? first : k == 9 ? both : nullptr});
  const index_t window = 4;
  const double rate = .7;

  // the same in matrices: phi 3 x 4, the states of two lanes side by side
  MatrixXd phi = MatrixXd::Zero(3, 4);
  VectorXd g = VectorXd::Zero(f.size().params);
  testing::edge_memory<resetting> m(f);
  const auto lanes = [](const auto& v) { return MatrixXd(Eigen::Map<const MatrixXd>(v.data(), 3, 2)); };
  const auto with_one = [](const MatrixXd& s) {
    return (MatrixXd(4, 2) << s, MatrixXd::Ones(1, 2)).finished();
  };
  for (std::size_t from = 0; from < xs.size(); from += window) {
    const std::size_t to = std::min(xs.size(), from + window);
    std::vector<testing::edge_memory<resetting>> steps;
    for (std::size_t k = from; k < to; ++k) {
      f.step(xs[k], m.at(t.theta));
      steps.push_back(m);
      m.s = m.next;
    }
    MatrixXd delta = MatrixXd::Zero(3, 2);
    if (to - from == window) delta = phi * with_one(lanes(m.s));
    for (std::size_t k = to; k-- > from;) {
      MatrixXd before = MatrixXd::Zero(3, 2);
      f.vjp(xs[k], steps[k - from].at(t.theta), dstate<const double>(delta.data(), 6), 1,
            dstate<double>(before.data(), 6), dparams<double>(g.data(), g.size()));
      delta = before;
    }
    const MatrixXd s = with_one(lanes(steps[0].s));
    if (to - from == window) phi += rate / (4 * 2) * (delta - phi * s) * s.transpose();
  }

  dni est(f, {.window = window, .rate = rate});
  const auto learned = gradient_of(est, t.theta, xs);
  CHECK(golden::relative_error(learned, g) < 1e-13);
  CHECK(golden::relative_error(est.synthesiser_numbers(), phi.reshaped()) < 1e-13);
  CHECK(phi.norm() > .01);

  lane_parallel dealt(f, {.groups = 2, .threads = 2},
                      [&](const auto& part) { return dni(part, {.window = window, .rate = rate}); });
  lane_parallel alone(f, {.groups = 2, .threads = 1},
                      [&](const auto& part) { return dni(part, {.window = window, .rate = rate}); });
  const auto many = gradient_of(dealt, t.theta, xs), one = gradient_of(alone, t.theta, xs);
  CHECK(std::equal(many.begin(), many.end(), one.begin()));
}

TEST_CASE("dni begins again where what it has learned is no longer finite") {
  dni est(support::halving{}, {.window = 1, .rate = 1e200, .affine = false});
  gradient<double> g(1);
  std::vector<double> seen;
  for (int t = 0; t < 6; ++t) {
    est.advance(half, std::vector<double>{1}, g);
    seen.push_back(est.synthesiser_numbers()[0]);
  }
  CHECK(std::count(seen.begin(), seen.end(), 0.) > 0);
  CHECK(std::all_of(seen.begin(), seen.end(), [](double w) { return std::isfinite(w); }));
}

TEST_CASE("dni costs what chunked_tbptt costs, and keeps the promises of every estimator") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 31,
                               key{3});
  for (const dni_options o : {dni_options{.window = 7}, {.window = 1, .affine = false}, {.window = 40}}) {
    call_counts calls;
    dni est(counted(t.cell, calls), o);
    calls = {};
    gradient<double> g(t.cell.size().params);
    report r = est.advance(t.theta, t.xs, g);
    r += est.finish(t.theta, g);
    CHECK(calls == call_counts{.steps = 31, .vjps = 31});
    CHECK((r.steps == 31 && r.vjps == 31));
    CHECK(testing::estimator_conformance(dni(t.cell, o), t.theta, t.xs, &t.bad) ==
          std::vector<std::string>{});
  }
  CHECK_THROWS_WITH(dni(t.cell, {.window = 0}), ContainsSubstring("dni: window"));
  for (const double wrong : {-1., std::nan(""), std::numeric_limits<double>::infinity()})
    CHECK_THROWS_WITH(dni(t.cell, {.rate = wrong}), ContainsSubstring("dni: rate"));
  dni est(t.cell);
  CHECK_THROWS_WITH(est.set_synthesiser(std::vector<double>(9)),
                    ContainsSubstring("dni::set_synthesiser: phi: has size 9, expected 12"));
  dni linear(t.cell, {.affine = false});
  CHECK_NOTHROW(linear.set_synthesiser(std::vector<double>(9)));
}
