#include "unroll/estimate/layerwise_rtrl.hpp"

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/min_gru.hpp"
#include "unroll/cells/stack.hpp"
#include "unroll/estimate/diagonal_rtrl.hpp"
#include "unroll/estimate/kf_rtrl.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/system/with_resets.hpp"
#include "unroll/testing/conformance.hpp"

namespace {

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using lrus = cells::stack<cells::lru<double>>;
using min_grus = cells::stack<cells::min_gru<double>>;

constexpr index_t steps = 7;

template <class E, class Theta, class Xs>
std::vector<double> gradient_of(E est, const Theta& theta, const Xs& xs) {
  gradient<double> g(index_t(theta.size()));
  est.advance(theta, xs, g);
  est.finish(theta, g);
  return {g.begin(), g.end()};
}

// For every layer the gradient by its parameters, walked back by vjps from every loss: behind the step of the
// loss only the cotangents of the layer's own state go on.
template <class F, class Task>
std::vector<double> layer_by_layer(const F& f, const Task& task) {
  const dims d = f.size();
  const index_t n = d.state / d.lanes;
  const std::vector<unit_layer> layers = f.unit_layers();
  std::vector<testing::edge_memory<F>> edges(task.xs.size(), testing::edge_memory<F>(f));
  for (std::size_t t = 0; t < task.xs.size(); ++t) {
    if (t > 0) edges[t].s = edges[t - 1].next;
    f.step(task.xs[t], edges[t].at(task.theta, std::int64_t(t)));
  }
  const std::vector<double> none(std::size_t(d.state));
  std::vector<double> g(std::size_t(d.params));
  const auto back = [&](std::size_t t, const std::vector<double>& dnext, double dloss,
                        std::vector<double>& of) {
    std::vector<double> ds(std::size_t(d.state));
    f.vjp(task.xs[t], const_edge<double>(edges[t].at(task.theta, std::int64_t(t))), dnext, dloss, ds, of);
    return ds;
  };
  for (std::size_t t = 0; t < task.xs.size(); ++t) {
    const std::vector<double> all = back(t, none, 1, g);
    for (index_t k = 0; k < index_t(layers.size()); ++k) {
      const unit_layer& layer = layers[std::size_t(k)];
      std::vector<double> q = all, owed(g.size());
      for (std::size_t u = t; u-- > 0;) {
        for (index_t i = 0; i < d.state; ++i)
          if (i % n < layer.first || i % n >= layer.first + layer.numbers) q[std::size_t(i)] = 0;
        q = back(u, q, 0, owed);
      }
      for (const weight_matrix& w : layer_of<F>(f, k).weight_matrices())
        for (index_t c = 0; c < w.columns; ++c)
          for (index_t r = 0; r < w.rows; ++r) {
            const auto at = std::size_t(w.first + c * w.stride + r);
            g[at] += owed[at];
          }
    }
  }
  return g;
}

// A stack that says something else of one of its layers.
struct wrong_layer {
  using scalar = double;
  using input = lrus::input;
  lrus f;
  double times = 1;
  dims size() const { return f.size(); }
  void step(const input& x, const edge<double>& e) const { f.step(x, e); }
  void vjp(const input& x, const const_edge<double>& e, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> dtheta) const {
    f.vjp(x, e, dnext, dloss, ds, dtheta);
  }
  std::vector<weight_matrix> weight_matrices() const { return f.weight_matrices(); }
  std::vector<unit_layer> unit_layers() const { return f.unit_layers(); }
  void layer_diag_jacobian(index_t k, const input& x, const const_edge<double>& e, view<double> J) const {
    f.layer_diag_jacobian(k, x, e, J);
    if (k == 1) J[0] *= times;
  }
  void layer_diag_factors(index_t k, const input& x, const const_edge<double>& e, view<double> a,
                          view<double> d) const {
    f.layer_diag_factors(k, x, e, a, d);
  }
};

}  // namespace

TEST_CASE("system_conformance compares what is said of layers with the vjp") {
  const lrus f({.in = 2, .hidden = 3, .out = 2, .lanes = 2}, 2);
  const support::random_task<lrus> t(f, 3, key{8});
  CHECK(testing::system_conformance(wrong_layer{f}, t.theta, t.xs) == std::vector<std::string>{});
  const auto found = testing::system_conformance(wrong_layer{f, 1.01}, t.theta, t.xs);
  REQUIRE(found.size() == 1);
  CHECK(found[0] == "step 0: layer 1: diag_jacobian: disagrees with vjp");
}

TEST_CASE("rtrl and kf_rtrl keep the promises of every estimator on a stack with dropout") {
  const lrus f({.in = 2, .hidden = 3, .out = 2, .lanes = 2}, 2, {.probability = 0.3, .input = 0.2});
  support::random_task<lrus> t(f, 30, key{7});
  const key masks{9};
  for (auto& x : t.xs) x.draws = &masks;
  t.bad.draws = &masks;
  CHECK(testing::estimator_conformance(rtrl(f), t.theta, t.xs, &t.bad) == std::vector<std::string>{});
  CHECK(testing::estimator_conformance(kf_rtrl(f), t.theta, t.xs, &t.bad) == std::vector<std::string>{});
}

TEST_CASE("layerwise rtrl is back-propagation of every layer through its own recurrence alone") {
  for (const index_t lanes : {1, 2}) {
    const lrus two(
        {{.in = 2, .hidden = 3, .lanes = lanes}, {.in = 6, .hidden = 2, .out = 2, .lanes = lanes}});
    const support::random_task<lrus> t(two, steps, key{1});
    CHECK(golden::relative_error(gradient_of(layerwise_rtrl(two), t.theta, t.xs), layer_by_layer(two, t)) <
          1e-13);
    const min_grus three({.in = 2, .hidden = 3, .out = 0, .lanes = lanes}, 3);
    const support::random_task<min_grus> s(three, steps, key{2});
    CHECK(golden::relative_error(gradient_of(layerwise_rtrl(three), s.theta, s.xs),
                                 layer_by_layer(three, s)) < 1e-13);
  }
}

TEST_CASE("layerwise rtrl is exact for the last layer and misses what that remembers of the others") {
  const lrus f({.in = 2, .hidden = 3, .out = 2}, 2);
  const support::random_task<lrus> t(f, steps, key{3});
  const auto g = gradient_of(layerwise_rtrl(f), t.theta, t.xs),
             exact = testing::backward_gradient(f, t.theta, t.xs);
  const std::size_t last = std::size_t(f.layout().at("l1.w_x").offset);
  for (std::size_t p = last; p < g.size(); ++p) CHECK(std::abs(g[p] - exact[p]) < 1e-12);
  double missed = 0, size = 0;
  for (std::size_t p = 0; p < last; ++p) missed += std::abs(g[p] - exact[p]), size += std::abs(exact[p]);
  CHECK(missed > 0.05 * size);
  // nothing to remember yet
  const std::span<const cells::example<double>> first(t.xs.data(), 1);
  CHECK(golden::relative_error(gradient_of(layerwise_rtrl(f), t.theta, first),
                               testing::backward_gradient(f, t.theta, first)) < 1e-13);
}

TEST_CASE("layerwise rtrl is exact where the layers above forget, and of one layer diagonal rtrl") {
  const min_grus f({.in = 2, .hidden = 3, .out = 2}, 2);
  support::random_task<min_grus> t(f, steps, key{4});
  const index_t gate = f.layout().at("l1.b").offset;
  for (index_t u = 0; u < 3; ++u) t.theta[std::size_t(gate + u)] = 60;  // s' = n
  CHECK(golden::relative_error(gradient_of(layerwise_rtrl(f), t.theta, t.xs),
                               testing::backward_gradient(f, t.theta, t.xs)) < 1e-13);
  const cells::lru_options o{.in = 2, .hidden = 3, .out = 2};
  const lrus one(o, 1);
  const support::random_task<lrus> s(one, steps, key{5});
  CHECK(golden::relative_error(gradient_of(layerwise_rtrl(one), s.theta, s.xs),  // which keeps complex traces
                               gradient_of(diagonal_rtrl(cells::lru<double>(o)), s.theta, s.xs)) < 1e-14);
}

TEST_CASE("layerwise rtrl of episodes is the sum of those apart, at a step and a vjp a step") {
  const lrus f({.in = 2, .hidden = 3, .out = 2, .lanes = 2}, 2);
  const support::random_task<lrus> t(f, steps, key{10});
  const auto first = std::span(t.xs).first(4), second = std::span(t.xs).subspan(4);
  auto expected = gradient_of(layerwise_rtrl(f), t.theta, first);
  const auto rest = gradient_of(layerwise_rtrl(f), t.theta, second);
  for (std::size_t p = 0; p < rest.size(); ++p) expected[p] += rest[p];
  using resetting = with_resets<lrus>;
  const std::uint8_t both[] = {1, 1}, one[] = {0, 1};
  std::vector<resetting::input> xs;
  for (std::size_t k = 0; k < t.xs.size(); ++k) xs.push_back({t.xs[k], k == 4 ? both : nullptr});
  call_counts calls;
  layerwise_rtrl est(counted(resetting(f), calls));
  calls = {};
  gradient<double> g(index_t(t.theta.size()));
  const report r = est.advance(t.theta, xs, g);
  CHECK(golden::relative_error(g, expected) < 1e-14);
  CHECK(calls == call_counts{.steps = steps, .vjps = steps});
  CHECK((r.steps == steps && r.vjps == steps));

  xs[0].reset = xs[1].reset = one;  // lane by lane, as its vjp has it
  CHECK(testing::system_conformance(resetting(f), t.theta, xs) == std::vector<std::string>{});
}

TEST_CASE("layerwise rtrl keeps the promises of every estimator and refuses what it cannot do") {
  const lrus f({.in = 2, .hidden = 3, .out = 2, .lanes = 2}, 2);
  const support::random_task<lrus> t(f, 30, key{6});
  CHECK(layerwise_rtrl(f).kept() == 2 * (6 * 3 + 6) + 2 * (6 * 7 + 6));
  CHECK(testing::estimator_conformance(layerwise_rtrl(f), t.theta, t.xs, &t.bad) ==
        std::vector<std::string>{});
  using elmans = cells::stack<cells::elman<double>>;
  CHECK_THROWS_WITH(
      layerwise_rtrl(elmans({.in = 2, .hidden = 3}, 2)),
      ContainsSubstring("layerwise_rtrl: system: has a layer whose units listen to each other"));
  using any = any_system<double, cells::example<double>>;
  CHECK_THROWS_WITH(layerwise_rtrl(any(cells::lru<double>({.in = 2, .hidden = 3}))),
                    ContainsSubstring("layerwise_rtrl: system: has no unit_layers"));
  CHECK(gradient_of(layerwise_rtrl(any(f)), t.theta, t.xs) == gradient_of(layerwise_rtrl(f), t.theta, t.xs));
}
