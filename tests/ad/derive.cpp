#include "unroll/ad/derive.hpp"

#include <cmath>
#include <vector>

#include "tests/ad/functions.hpp"
#include "tests/support/catch.hpp"
#include "unroll/cells/example.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace {

using namespace unroll;
using ad_test::mgu;
using ad_test::point;

TEST_CASE("derive makes a system with vjp and jvp") {
  using system = decltype(ad::derive(mgu<double>{}));
  static_assert(has_vjp<system> && has_jvp<system>);
  static_assert(!ad::step_function<int>);
  const auto cell = ad::derive(mgu<double>{});
  CHECK(cell.size().params == 2 * 6 * 8 + 6);
  CHECK(cell.size().state == 6);
  CHECK(cell.size().tape == 0);
}

TEST_CASE("derive's products agree with central differences") {
  const auto cell = ad::derive(mgu<double>{});
  ad_test::trial<double> t(cell.size());
  const double x = 0.7, target = -0.4;
  const point<double> in{&x, &target};
  t.step(cell, in);
  t.jvp(cell, in);

  // f(theta + h a, s + h b) - f(theta - h a, s - h b) over 2 h: error about h^2 + eps / h
  const double h = 1e-5;
  const auto shifted = [&](double by) {
    ad_test::trial<double> u = t;
    for (std::size_t i = 0; i < u.theta.size(); ++i) u.theta[i] += by * t.dtheta[i];
    for (std::size_t i = 0; i < u.s.size(); ++i) u.s[i] += by * t.ds[i];
    u.step(cell, in);
    return u;
  };
  const auto up = shifted(h), down = shifted(-h);
  for (std::size_t i = 0; i < t.s.size(); ++i)
    CHECK(std::abs((up.next[i] - down.next[i]) / (2 * h) - t.tangent[i]) < 1e-8);
  CHECK(std::abs((up.loss - down.loss) / (2 * h) - t.dloss) < 1e-8);
}

TEST_CASE("derive's vjp is the adjoint of its jvp") {
  const auto cell = ad::derive(mgu<double>{});
  ad_test::trial<double> t(cell.size());
  const double x = 0.7, target = -0.4;
  const point<double> in{&x, &target};
  t.step(cell, in);
  t.jvp(cell, in);
  t.vjp(cell, in);
  // both sides sum about 110 products of size one: 110 eps
  CHECK(std::abs(t.forward_side() - t.backward_side()) < 5e-14);
}

TEST_CASE("a derived system is a system in every respect") {
  const std::vector<double> x{0.7, -0.2, 0.1}, target{0.4, 0.3, -0.5};
  std::vector<point<double>> xs;
  for (std::size_t i = 0; i < 3; ++i) xs.push_back({&x[i], &target[i]});
  const auto cell = ad::derive(mgu<double>{});
  const auto theta = ad_test::filled<double>(cell.size().params, 0.1);
  CHECK(testing::system_conformance(cell, params<const double>(theta), std::span<const point<double>>(xs)) ==
        std::vector<std::string>{});
}

TEST_CASE("vjp adds, and empty views mean zero or not wanted") {
  const auto cell = ad::derive(mgu<double>{});
  ad_test::trial<double> t(cell.size());
  const double x = 0.7, target = -0.4;
  const point<double> in{&x, &target};
  t.step(cell, in);
  const auto e = t.edge();
  const auto P = t.theta.size(), S = t.s.size();
  std::vector<double> g(P, 1), ds(S, 1), g2(P), ds2(S), both(P);
  cell.vjp(in, e, dstate<const double>(t.u), 0.5, dstate<double>(ds), dparams<double>(g));
  cell.vjp(in, e, dstate<const double>(t.u), 0.5, dstate<double>(ds2), {});
  cell.vjp(in, e, dstate<const double>(t.u), 0.5, {}, dparams<double>(g2));
  for (std::size_t i = 0; i < P; ++i) CHECK(g[i] == 1 + g2[i]);
  for (std::size_t i = 0; i < S; ++i) CHECK(ds[i] == 1 + ds2[i]);
  cell.vjp(in, e, {}, 0.5, {}, dparams<double>(both));
  cell.vjp(in, e, dstate<const double>(t.u), 0, {}, dparams<double>(both));
  for (std::size_t i = 0; i < P; ++i) CHECK(std::abs(both[i] - g2[i]) < 1e-14);

  std::vector<double> a(S), b(S), c(S);
  double la = 0, lb = 0, lc = 0;
  cell.jvp(in, e, params_tangent<const double>(t.dtheta), {}, state_tangent<double>(a), &la);
  cell.jvp(in, e, {}, state_tangent<const double>(t.ds), state_tangent<double>(b), &lb);
  cell.jvp(in, e, params_tangent<const double>(t.dtheta), state_tangent<const double>(t.ds),
           state_tangent<double>(c), &lc);
  cell.jvp(in, e, {}, {}, state_tangent<double>(ds), nullptr);
  for (std::size_t i = 0; i < S; ++i) {
    CHECK(std::abs(a[i] + b[i] - c[i]) < 1e-14);
    CHECK(ds[i] == 0);
  }
  CHECK(std::abs(la + lb - lc) < 1e-14);
}

TEST_CASE("derive agrees with derivatives written by hand") {
  const auto cell = ad::derive(ad_test::leaky<double>{});
  ad_test::trial<double> t(cell.size());
  const double x = 0.7, target = -0.4;
  const point<double> in{&x, &target};
  t.step(cell, in);
  t.vjp(cell, in);
  // s' = tanh(w s + v x), loss = (s' - target)^2 / 2
  const double next = std::tanh(t.theta[0] * t.s[0] + t.theta[1] * x);
  const double delta = (t.u[0] + t.v * (next - target)) * (1 - next * next);
  CHECK(t.next[0] == next);
  CHECK(t.g[0] == Approx(delta * t.s[0]).epsilon(1e-14));
  CHECK(t.g[1] == Approx(delta * x).epsilon(1e-14));
  CHECK(t.gs[0] == Approx(delta * t.theta[0]).epsilon(1e-14));
}

TEST_CASE("derive works in float") {
  const auto exact = ad::derive(mgu<double>{});
  const auto cell = ad::derive(mgu<float>{});
  const float xf = 0.75f, targetf = -0.5f;
  const double x = 0.75, target = -0.5;
  ad_test::trial<float> a(cell.size());
  ad_test::trial<double> b(exact.size());
  for (std::size_t i = 0; i < b.theta.size(); ++i) b.theta[i] = double(a.theta[i]);
  for (std::size_t i = 0; i < b.s.size(); ++i) b.s[i] = double(a.s[i]), b.u[i] = double(a.u[i]);
  const point<float> narrow{&xf, &targetf};
  const point<double> wide{&x, &target};
  a.step(cell, narrow);
  a.vjp(cell, narrow);
  b.step(exact, wide);
  b.v = double(a.v);
  b.vjp(exact, wide);
  // sums of a dozen terms below one, three roundings deep: 100 eps of float
  for (std::size_t i = 0; i < b.g.size(); ++i) CHECK(std::abs(double(a.g[i]) - b.g[i]) < 1.2e-5);
}

TEST_CASE("given a sample input, derive and its copies never allocate after construction") {
  const double x = 0.7, target = -0.4;
  const point<double> in{&x, &target};
  const auto original = ad::derive(ad_test::leaky<double>{}, in);
  const auto cell = original;
  ad_test::trial<double> t(cell.size());
  const std::size_t before = cell.bytes();
  t.vjp(cell, in);
  t.jvp(cell, in);
  CHECK(cell.bytes() == before);
  const auto cold = ad::derive(ad_test::leaky<double>{});
  const std::size_t empty = cold.bytes();
  t.vjp(cold, in);
  const std::size_t sized = cold.bytes();
  CHECK(sized > empty);
  t.vjp(cold, in);
  CHECK(cold.bytes() == sized);
}

struct of_example : ad_test::leaky<double> {
  using input = cells::example<double>;
  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    return leaky::operator()(theta, s, {x.x, x.target}, next);
  }
  bool finite(const input&) const { return true; }
};

TEST_CASE("a sample input that leads nowhere is refused, not followed") {
  CHECK_THROWS_WITH(ad::derive(of_example{}, cells::example<double>{}),
                    Catch::Matchers::ContainsSubstring("derive: x: is null"));
  const double x = 0.7, target = -0.4;
  CHECK(ad::derive(of_example{}, cells::example<double>{.x = &x, .target = &target}).bytes() >
        ad::derive(of_example{}).bytes());
}

TEST_CASE("an example of other lanes than the function has is refused, not read shifted") {
  const double x[] = {0.7, 0.1}, target[] = {-0.4, 0.3};
  const auto cell = ad::derive(of_example{});
  cells::example<double> in{.x = x, .target = target};
  CHECK(finite_input(cell, in));
  in.lanes = 1;
  CHECK(finite_input(cell, in));
  in.lanes = 2;
  CHECK_THROWS_WITH(finite_input(cell, in), Catch::Matchers::ContainsSubstring(
                                                "derive: x.lanes: is 2, size() of the function has lanes 1"));
}

TEST_CASE("start, finite and scored of the function are those of the system, and only then") {
  std::vector<double> s(1);
  start_state(ad::derive(ad_test::leaky<double>{}), state<double>(s));
  CHECK(s[0] == 0.25);
  std::vector<double> z(6, 1.0);
  start_state(ad::derive(mgu<double>{}), state<double>(z));
  CHECK(z[0] == 0);
  const double bad = std::nan(""), good = 1;
  CHECK_FALSE(finite_input(ad::derive(ad_test::leaky<double>{}), {&bad, &good}));
  CHECK(finite_input(ad::derive(mgu<double>{}), {&bad, &good}));
  const double zero = 0;
  CHECK(scored_losses(ad::derive(ad_test::leaky<double>{}), {&good, &good}) == 1);
  CHECK(scored_losses(ad::derive(ad_test::leaky<double>{}), {&zero, &good}) == 0);
  CHECK(scored_losses(ad::derive(mgu<double>{}), {&zero, &good}) == 1);
}

TEST_CASE("the output of the function is that of the system") {
  struct with_output : mgu<double> {
    void output(params<const double> theta, state<const double> s, view<double> y) const {
      y[0] = theta[0] + s[1];
    }
  };
  const auto cell = ad::derive(with_output{});
  std::vector<double> theta(std::size_t(cell.size().params), 2.0), s{0, 5, 0, 0, 0, 0}, y(1);
  cell.output(theta, s, y);
  CHECK(y[0] == 7);
}

}  // namespace
