#include "unroll/estimate/eprop.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/delayed_leaky.hpp"
#include "tests/support/episodes_apart.hpp"
#include "tests/support/gradient_of.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/estimate/diagonal_rtrl.hpp"
#include "unroll/estimate/snap.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using support::gradient_of;

template <class Cell>
support::random_task<Cell> task_of(index_t lanes) {
  return {Cell({.in = 2, .hidden = 3, .out = 2, .lanes = lanes}), 30, key{3}};
}

/// s' = theta x, without a past; the loss of a step is `weight` times the state in front of it, or s'.
template <bool reads_next = false>
struct without_past {
  using scalar = double;
  struct input {
    double x = 0, weight = 0;
  };
  dims size() const { return {1, 1, 0, 0, 1}; }
  void step(const input& in, const edge<double>& e) const {
    e.next[0] = e.theta[0] * in.x;
    *e.loss = in.weight * (reads_next ? e.next[0] : e.s[0]);
  }
  void vjp(const input& in, const const_edge<double>&, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> dtheta) const {
    if (!ds.empty() && !reads_next) ds[0] += dloss * in.weight;
    if (!dtheta.empty())
      dtheta[0] += ((dnext.empty() ? 0 : dnext[0]) + (reads_next ? dloss * in.weight : 0)) * in.x;
  }
  index_t units() const { return 1; }
  bool units_apart() const { return true; }
  std::vector<weight_matrix> weight_matrices() const { return {{0, 1, 1, 1}}; }
  void diag_jacobian(const input&, const const_edge<double>&, view<double> j) const { j[0] = 0; }
  void diag_factors(const input& in, const const_edge<double>&, view<double> a, view<double> d) const {
    a[0] = in.x;
    d[0] = 1;
  }
};

}  // namespace

TEST_CASE("eprop in the paper's timing has the golden gradient and bias") {
  const auto g =
      gradient_of(eprop(golden::delayed_leaky{}), golden::columns_theta(), golden::delayed_leaky_inputs());
  const std::array<double, 8> rows{.290872358534,  -.003816253322, .012485050909, .742210220100,
                                   -.102798026546, .033697058528,  .104039789157, -.231383212882};
  CHECK(golden::relative_error(g, golden::by_columns(rows)) < 1e-11);
  const auto exact = golden::by_columns(golden::leaky_gradient);
  CHECK(std::abs(golden::relative_error(g, exact) - .130085) < 1e-6);
  CHECK(std::abs(golden::cosine(g, exact) - .991504) < 1e-6);
}

TEST_CASE("the filter of eprop acts on the trace, not on the signal") {
  // x = 2 twice, kappa = 1/2, signals +1 and -1: 2 and -(1/2 2 + 2); filtered signals would give 2 and -1
  const std::vector<double> theta{1};
  const auto known = [&](double kappa, std::vector<without_past<>::input> xs) {
    return gradient_of(eprop(without_past<>{}, {.filter = kappa}), theta, xs)[0];
  };
  CHECK(known(.5, {{2, 0}, {2, 1}}) == 2);
  CHECK(known(.5, {{2, 0}, {2, 0}, {0, -1}}) == -3);
  CHECK(known(.5, {{2, 0}, {2, 1}, {0, -1}}) == -1);
  CHECK(known(0, {{2, 0}, {2, 0}, {0, 4}}) == 8);  // of h^2 at h = 2: dl/dh = 4
  // losses that read s': the newest step passes nothing on of units without a past, where the readout would
  const std::vector<without_past<true>::input> next{{2, 1}, {2, -1}};
  CHECK(gradient_of(eprop(without_past<true>{}, {.filter = .5}), theta, next)[0] == 0);  // not 2 - 3

  // a filter tells, and one that forgets at once does not
  for (const index_t lanes : {1, 2}) {
    const auto t = task_of<cells::leaky<double>>(lanes);
    std::vector<cells::example<double>> xs(t.xs.begin(), t.xs.begin() + 6);
    for (std::size_t k = 0; k + 1 < 6; ++k) xs[k].target = nullptr;  // the last loss alone
    const auto plain = gradient_of(eprop(t.cell), t.theta, xs),
               filtered = gradient_of(eprop(t.cell, {.filter = .5}), t.theta, xs);
    CHECK(golden::relative_error(plain, filtered) > 1e-3);
    CHECK(golden::relative_error(plain, gradient_of(eprop(t.cell, {.filter = 1e-14}), t.theta, xs)) < 1e-12);
  }
}

TEST_CASE("eprop is snap of reach 1 where a row moves its own unit, and exact where units stand apart") {
  for (const index_t lanes : {1, 3}) {
    const auto same = [](const auto& t) {
      CHECK(golden::relative_error(gradient_of(eprop(t.cell), t.theta, t.xs),
                                   gradient_of(snap(t.cell), t.theta, t.xs)) < 1e-13);
    };
    same(task_of<cells::leaky<double>>(lanes));
    same(task_of<cells::gru<double>>(lanes));
    same(task_of<cells::lstm<double>>(lanes));
    const auto t = task_of<cells::lru<double>>(lanes);
    CHECK(golden::relative_error(gradient_of(eprop(t.cell), t.theta, t.xs),
                                 gradient_of(diagonal_rtrl(t.cell), t.theta, t.xs)) == 0);
  }
}

TEST_CASE("eprop costs a step and a vjp a step, and keeps the promises of every estimator") {
  const auto t = task_of<cells::leaky<double>>(2);
  call_counts calls;
  eprop est(counted(t.cell, calls), {.filter = .9});
  gradient<double> g(t.cell.size().params);
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK(calls == call_counts{.steps = 30, .vjps = 30});
  CHECK((r.steps == 30 && r.vjps == 30 && r.jvps == 0));
  CHECK(est.kept() == 3 * (3 + 2 + 1));
  for (const double kappa : {0., .9})
    CHECK(testing::estimator_conformance(eprop(t.cell, {.filter = kappa}), t.theta, t.xs, &t.bad) ==
          std::vector<std::string>{});
  for (const double kappa : {-.1, 1., std::nan("")})
    CHECK_THROWS_WITH(eprop(t.cell, {.filter = kappa}), ContainsSubstring("filter"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(eprop(unknown), ContainsSubstring("diag_jacobian"));
  // there the candidate's weights multiply r s, and r moves every unit
  const cells::gru<double> before({.in = 1, .hidden = 2, .out = 1, .reset = cells::reset_kind::before});
  CHECK_THROWS_WITH(eprop(before), ContainsSubstring("diag_jacobian"));
}

TEST_CASE("eprop forgets its traces where a lane begins anew") {
  support::episodes_apart(task_of<cells::leaky<double>>(2),
                          [](const auto& f) { return eprop(f, {.filter = .5}); });
}
