#include "unroll/estimate/catalogue.hpp"

#include <cmath>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/stack.hpp"
#include "unroll/testing/estimator_conformance.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

using any_cell = any_system<double, cells::example<double>>;

struct task_of_any_cell {
  any_cell cell;
  std::vector<double> theta;
  std::vector<cells::example<double>> xs;
  std::shared_ptr<void> owner;
};
template <class Cell>
task_of_any_cell task_of(index_t length) {
  const Cell cell = [] {
    if constexpr (requires { Cell({.hidden = 2}, 2); })
      return Cell({.hidden = 2}, 2);
    else
      return Cell({.hidden = 2});
  }();
  const support::random_task<Cell> task(cell, length, key{3});
  return {task.cell, task.theta, task.xs, task.owner()};
}
// A network of two units, for what `name` is of the catalogue: of units apart where it needs them.
task_of_any_cell make_task(index_t length, std::string_view name = "") {
  if (name == "diagonal_rtrl") return task_of<cells::lru<double>>(length);
  if (name == "layerwise_rtrl") return task_of<cells::stack<cells::lru<double>>>(length);
  return task_of<cells::elman<double>>(length);
}

// "nres:SIGMA[:PAIRS[:WINDOW]]" -> "nres:0.01", "nres:0.01:2" and "nres:0.01:2:4", or without numbers in
// front of those that may be left out.
std::vector<std::string> texts_of(const catalogue_line& line) {
  std::vector<std::string> texts;
  const auto [least, most] = line.options();
  const std::string_view below_one[] = {"SIGMA", "LEAK", "FILTER", "RATE", "LAMBDA", "DISCOUNT", "MEMORY"};
  const char* numbers[] = {":4", ":5", ":4", ":3"};
  std::string text(line.name());
  std::string_view rest = line.form.substr(line.name().size());
  for (std::size_t n = 0; n <= most; ++n) {
    if (n >= least) texts.push_back(text);
    if (n == most) break;
    rest = rest.substr(rest.find(':') + 1);
    const std::string_view option = rest.substr(0, rest.find_first_of(":[]"));
    const bool small = std::count(std::begin(below_one), std::end(below_one), option) > 0;
    text += option == "P" ? ":0.5" : small ? ":0.01" : numbers[n];
  }
  return texts;
}

}  // namespace

TEST_CASE("every name of the catalogue builds an estimator that is what the catalogue says and conforms") {
  std::vector<std::string> names;
  for (const catalogue_line& line : estimator_catalogue::lines) {
    INFO(line.form);
    const auto task = make_task(23, line.name());
    auto exact = bptt(task.cell, {.max_steps = 23});
    gradient<double> expected(task.cell.size().params), g(expected.size());
    exact.advance(task.theta, task.xs, expected);
    exact.finish(task.theta, expected);
    CHECK(std::count(names.begin(), names.end(), line.name()) == 0);
    names.emplace_back(line.name());
    CHECK_FALSE(line.what.empty());
    for (const std::string& text : texts_of(line)) {
      INFO(text);
      with_estimator(text, task.cell, 23, [&](auto e) {
        using E = decltype(e);
        CHECK(E::unbiased == (line.gradient != claim::biased));
        CHECK((E::estimated_gradient != estimand::frozen_theta) == (line.gradient == claim::smoothed));
        if (line.gradient == claim::exact) CHECK_FALSE(E::random);
        CHECK(E::references.size() > 0);
        CHECK(testing::estimator_conformance(e, task.theta, task.xs) == std::vector<std::string>{});
        g.zero();
        e.reset(key{5});
        report r = e.advance(task.theta, task.xs, g);
        r += e.finish(task.theta, g);
        CHECK(r.losses == 23);
        if (line.gradient == claim::exact)
          for (index_t i = 0; i < g.size(); ++i)
            CHECK_THAT(g[i], Catch::Matchers::WithinAbs(expected[i], 1e-12));
      });
    }
  }
}

TEST_CASE("a gradient is not known before its period") {
  for (const catalogue_line& line : estimator_catalogue::lines)
    for (const std::string& text : texts_of(line)) {
      INFO(text);
      const auto task = make_task(20, line.name());
      const index_t period = gradient_period(text, 20);
      CHECK(period <= 20);
      with_estimator(text, task.cell, 20, [&](auto e) {
        gradient<double> g(task.cell.size().params);
        const auto known = [&] { return std::any_of(g.begin(), g.end(), [](double x) { return x != 0; }); };
        e.reset(key{5});
        e.advance(task.theta, std::span(task.xs).first(std::size_t(period - 1)), g);
        if (period > 1) CHECK_FALSE(known());
        e.advance(task.theta, std::span(task.xs).subspan(std::size_t(period - 1), 1), g);
        if (period == 20) e.finish(task.theta, g);
        if (period > 1) CHECK(known());
      });
    }
}

TEST_CASE("options reach the estimator") {
  auto task = make_task(20);
  const auto period_of = [](const char* text) { return gradient_period(text, 20); };
  CHECK(period_of("bptt") == 20);
  CHECK(period_of("checkpointed:3") == 20);
  CHECK(period_of("rtrl") == 1);
  CHECK(period_of("diagonal_rtrl") == 1);
  CHECK(period_of("tbptt:7") == 1);
  CHECK(period_of("tbptt:3:7") == 3);
  CHECK(period_of("chunked:6") == 6);
  CHECK(period_of("dni:6:0.5") == 6);
  CHECK(period_of("bp_lambda:0.5") == 1);
  CHECK(period_of("artbp:6") == 1);
  CHECK(period_of("uoro") == 1);
  CHECK(period_of("uoro:4") == 4);
  CHECK(period_of("es:0.1") == 20);
  CHECK(period_of("nres:0.1") == 10);
  CHECK(period_of("pes:0.1:2:5") == 5);
  CHECK(period_of("gpes:0.1:2:5:3") == 5);
  CHECK(period_of("pes_a:0.1") == 10);
  CHECK(period_of("forward_gradient:3:5") == 5);
  CHECK(period_of("telescope:4") == 20);
  const auto same = [&](const char* text, auto other, double tolerance = 0) {
    INFO(text);
    gradient<double> a(task.cell.size().params), b(a.size());
    with_estimator(text, task.cell, 20, [&](auto e) {
      e.reset(key{5});
      e.advance(task.theta, task.xs, a);
      e.finish(task.theta, a);
    });
    other.reset(key{5});
    other.advance(task.theta, task.xs, b);
    other.finish(task.theta, b);
    for (index_t i = 0; i < a.size(); ++i) CHECK(std::abs(a[i] - b[i]) <= tolerance * (1 + std::abs(b[i])));
  };
  same("tbptt:3:7", tbptt(task.cell, {.k1 = 3, .k2 = 7}));
  same("tbptt:7", tbptt(task.cell, {.k1 = 1, .k2 = 7}));
  same("chunked:6", chunked_tbptt(task.cell, {.window = 6}));
  same("adaptive_tbptt:4:5", adaptive_tbptt(task.cell, {.tolerance = 4, .longest = 5}));
  same("dni:4", dni(task.cell, {.window = 4}));
  same("dni:4:0.5", dni(task.cell, {.window = 4, .rate = 0.5}));
  same("bp_lambda", bp_lambda(task.cell));
  same("bp_lambda:0.5:0.25:1", bp_lambda(task.cell, {.lambda = 0.5, .discount = 0.25, .rate = 1}));
  same("snap", snap(task.cell));
  same("rflo:0.25", rflo(task.cell, {.leak = 0.25}));
  same("eprop", eprop(task.cell));
  same("eprop:0.25", eprop(task.cell, {.filter = 0.25}));
  same("snap:2", rtrl(task.cell), 1e-12);  // all of a dense network, added up in another order
  same("kernl:0.25", kernl(task.cell, {.rate = 0.25}));
  same("sk_rtrl:1", sk_rtrl(task.cell, {.rank = 1}));
  same("artbp:6", artbp(task.cell, polynomial_truncation(6, 4)));
  same("artbp:6:5", artbp(task.cell, polynomial_truncation(6, 5)));
  same("artbp_fixed:6", artbp(task.cell, fixed_truncation(6)));
  same("uoro:4", uoro(task.cell, {.block = 4}));
  same("preuoro", preuoro(task.cell));
  same("nobacktrack", nobacktrack(task.cell));
  same("kf_rtrl", kf_rtrl(task.cell));
  same("ok_rtrl:2", ok_rtrl(task.cell, {.terms = 2}));
  same("es:0.1:2", es(task.cell, {.sigma = 0.1, .pairs = 2}));
  same("nres:0.1:2:4", nres(task.cell, {.sigma = 0.1, .pairs = 2, .window = 4}));
  same("pes:0.1:2:4", pes(task.cell, {.sigma = 0.1, .pairs = 2, .window = 4}));
  same("es_single:0.1:2:4", es_single(task.cell, {.sigma = 0.1, .pairs = 2, .window = 4}));
  same("gpes:0.1:2:4:3", gpes(task.cell, {.sigma = 0.1, .pairs = 2, .window = 4, .reuse = 3}));
  same("pes_a:0.1:2:4", pes_a(task.cell, {.sigma = 0.1, .pairs = 2, .window = 4}));
  same("random_path:0.5", random_path(task.cell, {.p = 0.5}));
  same("forward_gradient:3:7", forward_gradient(task.cell, {.directions = 3, .window = 7}));
  same("telescope:3:2", telescope(task.cell, {.ladder = {{3, 3}, {6, 6}}}));
  same("telescope_single:3:2",
       telescope(task.cell, {.ladder = {{3, 3}, {6, 6}}, .kind = telescope_kind::single_sample}));
  same("control_variate:3:4",
       control_variate(chunked_tbptt(task.cell, {.window = 3}), bptt(task.cell), {.p = 0.25}));
}

namespace {

/// s' = theta s + x, y = s', with the members that preuoro needs and no more.
struct few_members {
  using scalar = double;
  using input = double;
  dims size() const { return {1, 1, 0, 0, 1}; }
  void step(double x, const edge<double>& e) const {
    e.next[0] = e.theta[0] * e.s[0] + x;
    *e.loss = e.next[0];
  }
  void vjp(double, const const_edge<double>& e, dstate<const double> dnext, double dloss, dstate<double> ds,
           dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + dloss;
    if (!ds.empty()) ds[0] += d * e.theta[0];
    if (!dtheta.empty()) dtheta[0] += d * e.s[0];
  }
  void jvp(double, const const_edge<double>& e, params_tangent<const double> dtheta,
           state_tangent<const double> ds, state_tangent<double> dnext, double* dloss) const {
    dnext[0] = (ds.empty() ? 0 : e.theta[0] * ds[0]) + (dtheta.empty() ? 0 : dtheta[0] * e.s[0]);
    if (dloss) *dloss = dnext[0];
  }
  std::vector<weight_matrix> weight_matrices() const { return {{0, 1, 1, 1}}; }
  void factors(double, const const_edge<double>& e, view<double> a, view<double> d) const {
    a[0] = e.s[0];
    d[0] = 1;
  }
};

}  // namespace

TEST_CASE("preuoro by name takes a system without jacobian") {
  static_assert(has_jvp<few_members> && has_factors<few_members> && !has_jacobian<few_members>);
  const std::vector<double> theta{.5}, xs{1, 1, 1};
  gradient<double> g(1);
  with_estimator("preuoro", few_members{}, 3, [&](auto e) {
    e.advance(theta, xs, g);
    e.finish(theta, g);
  });
  CHECK(g[0] == Approx(3).epsilon(1e-6));  // one outer product, which is exact
}

TEST_CASE("an estimator by name refuses a system that it cannot have, in its own words") {
  const auto task = make_task(20);
  CHECK_THROWS_WITH(with_estimator("diagonal_rtrl", task.cell, 20, [](auto) {}),
                    ContainsSubstring("diagonal_rtrl: system: has units that listen to each other"));
}

TEST_CASE("what is not in the catalogue is refused with what is") {
  const auto make = [&](const char* text) { with_estimator(text, make_task(2).cell, 2, [](auto) {}); };
  CHECK_THROWS_WITH(
      make("backprop"),
      ContainsSubstring("\"backprop\" is none of bptt, checkpointed[:SLOTS], "
                        "rtrl, diagonal_rtrl: exact; tbptt[:K1]:K2, chunked:K, "
                        "adaptive_tbptt[:TOLERANCE[:LONGEST]], dni:K[:RATE], "
                        "bp_lambda[:LAMBDA[:DISCOUNT[:RATE]]], snap[:REACH], rflo[:LEAK], "
                        "eprop[:FILTER], kernl[:RATE], sk_rtrl[:RANK], layerwise_rtrl: biased; artbp"));
  CHECK_THROWS_WITH(make("Tbptt:2"), ContainsSubstring("\"Tbptt\" is none of"));
  CHECK_THROWS_WITH(make("tbptt"),
                    ContainsSubstring("tbptt: needs 1 number(s) behind the name, e.g. tbptt:10"));
  CHECK_THROWS_WITH(make("tbptt:1:2:3"), ContainsSubstring("has 3 numbers, takes at most 2"));
  CHECK_THROWS_WITH(make("rtrl:1"), ContainsSubstring("has 1 numbers, takes at most 0"));
  for (const char* text : {"", ":", "backprop", "tbptt", "tbptt:1:2:3", "tbptt:", "tbptt:1x", "tbptt:0:2",
                           "tbptt:-1:2", "uoro:", "uoro:1e30", "uoro:1.5", "chunked:-1", "dni:0",
                           "nres:1:1:0", "es:nan", "es:1e999", "es:inf", "bptt/2"}) {
    INFO(text);
    CHECK_THROWS_AS(make(text), error);
    CHECK_THROWS_AS(gradient_period(text, 2), error);
  }
  for (const char* text : {"tbptt:0",     "tbptt:1.5",      "tbptt:-1",          "es:-1",
                           "es:0",        "es:1:0",         "checkpointed:0",    "snap:0",
                           "artbp:0.1",   "random_path:0",  "random_path:1.5",   "forward_gradient:1000",
                           "dni:4:-1",    "bp_lambda:1.5",  "bp_lambda:1:2",     "bp_lambda:1:1:-1",
                           "telescope:0", "telescope:4:31", "control_variate:0", "pes_a:0",
                           "gpes:-1"}) {
    INFO(text);
    CHECK_THROWS_AS(make(text), error);
    CHECK_NOTHROW(gradient_period(text, 2));  // no matter of the period
  }
}
