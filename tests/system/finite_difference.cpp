#include "unroll/system/finite_difference.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/testing/oracle.hpp"
#include "unroll/testing/system_conformance.hpp"

namespace testing = unroll::testing;
using unroll::finite_difference;

namespace {

// s' = theta_0 s + theta_1 x^2, loss = s'^2: a step and nothing else.
template <class T>
struct black_box {
  using scalar = T;
  using input = T;
  unroll::dims size() const { return {2, 1, 1, 1, 1}; }
  void step(T x, const unroll::edge<T>& e) const {
    e.workspace[0] = x * x;
    e.next[0] = e.theta[0] * e.s[0] + e.theta[1] * e.workspace[0];
    e.tape[0] = 1;
    *e.loss = e.next[0] * e.next[0];
  }
};

static_assert(!unroll::has_vjp<black_box<double>> && !unroll::has_jvp<black_box<double>>);
static_assert(unroll::has_vjp<finite_difference<black_box<double>>>);
static_assert(unroll::has_jvp<finite_difference<black_box<float>>>);

}  // namespace

TEMPLATE_TEST_CASE("a system with a step alone gets its derivatives", "", float, double) {
  const finite_difference f(black_box<TestType>{});
  const std::vector<TestType> theta{TestType(.9), TestType(.4)}, s{TestType(.7)};
  const TestType x = TestType(1.5);
  const auto d = testing::vjp_jacobians(f, theta, s, x);
  const double next = .9 * .7 + .4 * 2.25;
  // second and third differences of a quadratic vanish: only rounding is left, eps / eps^(1/3)
  const double tolerance = 8 * std::pow(double(std::numeric_limits<TestType>::epsilon()), 2.0 / 3);
  CHECK(d.next_s[0] == Approx(.9).epsilon(tolerance));
  CHECK(d.next_theta[0] == Approx(.7).epsilon(tolerance));
  CHECK(d.next_theta[1] == Approx(2.25).epsilon(tolerance));
  CHECK(d.loss_s[0] == Approx(2 * next * .9).epsilon(tolerance));
  CHECK(d.loss_theta[1] == Approx(2 * next * 2.25).epsilon(tolerance));
}

TEST_CASE("the gradient of a sequence comes out to eps^(2/3)") {
  const finite_difference f(golden::rnn<>{});
  CHECK(testing::relative_error(testing::backward_gradient(f, golden::theta(), golden::inputs()),
                                golden::gradient) < 1e-9);
  CHECK(testing::relative_error(testing::forward_gradient(f, golden::theta(), golden::inputs()),
                                golden::gradient) < 1e-9);
}

TEMPLATE_TEST_CASE("it keeps the rules of a system, with the precision of differences", "", float, double) {
  const finite_difference f(support::complete<TestType>{2, 2});
  const double eps = double(std::numeric_limits<TestType>::epsilon());
  const testing::system_conformance_options options{.rounding = 100 * std::pow(eps, -1.0 / 3)};
  CHECK(testing::system_conformance(f, support::complete_theta<TestType>(),
                                    support::complete_inputs<TestType>(4),
                                    options) == std::vector<std::string>{});
}

TEST_CASE("a direction of length zero has derivative zero") {
  const finite_difference f(black_box<double>{});
  const std::vector<double> theta{.9, .4};
  testing::edge_memory m(f);
  const auto e = m.at(theta);
  f.step(1.5, e);
  std::vector<double> dnext{7}, zero{0, 0};
  double dloss = 7;
  f.jvp(1.5, unroll::const_edge<double>(e), zero, {}, dnext, &dloss);
  CHECK(dnext[0] == 0);
  CHECK(dloss == 0);
}

TEST_CASE("start, finite and scored are forwarded by the finite-difference adaptor") {
  const finite_difference f(golden::rnn<>{});
  std::vector<double> s(2);
  unroll::start_state(f, s);
  CHECK(s == std::vector<double>{0.3, 0.3});
  CHECK_FALSE(unroll::finite_input(f, {std::nan(""), {}}));
  CHECK(unroll::scored_losses(f, {1.0, {}}) == 1);
  CHECK(unroll::scored_losses(finite_difference(support::masked{}), -1) == 0);
  CHECK(unroll::scored_losses(finite_difference(support::masked{}), 1) == 3);
}
