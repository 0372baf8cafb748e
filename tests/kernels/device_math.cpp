#include "unroll/kernels/device_math.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/kernels/random_body.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/testing/simt/context.hpp"

using namespace unroll;

namespace {

// |y - exact| in units in the last place of a float of exact's size.
double ulps(float y, double exact) {
  const double size = std::max(std::abs(exact), double(std::numeric_limits<float>::min()));
  return std::abs(double(y) - exact) / std::ldexp(1.0, std::ilogb(size) - 23);
}

// The largest error over the floats from `first` to `last` (of one sign), every `step`-th of them.
template <class F, class Exact>
double worst(float first, float last, std::uint32_t step, F f, Exact exact) {
  double most = 0;
  const std::uint32_t end = kernels::math::detail::bits_of(last);
  for (std::uint32_t u = kernels::math::detail::bits_of(first); u <= end && u >= step; u += step) {
    const float x = kernels::math::detail::float_of(u);
    most = std::max(most, ulps(f(x), exact(double(x))));
  }
  return most;
}

}  // namespace

TEST_CASE("exp2, exp and log of the bodies are within 1.2 units in the last place", "[simt]") {
  const auto exp2 = [](float x) { return kernels::math::exp2(x); };
  const auto exp = [](float x) { return kernels::math::exp(x); };
  const auto log = [](float x) { return kernels::math::log(x); };
  const auto exact_exp2 = [](double x) { return std::exp2(x); };
  const auto exact_exp = [](double x) { return std::exp(x); };
  const auto exact_log = [](double x) { return std::log(x); };
  // all floats of an interval
  CHECK(worst(0.5f, 0.75f, 1, exp2, exact_exp2) < 1);
  CHECK(worst(-0.25f, -0.375f, 1, exp, exact_exp) < 1.2);
  CHECK(worst(0.9f, 1.1f, 1, log, exact_log) < 1);
  // a sample of the rest
  CHECK(worst(1e-30f, 127.99f, 9973, exp2, exact_exp2) < 1);
  CHECK(worst(-1e-30f, -149.f, 9973, exp2, exact_exp2) < 1);
  CHECK(worst(1e-30f, 88.72f, 9973, exp, exact_exp) < 1.2);
  CHECK(worst(-1e-30f, -103.f, 9973, exp, exact_exp) < 1.2);
  CHECK(worst(1e-45f, 3.4e38f, 9973, log, exact_log) < 1);
}

TEST_CASE("elementary functions of the bodies at the ends of their ranges", "[simt]") {
  const float infinity = INFINITY;
  CHECK(kernels::math::exp2(0.f) == 1);
  CHECK(kernels::math::exp2(-149.f) == 0x1p-149f);
  CHECK(kernels::math::exp2(127.f) == 0x1p127f);
  CHECK(kernels::math::exp2(128.f) == infinity);
  CHECK(kernels::math::exp2(-infinity) == 0);
  CHECK(kernels::math::exp2(infinity) == infinity);
  CHECK(std::isnan(kernels::math::exp2(NAN)));
  CHECK(kernels::math::exp(0.f) == 1);
  CHECK(kernels::math::exp(-infinity) == 0);
  CHECK(kernels::math::exp(infinity) == infinity);
  CHECK(kernels::math::exp(88.73f) == infinity);
  CHECK(std::isnan(kernels::math::exp(NAN)));
  CHECK(kernels::math::log(1.f) == 0);
  CHECK(kernels::math::log(0.f) == -infinity);
  CHECK(kernels::math::log(infinity) == infinity);
  CHECK(std::isnan(kernels::math::log(-1.f)));
  CHECK(std::isnan(kernels::math::log(NAN)));
  CHECK(kernels::math::logistic(-200.f) == 0);
  CHECK(kernels::math::logistic(200.f) == 1);
  CHECK(kernels::math::reciprocal_sqrt(4.f) == 0.5f);
}

TEST_CASE("log and turn_of in double, of which normals are made", "[simt]") {
  double of_log = 0, of_turn = 0;
  for (int i = 0; i < 20000; ++i) {
    const double u = draw_uniform({5}, i), v = double(float(u)) < 1 ? double(float(u)) : 0;
    const double x = std::ldexp(u + 0.25, i % 90 - 60);
    of_log = std::max(of_log, std::abs(kernels::math::log(x) - std::log(x)) / std::abs(std::log(x)));
    of_turn =
        std::max(of_turn, std::abs(kernels::math::turn_of(v, true) - std::cos(6.283185307179586476925 * v)));
    of_turn =
        std::max(of_turn, std::abs(kernels::math::turn_of(v, false) - std::sin(6.283185307179586476925 * v)));
  }
  CHECK(of_log < 3e-16);
  CHECK(of_turn < 1e-15);
}

#if !defined(__FMA__) && !defined(__aarch64__)  // as device_math.hpp asks for
TEST_CASE("the normals of the bodies have the bits of the chooser's", "[simt]") {
  std::vector<double> by_body(777), drawn(777);
  testing::simt::run(kernels::normals_body<double>{key{9}, 4, by_body.data(), 777});
  draw_normals(key{9}, 4, view<double>(drawn));
  CHECK(by_body == drawn);
}
#endif
