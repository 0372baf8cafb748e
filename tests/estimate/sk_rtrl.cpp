#include "unroll/estimate/sk_rtrl.hpp"

#include <limits>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_units.hpp"
#include "tests/support/gradient_of.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/snap.hpp"
#include "unroll/influence/dense.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/system/with_resets.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using support::gradient_of;

double distance(const gradient<double>& a, const gradient<double>& b) {
  double sum = 0;
  for (index_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

/// A wrong weight of the other unit: what a row does beyond its own.
struct leaking : golden::golden_units {
  void step(const input& in, const edge<double>& e) const {
    golden_units::step(in, e);
    e.next[1] += .1 * e.theta[0] * e.s[0];
  }
  void vjp(const input& in, const const_edge<double>& e, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> dtheta) const {
    golden_units::vjp(in, e, dnext, dloss, ds, dtheta);
    if (dnext.empty()) return;
    if (!ds.empty()) ds[0] += .1 * e.theta[0] * dnext[1];
    if (!dtheta.empty()) dtheta[0] += .1 * e.s[0] * dnext[1];
  }
  void jvp(const input& in, const const_edge<double>& e, params_tangent<const double> dtheta,
           state_tangent<const double> ds, state_tangent<double> dnext, double* dloss) const {
    const double moved = (dtheta.empty() ? 0 : e.s[0] * dtheta[0]) + (ds.empty() ? 0 : e.theta[0] * ds[0]);
    golden_units::jvp(in, e, dtheta, ds, dnext, dloss);
    dnext[1] += .1 * moved;
  }
  void jacobian(const input& in, const const_edge<double>& e, view<double> j) const {
    golden_units::jacobian(in, e, j);
    j[1] += .1 * e.theta[0];
  }
  void immediate(const input& in, const const_edge<double>& e, view<double> m, index_t p0, index_t p1) const {
    golden_units::immediate(in, e, m, p0, p1);
    if (p0 == 0 && p1 > 0) m[1] += .1 * e.s[0];
  }
  // as one matrix a row, and one of a single number
  std::vector<weight_matrix> weight_matrices() const { return {{0, 2, 1, 2}, {2, 2, 3, 2}}; }
  void factors(const input& in, const const_edge<double>& e, view<double> out, view<double> d) const {
    for (index_t j = 0; j < 4; ++j) out[j] = a(in, e.s, j);
    const double first[] = {e.tape[0], .1, 0, e.tape[1]}, rest[] = {e.tape[0], 0, 0, e.tape[1]};
    std::copy_n(first, 4, d.begin());
    std::copy_n(rest, 4, d.begin() + 4);
  }
  void diag_factors(const input& in, const const_edge<double>& e, view<double> out, view<double> d) const {
    for (index_t j = 0; j < 4; ++j) out[j] = a(in, e.s, j);
    for (index_t i = 0; i < 4; ++i) d[i] = e.tape[i % 2];
  }
};

}  // namespace

TEST_CASE("sk_rtrl in the paper's timing has the golden gradients, errors and certificates") {
  const auto theta = golden::columns_theta();
  const auto xs = golden::delayed_inputs();
  const auto exact = golden::by_columns(golden::gradient);
  const auto run = [&](index_t rank, std::array<double, 3> errors, double bound) {
    sk_rtrl est(golden::golden_units{}, {.rank = rank});
    gradient<double> g(8);
    for (std::size_t t = 0; t < xs.size(); ++t) {
      est.advance(theta, std::span(xs).subspan(t, 1), g);
      if (t < 3) CHECK(std::abs(est.influence_error() - errors[t]) < 1e-11);
    }
    CHECK(std::abs(est.certificate() - bound) < 1e-11);
    return g;
  };
  const auto none = run(0, {0, .319966025984, .698708651761}, .642404723310);
  CHECK(golden::relative_error(none, golden::by_columns(golden::snap_1)) < 1e-11);
  CHECK(std::abs(golden::relative_error(none, exact) * std::sqrt(golden::gradient_squared_norm) -
                 .393304302892) < 1e-11);
  const std::array<double, 8> rows{.581582888085,  -.197108107017, .114041766091,  1.315306823135,
                                   -.516685442170, .170703115576,  -.120745254510, -1.097783357805};
  const auto one = run(1, {0, .131611348662, .359504915139}, .320976930963);
  CHECK(golden::relative_error(one, golden::by_columns(rows)) < 1e-11);
  CHECK(std::abs(golden::relative_error(one, exact) - .091891) < 1e-6);
  CHECK(std::abs(golden::cosine(one, exact) - .998020) < 1e-6);
  CHECK(std::abs(golden::relative_error(one, exact) * std::sqrt(golden::gradient_squared_norm) -
                 .164521838730) < 1e-11);
  CHECK(golden::relative_error(run(2, {0, 0, 0}, 0), exact) < 1e-13);
}

TEST_CASE("what a sketch lacks of the influence of the golden network is what it is printed to be") {
  const golden::golden_units f;
  const auto xs = golden::delayed_inputs();
  const auto theta = golden::columns_theta();
  // of a row i of M: what one more step adds to g where q is row i of the identity
  const auto row = [&](auto m, const auto& x, const const_edge<double>& e, index_t i) {
    gradient<double> g(8);
    block<double, state_cotangent_space> q(2);
    q[i] = 1;
    m.propagate(f, x, e, q, g);
    return g;
  };
  const auto examine = [&](index_t rank, std::array<double, 3> expected) {
    influence::sketch<golden::golden_units> sketched(f, rank);
    influence::dense<golden::golden_units> whole(f, 8);
    window_buffer<golden::golden_units> steps(f, 1, 1);
    steps.reset(f, {});
    const block<double, state_cotangent_space> none(2);
    gradient<double> unused(8);
    for (std::size_t t = 0; t < 3; ++t) {
      report r;
      steps.push(xs[t]);
      steps.forward(f, theta, r);
      const const_edge<double> e = steps.edge(f, theta, 0);
      sketched.propagate(f, xs[t], e, none, unused);
      whole.propagate(f, xs[t], e, none, unused);
      double squares = 0;
      for (index_t i = 0; i < 2; ++i) {
        const double d = distance(row(sketched, xs[t], e, i), row(whole, xs[t], e, i));
        squares += d * d;
      }
      CHECK(std::abs(std::sqrt(squares) - expected[t]) < 1e-11);
      steps.keep_last(0, 1);
    }
  };
  examine(0, {0, .319966025984, .571115652541});
  examine(1, {0, .131611348662, .302664560300});
  examine(2, {0, 0, 0});
}

TEST_CASE("sk_rtrl is snap of reach 1 without directions, rtrl with all, and keeps to its certificate") {
  const auto examine = [](const auto& cell, index_t n, bool own_rows) {
    const support::random_task t(cell, 25, key{3});
    const auto exact = gradient_of(rtrl(cell), t.theta, t.xs);
    double previous = 1e300;
    for (index_t rank = 0; rank <= n; ++rank) {
      sk_rtrl est(cell, {.rank = rank});
      const auto g = gradient_of(est, t.theta, t.xs);
      const double wrong = distance(g, exact);
      CAPTURE(rank, wrong, est.certificate());
      CHECK(wrong <= est.certificate() + 1e-11);
      if (rank == 0 && own_rows) CHECK(distance(g, gradient_of(snap(cell), t.theta, t.xs)) < 1e-12);
      if (rank < n) CHECK(wrong > 1e-9);
      if (rank == n) CHECK(golden::relative_error(g, exact) < 1e-11);
      CHECK(est.certificate() < previous);
      previous = est.certificate();
    }
  };
  for (const index_t lanes : {1, 2}) {
    examine(cells::elman<double>({.in = 2, .hidden = 4, .out = 2, .lanes = lanes}), 4, true);
    examine(cells::lstm<double>({.in = 1, .hidden = 2, .out = 1, .lanes = lanes}), 4, true);
  }
}

TEST_CASE("the certificate of sk_rtrl counts what a weight does to another unit") {
  const leaking f;
  const auto theta = golden::columns_theta();
  const auto xs = golden::delayed_inputs();
  CHECK(testing::system_conformance(f, theta, xs) == std::vector<std::string>{});
  const auto exact = gradient_of(rtrl(f), theta, xs);
  sk_rtrl est(f, {.rank = 2});
  const double wrong = distance(gradient_of(est, theta, xs), exact);
  CHECK(wrong > 1e-3);
  CHECK(wrong <= est.certificate());
  CHECK(est.certificate() < 10 * wrong);
}

TEST_CASE("the certificate of sk_rtrl takes the smaller bound of a Jacobian") {
  // .9 times a rotation of four units: its norm is .9, that of Frobenius 1.8
  support::random_task t(cells::elman<double>({.in = 1, .hidden = 4, .out = 1}), 60, key{3});
  for (std::size_t k = 0; k < 16; ++k) t.theta[k] = k % 4 == (k / 4 + 1) % 4 ? .9 : 0;
  sk_rtrl est(t.cell, {.rank = 1});
  gradient_of(est, t.theta, t.xs);
  CAPTURE(est.influence_error());
  CHECK(est.influence_error() < 100);
}

TEST_CASE("an error of sk_rtrl that has grown past all numbers is 0 again behind a reset") {
  // .99 times a rotation of two units by an eighth: its norm is .99, the bound 1.4
  const cells::linear<double> cell({.in = 1, .hidden = 2, .out = 1});
  support::random_task t(cell, 2400, key{3});
  const double c = .99 * std::sqrt(.5);
  const std::array<double, 4> turn{c, c, -c, c};
  std::copy(turn.begin(), turn.end(), t.theta.begin());
  const std::uint8_t flag = 1;
  std::vector<resettable<cells::example<double>>> xs;
  for (const auto& x : t.xs) xs.push_back({x, xs.size() == 2300 ? &flag : nullptr});
  for (std::size_t k = 2290; k < 2300; ++k) xs[k].x.target = nullptr;  // no loss
  const with_resets f(cell);
  sk_rtrl est(f, {.rank = 0});
  gradient<double> g(cell.size().params);
  est.advance(t.theta, std::span(xs).first(2300), g);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK((est.influence_error() == infinity && est.certificate() == infinity));
  est.advance(t.theta, std::span(xs).subspan(2300, 1), g);
  CHECK((est.influence_error() == 0 && est.certificate() == infinity));
  est.advance(t.theta, std::span(xs).subspan(2301), g);
  CHECK((est.influence_error() > 0 && est.influence_error() < infinity));
}

TEST_CASE("sk_rtrl costs a step, a vjp and a jacobian a step, and keeps the promises of every estimator") {
  const support::random_task t(cells::elman<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2}), 15,
                               key{3});
  call_counts calls;
  sk_rtrl est(counted(t.cell, calls));
  CHECK(est.rank() == 3);
  gradient<double> g(t.cell.size().params);
  calls = {};
  const report r = est.advance(t.theta, t.xs, g);
  CHECK(calls == call_counts{.steps = 15, .vjps = 15, .jacobians = 15});
  CHECK((r.steps == 15 && r.vjps == 15 && r.jvps == 0));
  for (const index_t rank : {0, 2})
    CHECK(testing::estimator_conformance(sk_rtrl(t.cell, {.rank = rank}), t.theta, t.xs, &t.bad) ==
          std::vector<std::string>{});
  CHECK_THROWS_WITH(sk_rtrl(t.cell, {.rank = -1}), ContainsSubstring("sk_rtrl: rank"));
  const any_system<double, golden::rnn<>::input> unknown{golden::rnn<>{}};
  CHECK_THROWS_WITH(sk_rtrl(unknown), ContainsSubstring("jacobian"));
}
