#include "unroll/estimate/bp_lambda.hpp"

#include <Eigen/Dense>
#include <limits>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "tests/support/gradient_of.hpp"
#include "tests/support/owed.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/dni.hpp"
#include "unroll/estimate/lane_parallel.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/system/with_resets.hpp"
#include "unroll/testing/conformance.hpp"
#include "unroll/testing/oracle.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using Eigen::MatrixXd;
using Eigen::RowVectorXd;
using support::gradient_of;
using elman = cells::elman<double>;
using resetting = with_resets<elman>;

const std::vector<double> half{.5};

/// Two lanes of three units, of which the first begins anew at 5 and both at 9.
struct episodes {
  support::random_task<elman> t{elman({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 14, key{3}};
  resetting f{t.cell};
  std::array<std::uint8_t, 2> first{1, 0}, both{1, 1};
  std::vector<resetting::input> xs;
  episodes() {
    for (std::size_t k = 0; k < t.xs.size(); ++k)
      xs.push_back({t.xs[k], k == 5 ? first.data() : k == 9 ? both.data() : nullptr});
  }
  /// One step of a lane: the states around it, J, q and q F.
  struct step {
    RowVectorXd s, next, q;
    MatrixXd J;
  };
  std::vector<step> steps_of(index_t lane) const {
    std::vector<step> all;
    testing::edge_memory<resetting> m(f);
    for (const auto& x : xs) {
      f.step(x, m.at(t.theta));
      step now{part(m.s, lane), part(m.next, lane), RowVectorXd(3), MatrixXd(3, 3)};
      for (index_t i = 0; i < 3; ++i) {
        std::vector<double> unit(6), row(6);
        unit[std::size_t(3 * lane + i)] = 1;
        f.vjp(x, m.at(t.theta), dstate<const double>(unit), 0, dstate<double>(row), {});
        now.J.row(i) = part(row, lane);
      }
      std::vector<double> owed(6);  // q J
      f.vjp(x, m.at(t.theta), {}, 1, dstate<double>(owed), {});
      now.q = part(owed, lane);
      all.push_back(now);
      m.s = m.next;
    }
    return all;
  }
  static RowVectorXd part(const std::vector<double>& v, index_t lane) {
    return Eigen::Map<const RowVectorXd>(v.data() + 3 * lane, 3);
  }
};

RowVectorXd with_one(const RowVectorXd& s) { return (RowVectorXd(4) << s, 1).finished(); }

}  // namespace

TEST_CASE("bp_lambda learns 9/32 in two steps with its trace, 17/64 without") {
  for (const auto& [lambda, w] : {std::pair(1., 9 / 32.), {0., 17 / 64.}}) {
    bp_lambda est(support::halving{}, {.lambda = lambda, .rate = 1, .affine = false});
    gradient<double> g(1);
    est.advance(half, std::vector<double>{0}, g);
    CHECK(est.synthesiser_numbers()[0] == 1 / 4.);
    CHECK(g[0] == .5);
    est.advance(half, std::vector<double>{0}, g);
    CHECK(est.synthesiser_numbers()[0] == w);
    CHECK(g[0] == .5 + (.25 + .25 * .25) * .5);
  }
  for (const double discount : {1., .5}) {
    const double fixed = .25 / (1 - .25 * discount);
    bp_lambda est(support::halving{}, {.lambda = 1, .discount = discount, .rate = 1, .affine = false});
    est.set_synthesiser(std::vector<double>{fixed});
    gradient_of(est, half, std::vector<double>(5));
    CHECK(est.synthesiser_numbers()[0] == Approx(fixed).epsilon(1e-15));
  }
}

TEST_CASE("bp_lambda teaches the lambda-returns of all states so far, lanes and episodes apart") {
  const episodes task;
  const double rate = 1e-7;
  MatrixXd phi(3, 4);
  phi << .3, -.2, .5, .7, -.1, .4, .2, -.6, .1, .8, -.3, .2;
  for (const double discount : {1., .6})
    for (const double lambda : {0., .5, 1.}) {
      MatrixXd taught = MatrixXd::Zero(3, 4);
      for (const index_t lane : {0, 1}) {
        const auto steps = task.steps_of(lane);
        const auto S = [&](const RowVectorXd& s) { return RowVectorXd(with_one(s) * phi.transpose()); };
        RowVectorXd back = S(steps.back().next);  // R behind the last step: nothing but S
        for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
          back = step->q + discount * ((1 - lambda) * S(step->next) + lambda * back) * step->J;
          taught += (back - S(step->s)).transpose() * with_one(step->s);
        }
      }
      bp_lambda est(task.f, {.lambda = lambda, .discount = discount, .rate = rate});
      est.set_synthesiser(view<const double>(phi.data(), 12));
      gradient_of(est, task.t.theta, task.xs);
      const MatrixXd learned = Eigen::Map<const MatrixXd>(est.synthesiser_numbers().data(), 3, 4);
      CAPTURE(lambda, discount);
      CHECK(((learned - phi) / (rate / (4 * 2)) - taught).norm() < 1e-6 * taught.norm());
    }
}

TEST_CASE("bp_lambda is the recursion written out, and sends back what it has learned") {
  const episodes task;
  const double lambda = .8, discount = .9, rate = .9;
  MatrixXd phi = MatrixXd::Zero(3, 4);
  const std::vector<episodes::step> steps[] = {task.steps_of(0), task.steps_of(1)};
  std::vector<MatrixXd> trace(2, MatrixXd::Zero(3, 12));  // n x |phi|
  std::vector<double> g(task.t.theta.size());
  testing::edge_memory<resetting> m(task.f);
  for (std::size_t k = 0; k < task.xs.size(); ++k) {
    MatrixXd change = MatrixXd::Zero(3, 4);
    std::vector<double> guess(6);
    for (std::size_t lane = 0; lane < 2; ++lane) {
      const auto& step = steps[lane][k];
      const RowVectorXd S = discount * with_one(step.next) * phi.transpose();
      for (std::size_t i = 0; i < 3; ++i) guess[3 * lane + i] = S[index_t(i)];
      const RowVectorXd d = step.q + S * step.J - with_one(step.s) * phi.transpose();
      const MatrixXd J = k == 0 ? MatrixXd::Zero(3, 3) : steps[lane][k - 1].J;
      trace[lane] = discount * lambda * J * trace[lane];
      for (index_t j = 0; j < 4; ++j)
        trace[lane].middleCols(3 * j, 3) += with_one(step.s)[j] * MatrixXd::Identity(3, 3);
      change += (d * trace[lane]).reshaped(3, 4);
    }
    task.f.step(task.xs[k], m.at(task.t.theta));
    task.f.vjp(task.xs[k], m.at(task.t.theta), dstate<const double>(guess), 1, {}, dparams<double>(g));
    m.s = m.next;
    phi += rate / (4 * 2) * change;
  }
  bp_lambda est(task.f, {.lambda = lambda, .discount = discount, .rate = rate});
  CHECK(golden::relative_error(gradient_of(est, task.t.theta, task.xs), g) < 1e-13);
  CHECK(golden::relative_error(est.synthesiser_numbers(), phi.reshaped()) < 1e-13);
  CHECK(phi.norm() > .01);

  bp_lambda any(any_system<double, resetting::input>(task.f),
                {.lambda = lambda, .discount = discount, .rate = rate});
  CHECK(golden::relative_error(gradient_of(any, task.t.theta, task.xs), g) < 1e-13);
}

TEST_CASE("bp_lambda with lambda 0 is dni of one step, with S = 0 it is tbptt of one") {
  const episodes task;
  CHECK(golden::relative_error(
            gradient_of(bp_lambda(task.f, {.lambda = 0, .rate = .5}), task.t.theta, task.xs),
            gradient_of(dni(task.f, {.window = 1, .rate = .5}), task.t.theta, task.xs)) < 1e-14);
  const auto g = gradient_of(bp_lambda(task.f, {.rate = 0}), task.t.theta, task.xs);
  const auto h = gradient_of(tbptt(task.f, {.k1 = 1, .k2 = 1}), task.t.theta, task.xs);
  for (index_t i = 0; i < g.size(); ++i) CHECK(g[i] == h[i]);
  // a trace that hardly lasts
  CHECK(golden::relative_error(
            gradient_of(bp_lambda(task.f, {.lambda = 1e-12, .rate = .5}), task.t.theta, task.xs),
            gradient_of(dni(task.f, {.window = 1, .rate = .5}), task.t.theta, task.xs)) < 1e-10);
}

TEST_CASE("bp_lambda finds what is owed in a linear network where that is an affine function of the state") {
  for (const auto& [lambda, discount] : {std::pair(.9, 1.), {.5, .7}}) {
    const auto phi = support::driven::learned(
        bp_lambda(support::driven{}, {.lambda = lambda, .discount = discount, .rate = .01}));
    const auto owed = support::driven::owed(discount);
    CAPTURE(lambda, discount, phi, owed);
    CHECK((phi - owed).norm() < .1 * owed.norm());
  }
}

TEST_CASE("bp_lambda costs a step, a vjp and a jacobian a step, and keeps the promises of every estimator") {
  // rows shorter than a vector, within four of them and longer
  for (const index_t hidden : {3, 9, 40}) {
    const support::random_task t(elman({.in = 2, .hidden = hidden, .out = 2, .lanes = 2}),
                                 hidden > 10 ? 5 : 15, key{3});
    call_counts calls;
    bp_lambda est(counted(t.cell, calls));
    calls = {};
    gradient<double> g(t.cell.size().params);
    const report r = est.advance(t.theta, t.xs, g);
    const auto steps = std::int64_t(t.xs.size());
    CHECK((calls.steps == steps && calls.vjps == steps && calls.jvps == 0));
    CHECK((r.steps == steps && r.vjps == steps));
    CHECK(r.bytes > std::size_t(8 * 2 * hidden * hidden * (hidden + 1)));
    if (hidden > 10) continue;
    for (const double lambda : {0., .9})
      CHECK(testing::estimator_conformance(bp_lambda(t.cell, {.lambda = lambda}), t.theta, t.xs, &t.bad) ==
            std::vector<std::string>{});
  }
}

TEST_CASE("bp_lambda of lanes that are dealt out has the same bits on any number of threads") {
  const episodes task;
  const auto dealt = [&](index_t threads) {
    return gradient_of(lane_parallel(task.f, {.groups = 2, .threads = threads},
                                     [](const auto& part) { return bp_lambda(part, {.rate = .5}); }),
                       task.t.theta, task.xs);
  };
  const auto one = dealt(1), two = dealt(2);
  CHECK(std::equal(one.begin(), one.end(), two.begin()));
}

TEST_CASE("bp_lambda begins again where what it has learned is no longer finite, and refuses wrong options") {
  bp_lambda wild(support::halving{}, {.rate = 1e200, .affine = false});
  gradient<double> g(1);
  index_t begun = 0;
  for (int t = 0; t < 8; ++t) {
    wild.advance(half, std::vector<double>{1}, g);
    CHECK(std::isfinite(wild.synthesiser_numbers()[0]));
    begun += wild.synthesiser_numbers()[0] == 0;
  }
  CHECK(begun > 0);
  const support::halving f;
  for (const double wrong : {-.1, 1.1, std::nan("")}) {
    CHECK_THROWS_WITH(bp_lambda(f, {.lambda = wrong}), ContainsSubstring("bp_lambda: lambda: is "));
    CHECK_THROWS_WITH(bp_lambda(f, {.discount = wrong}), ContainsSubstring("bp_lambda: discount: is "));
  }
  for (const double wrong : {-1., std::nan(""), std::numeric_limits<double>::infinity()})
    CHECK_THROWS_WITH(bp_lambda(f, {.rate = wrong}), ContainsSubstring("bp_lambda: rate: is "));
  bp_lambda est(f);
  CHECK_THROWS_WITH(est.set_synthesiser(half),
                    ContainsSubstring("bp_lambda::set_synthesiser: phi: has size 1"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(bp_lambda(unknown), ContainsSubstring("bp_lambda: system: has no jacobian"));
}
