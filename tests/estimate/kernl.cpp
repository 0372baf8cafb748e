#include "unroll/estimate/kernl.hpp"

#include <limits>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/episodes_apart.hpp"
#include "tests/support/golden_units.hpp"
#include "unroll/cells/leaky.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/estimate/rflo.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using leaky = cells::leaky<double>;
using linear = cells::linear<double>;

template <class E, class Theta, class Xs>
gradient<double> gradient_of(E&& est, const Theta& theta, const Xs& xs) {
  gradient<double> g(index_t(theta.size()));
  est.advance(theta, xs, g);
  return g;
}

support::random_task<leaky> task_of(index_t lanes) {
  return {leaky({.in = 2, .hidden = 4, .out = 2, .lanes = lanes, .dt = .3}), 30, key{3}};
}

}  // namespace

TEST_CASE("kernl with a kernel that is given has the golden gradient and bias in the paper's timing") {
  kernl est(golden::golden_units{}, {.rate = 0});
  const std::vector<double> a{1, -.2, .1, 1}, kappa{.3, .5};
  est.set_kernel(a, kappa);
  const auto g = gradient_of(est, golden::columns_theta(), golden::delayed_inputs());
  const std::array<double, 8> rows{.554822062324,  -.186343959447, .107535169297,  1.298848546821,
                                   -.332631082877, .122719133603,  -.044719338578, -.720682679940};
  CHECK(golden::relative_error(g, golden::by_columns(rows)) < 1e-11);
  CHECK(std::abs(golden::relative_error(g, golden::by_columns(golden::gradient)) - .254143) < 1e-6);
  CHECK(std::abs(golden::cosine(g, golden::by_columns(golden::gradient)) - .968610) < 1e-6);
  est.reset({});
  CHECK(est.decays()[1] == .5);
  CHECK(est.sensitivities()[1] == 0);
  CHECK_THROWS_WITH(est.set_kernel(kappa, kappa), ContainsSubstring("kernl::set_kernel: a"));
}

TEST_CASE("kernl without learning is rflo") {
  for (const index_t lanes : {1, 3}) {
    const auto t = task_of(lanes);
    CHECK(golden::relative_error(gradient_of(kernl(t.cell, {.rate = 0, .decay = .7}), t.theta, t.xs),
                                 gradient_of(rflo(t.cell, {.leak = .3}), t.theta, t.xs)) < 1e-15);
  }
}

TEST_CASE("kernl finds the kernel of linear units apart: 1 at the newest noise, and their decays") {
  for (const index_t lanes : {1, 2}) {
    support::random_task t(linear({.in = 1, .hidden = 2, .out = 1, .lanes = lanes}), 6000, key{4});
    const std::array<double, 4> w{.3, 0, 0, .8};
    std::copy(w.begin(), w.end(), t.theta.begin());
    kernl est(t.cell, {.rate = .2});
    const std::vector<double> a{.5, .4, -.3, 1.5}, kappa{.5, .5};
    est.set_kernel(a, kappa);
    gradient_of(est, t.theta, t.xs);
    CHECK(std::abs(est.decays()[0] - .3) < 1e-3);
    CHECK(std::abs(est.decays()[1] - .8) < 1e-3);
    for (index_t k = 0; k < 4; ++k) CHECK(std::abs(est.sensitivities()[k] - double(k % 3 == 0)) < 1e-3);
  }
}

TEST_CASE("kernl has less bias with the kernel that it has learned") {
  const support::random_task t(leaky({.in = 2, .hidden = 4, .out = 2, .dt = .3}), 3000, key{5});
  const std::span all(t.xs);
  const auto bias = [&](double rate) {
    kernl est(t.cell, {.rate = rate});
    rtrl exact(t.cell);
    gradient_of(est, t.theta, all.first(2500));
    gradient_of(exact, t.theta, all.first(2500));
    return golden::relative_error(gradient_of(est, t.theta, all.subspan(2500)),
                                  gradient_of(exact, t.theta, all.subspan(2500)));
  };
  const double learned = bias(.05);
  CAPTURE(learned, bias(0));
  CHECK(learned < .8 * bias(0));
  CHECK(learned > 1e-3);
}

TEST_CASE("kernl costs two steps and a vjp a step, and keeps the promises of every estimator") {
  const auto t = task_of(2);
  for (const double rate : {0., .1}) {
    call_counts calls;
    kernl est(counted(t.cell, calls), {.rate = rate});
    calls = {};
    gradient<double> g(t.cell.size().params);
    const report r = est.advance(t.theta, t.xs, g);
    CHECK(calls == call_counts{.steps = rate > 0 ? 60 : 30, .vjps = 30});
    CHECK((r.steps == calls.steps && r.vjps == 30));
    CHECK(est.kept() == 4 * (4 + 2 + 1));
    CHECK(testing::estimator_conformance(kernl(t.cell, {.rate = rate}), t.theta, t.xs, &t.bad) ==
          std::vector<std::string>{});
  }
  for (const double wrong : {-1., 1.5, std::nan("")}) {
    CHECK_THROWS_WITH(kernl(t.cell, {.rate = wrong}), ContainsSubstring("kernl: rate"));
    CHECK_THROWS_WITH(kernl(t.cell, {.decay = wrong}), ContainsSubstring("kernl: decay"));
  }
  for (const double wrong : {0., -1., std::nan(""), std::numeric_limits<double>::infinity()})
    CHECK_THROWS_WITH(kernl(t.cell, {.sigma = wrong}), ContainsSubstring("kernl: sigma"));
  const cells::leaky<float> small({.in = 2, .hidden = 4, .out = 2, .dt = .3});
  for (const double wrong : {1e-50, 1e50})  // no number of its kind
    CHECK_THROWS_WITH(kernl(small, {.sigma = wrong}), ContainsSubstring("kernl: sigma"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(kernl(unknown), ContainsSubstring("diag_jacobian"));
}

TEST_CASE("kernl forgets its traces where a lane begins anew") {
  support::episodes_apart(task_of(2), [](const auto& f) { return kernl(f, {.rate = 0}); });
}
