#include "unroll/estimate/rflo.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/delayed_leaky.hpp"
#include "tests/support/episodes_apart.hpp"
#include "tests/support/gradient_of.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using support::gradient_of;
using leaky = cells::leaky<double>;

support::random_task<leaky> task_of(index_t lanes) {
  return {leaky({.in = 2, .hidden = 5, .out = 2, .lanes = lanes, .dt = .3}), 30, key{3}};
}

/// The error e of the readout comes back as R e, whatever the readout: not the gradient of any loss.
struct fed_back : golden::delayed_leaky {
  void vjp(const input& in, const const_edge<double>& e, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> dtheta) const {
    delayed_leaky::vjp(in, e, dnext, 0, ds, dtheta);
    if (!in.scored || ds.empty()) return;
    const double e0 = e.s[0] - in.y[0], e1 = e.s[1] - in.y[1];
    ds[0] += dloss * (e0 + .5 * e1);
    ds[1] += dloss * (e1 - .5 * e0);
  }
};

/// Without what lets an influence add the direct gradient in its own pass.
struct unfactored : leaky {
  using leaky::leaky;
  void factored_vjp() const = delete;
};

}  // namespace

TEST_CASE("rflo has the same bits where the direct gradient is added in the pass over the traces") {
  for (const index_t hidden : {5, 16, 37}) {
    const leaky::options_type options{.in = 2, .hidden = hidden, .out = 2, .dt = .3};
    const support::random_task<leaky> task(leaky(options), 30, key{3});
    static_assert(has_factored_vjp<leaky> && !has_factored_vjp<unfactored>);
    const auto g = gradient_of(rflo(leaky(options), {.leak = .3}), task.theta, task.xs);
    const auto h = gradient_of(rflo(unfactored(options), {.leak = .3}), task.theta, task.xs);
    CHECK(std::equal(g.begin(), g.end(), h.begin(), h.end()));
  }
}

TEST_CASE("rflo in the paper's timing has the golden gradient and bias") {
  const auto g = gradient_of(rflo(golden::delayed_leaky{}, {.leak = .5}), golden::columns_theta(),
                             golden::delayed_leaky_inputs());
  const std::array<double, 8> rows{.240057781041,  -.011784875294, -.008688832321, .621810321149,
                                   -.082427034230, .040386352144,  .124616861589,  -.179120992255};
  CHECK(golden::relative_error(g, golden::by_columns(rows)) < 1e-11);
  const auto exact = golden::by_columns(golden::leaky_gradient);
  CHECK(std::abs(golden::relative_error(g, exact) - .232926) < 1e-6);
  CHECK(std::abs(golden::cosine(g, exact) - .984650) < 1e-6);
}

TEST_CASE("rflo of errors that come back by fixed weights has the golden gradient") {
  const auto g =
      gradient_of(rflo(fed_back{}, {.leak = .5}), golden::columns_theta(), golden::delayed_leaky_inputs());
  const std::array<double, 8> rows{.194978919627,  .004522209361, .041781787413, .521309008573,
                                   -.209836901950, .039860234350, .104686985683, -.518806546178};
  CHECK(golden::relative_error(g, golden::by_columns(rows)) < 1e-11);
  const auto exact = golden::by_columns(golden::leaky_gradient);
  CHECK(std::abs(golden::relative_error(g, exact) - .355754) < 1e-6);
  CHECK(std::abs(golden::cosine(g, exact) - .934583) < 1e-6);
}

TEST_CASE(
    "rflo is exact where weights do not reach back, and tbptt of two steps where nothing is left of a "
    "trace") {
  for (const index_t lanes : {1, 3}) {
    auto t = task_of(lanes);
    const auto bias = [&](double leak) {
      return golden::relative_error(gradient_of(rflo(t.cell, {.leak = leak}), t.theta, t.xs),
                                    gradient_of(rtrl(t.cell), t.theta, t.xs));
    };
    CHECK(bias(t.cell.options().dt / t.cell.options().tau) > 1e-3);
    CHECK(golden::relative_error(gradient_of(rflo(t.cell, {.leak = 1}), t.theta, t.xs),
                                 gradient_of(tbptt(t.cell, {.k1 = 1, .k2 = 2}), t.theta, t.xs)) < 1e-13);
    for (std::size_t k = 0; k < 25; ++k) t.theta[k] = 0;  // w_h
    CHECK(bias(t.cell.options().dt / t.cell.options().tau) < 1e-13);
    CHECK(bias(.5) > 1e-3);
  }
}

TEST_CASE("rflo costs a step and a vjp a step, and keeps the promises of every estimator") {
  const auto t = task_of(2);
  call_counts calls;
  rflo est(counted(t.cell, calls));
  gradient<double> g(t.cell.size().params);
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK(calls == call_counts{.steps = 30, .vjps = 30});
  CHECK((r.steps == 30 && r.vjps == 30 && r.jvps == 0));
  CHECK(est.kept() == 5 * (5 + 2 + 1));
  CHECK(testing::estimator_conformance(rflo(t.cell), t.theta, t.xs, &t.bad) == std::vector<std::string>{});
  for (const double leak : {0., -1., 1.5, std::nan("")})
    CHECK_THROWS_WITH(rflo(t.cell, {.leak = leak}), ContainsSubstring("leak"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(rflo(unknown), ContainsSubstring("diag_jacobian"));
}

TEST_CASE("rflo forgets its traces where a lane begins anew") {
  support::episodes_apart(task_of(2), [](const auto& f) { return rflo(f); });
}
