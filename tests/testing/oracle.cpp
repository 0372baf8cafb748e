#include "unroll/testing/oracle.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"

namespace testing = unroll::testing;
using unroll::index_t;

TEST_CASE("the loss of a sequence is that of the golden network") {
  CHECK(testing::sequence_loss(golden::rnn<>{}, golden::theta(), golden::inputs()) ==
        Approx(golden::loss).epsilon(1e-14));
}

TEST_CASE("Ridders' method finds derivatives to nearly full precision") {
  CHECK(testing::ridders_derivative([](double h) { return std::exp(1 + h); }) ==
        Approx(std::exp(1.0)).epsilon(1e-12));
  CHECK(testing::ridders_derivative([](double h) { return 1 / (2 + h); }) == Approx(-0.25).epsilon(1e-12));
  CHECK(testing::ridders_derivative([](double) { return 3.0; }) == 0);
}

TEST_CASE("all three oracles give the golden gradient") {
  const golden::rnn<> f;
  CHECK(testing::relative_error(testing::difference_gradient(f, golden::theta(), golden::inputs()),
                                golden::gradient) < 1e-11);
  CHECK(testing::relative_error(testing::backward_gradient(f, golden::theta(), golden::inputs()),
                                golden::gradient) < 1e-14);
  CHECK(testing::relative_error(testing::forward_gradient(f, golden::theta(), golden::inputs()),
                                golden::gradient) < 1e-14);
}

TEST_CASE("the oracles start from a given state") {
  const support::complete<double> f{3};
  const auto theta = support::complete_theta<double>(3);
  const auto xs = support::complete_inputs<double>(6);
  const std::vector<double> s0{.9, -.4, .1};
  const auto exact = testing::difference_gradient(f, theta, xs, s0);
  CHECK(testing::relative_error(testing::backward_gradient(f, theta, xs, s0), exact) < 1e-11);
  CHECK(testing::relative_error(testing::forward_gradient(f, theta, xs, s0), exact) < 1e-11);
  CHECK(testing::relative_error(testing::backward_gradient(f, theta, xs), exact) > 1e-3);
}

TEST_CASE("differences in float come within the precision of float") {
  const golden::rnn<float> f;
  CHECK(testing::relative_error(
            testing::difference_gradient(f, golden::theta<float>(), golden::inputs<float>()),
            golden::gradient) < 1e-3);
}

TEMPLATE_TEST_CASE("dense derivatives by differences and by vjp agree", "", float, double) {
  const support::complete<TestType> f{3, 2};
  const auto theta = support::complete_theta<TestType>(3);
  const std::vector<TestType> s{TestType(.3), TestType(-.2), TestType(.5), TestType(.1), TestType(-.7), 0};
  const auto a = testing::difference_jacobians(f, theta, s, TestType(.8));
  const auto b = testing::vjp_jacobians(f, theta, s, TestType(.8));
  const double tolerance = 100 * std::pow(double(std::numeric_limits<TestType>::epsilon()), 2.0 / 3);
  CHECK(a.next_s.size() == 36);
  CHECK(a.next_theta.size() == 54);
  CHECK(testing::relative_error(a.next_s, b.next_s) < tolerance);
  CHECK(testing::relative_error(a.next_theta, b.next_theta) < tolerance);
  CHECK(testing::relative_error(a.loss_s, b.loss_s) < tolerance);
  CHECK(testing::relative_error(a.loss_theta, b.loss_theta) < tolerance);
}

TEST_CASE("a wrong vjp is far from the differences") {
  const support::complete<double> f{2, 1, support::fault::vjp_wrong_factor};
  const auto theta = support::complete_theta<double>();
  const auto xs = support::complete_inputs<double>(4);
  CHECK(testing::relative_error(testing::backward_gradient(f, theta, xs),
                                testing::difference_gradient(f, theta, xs)) > 1e-3);
}

TEST_CASE("the relative error refuses vectors of different sizes") {
  CHECK_THROWS_AS(testing::relative_error(std::vector<double>(2), std::vector<double>(3)), unroll::error);
}
