#include "unroll/ad/elementary.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/ad/dual.hpp"
#include "unroll/ad/tape.hpp"

namespace {

using namespace unroll;

// Central differences of a C^3 function at step h err by h^2 f'''/6 + eps |f| / h; with h = eps^(1/3) and
// values and third derivatives below 20 that is below 1e-8.
constexpr double h = 6e-6, tolerance = 1e-8;

template <class F>
void check_unary(F f, double at) {
  const double v = f(at), slope = (f(at + h) - f(at - h)) / (2 * h);
  const ad::dual<double> d = f(ad::dual<double>(at, 1));
  CHECK(d.value() == v);
  CHECK(std::abs(d.tangent() - slope) < tolerance);

  ad::tape<double> tape;
  const ad::var<double> x = tape.variable(at), y = f(x);
  CHECK(y.value() == v);
  tape.zero_adjoints();
  tape.seed(y, 2);
  tape.propagate();
  CHECK(tape.adjoint(x) == Approx(2 * d.tangent()).epsilon(1e-15).margin(0));

  // the same through float: four more units in the last place than one rounding of each operation
  const ad::dual<float> s = f(ad::dual<float>(float(at), 1.0f));
  CHECK(s.tangent() == Approx(d.tangent()).epsilon(2e-6));
}

template <class F>
void check_binary(F f, double a, double b) {
  check_unary([&](const auto& x) { return f(x, b); }, a);
  check_unary([&](const auto& x) { return f(a, x); }, b);
  check_unary([&](const auto& x) { return f(x, x * x); }, a);
}

TEST_CASE("every elementary function has the slope of its finite difference") {
  using std::abs, std::cos, std::exp, std::log, std::sin, std::sqrt, std::tanh;
  for (const double at : {0.3, 0.8, 1.7}) {
    check_unary([](const auto& x) { return exp(x); }, at);
    check_unary([](const auto& x) { return log(x); }, at);
    check_unary([](const auto& x) { return tanh(x); }, at);
    check_unary([](const auto& x) { return sin(x); }, at);
    check_unary([](const auto& x) { return cos(x); }, at);
    check_unary([](const auto& x) { return sqrt(x); }, at);
    check_unary([](const auto& x) { return abs(x); }, at);
    check_unary([](const auto& x) { return abs(-x); }, at);
    check_unary([](const auto& x) { return -x + 3; }, at);
    check_unary([](const auto& x) { return 1 / (1 + exp(-x)); }, at);
  }
}

TEST_CASE("two-argument operations have the slopes of their finite differences") {
  using std::max, std::min, std::pow;
  check_binary([](const auto& x, const auto& y) { return x + y; }, 0.7, 1.2);
  check_binary([](const auto& x, const auto& y) { return x - y; }, 0.7, 1.2);
  check_binary([](const auto& x, const auto& y) { return x * y; }, 0.7, 1.2);
  check_binary([](const auto& x, const auto& y) { return x / y; }, 0.7, 1.2);
  check_binary([](const auto& x, const auto& y) { return pow(x, y); }, 0.7, 1.2);
  check_unary([](const auto& x) { return pow(x, 2); }, -0.7);
  check_unary([](const auto& x) { return pow(x, 0); }, 0.7);
  check_unary([](const auto& x) { return max(x * x, x + 1) * min(x * x, x + 1); }, 0.4);
  check_unary([](const auto& x) { return max(x * x, x + 1) - min(x * x, x + 1); }, 2.4);
}

TEST_CASE("a derivative of 0 beside an infinite one is 0, forwards and backwards") {
  const auto check = [](auto f, double at, double expected) {
    const ad::dual<double> d = f(ad::dual<double>(at, 1));
    ad::tape<double> tape;
    const ad::var<double> x = tape.variable(at), y = f(x);
    tape.zero_adjoints();
    tape.seed(y, 1);
    tape.propagate();
    CHECK(d.tangent() == expected);
    CHECK(tape.adjoint(x) == expected);
  };
  check([](auto x) { return 1.0 / (1.0 + exp(-x)); }, -800, 0);  // exp(800) is infinite
  check([](auto x) { return x * sqrt(x); }, 0, 0);
  check([](auto x) { return sqrt(x * x); }, 0, 0);  // the length of a state that begins at 0
  check([](auto x) { return x + sqrt(decltype(x)(0)); }, 0, 1);
  check([](auto x) { return sqrt(x); }, 0, std::numeric_limits<double>::infinity());
}

TEST_CASE("compound assignment equals the operator") {
  check_unary(
      [](auto x) {
        auto y = x;
        y += 2;
        y *= x;
        y -= x / 3;
        y /= x * x;
        y *= y;
        return y;
      },
      0.9);
}

TEST_CASE("comparisons look at values") {
  const ad::dual<double> a(1, 5), b(2, -1), c(1, 0);
  CHECK(a < b);
  CHECK(b >= a);
  CHECK(a == c);
  CHECK(a != b);
  CHECK(a > 0);
  CHECK_FALSE(ad::var<float>(1) > 2);
  const ad::dual<double> nan(std::nan(""));
  CHECK_FALSE(nan < a);
  CHECK_FALSE(nan >= a);
}

}  // namespace
