#include <limits>
#include <type_traits>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/optim/adam.hpp"
#include "unroll/optim/clip.hpp"
#include "unroll/optim/momentum.hpp"
#include "unroll/optim/schedule.hpp"
#include "unroll/optim/sgd.hpp"

using namespace unroll;

namespace {

using list = std::vector<double>;

template <class O>
list run(O opt, list theta, const std::vector<list>& gradients, double scale = 1) {
  for (const auto& g : gradients) REQUIRE(opt.step(theta, g, scale) == status::ok);
  return theta;
}

}  // namespace

TEST_CASE("sgd and momentum follow their recursions") {
  const std::vector<list> g{{1, -2}, {3, 4}};
  CHECK(run(sgd<double>(2, {.rate = 0.5}), {1, 1}, g)[0] == Approx(1 - 0.5 - 1.5));
  CHECK(run(sgd<double>(2, {.rate = 0.5}), {1, 1}, g, 0.1)[1] == Approx(1 + 0.1 - 0.2));
  // v = 1, then 0.9 + 3 = 3.9
  CHECK(run(momentum<double>(2, {.rate = 0.1}), {0, 0}, g)[0] == Approx(-0.1 - 0.39));
  // g + 0.9 v = 1.9, then 3 + 0.9 * 3.9 = 6.51
  CHECK(run(momentum<double>(2, {.rate = 0.1, .nesterov = true}), {0, 0}, g)[0] == Approx(-0.19 - 0.651));
}

TEST_CASE("adam moves by the rate at first and follows its recursion") {
  const adam_options o{.rate = 0.1, .epsilon = 0};
  CHECK(run(adam<double>(1, o), {0}, {{1e-5}})[0] == Approx(-0.1));
  CHECK(run(adam<double>(1, o), {0}, {{-1e5}})[0] == Approx(0.1));
  // by hand: m2 = .9 .1 + .1 2 = .29, v2 = .999 .001 + .001 4 = .004999
  const double second = 0.1 * (0.29 / (1 - 0.81)) / std::sqrt(0.004999 / (1 - 0.999 * 0.999));
  CHECK(run(adam<double>(1, o), {0}, {{1}, {2}})[0] == Approx(-0.1 - second));
  CHECK(run(adam<double>(1, {.rate = 0.1, .epsilon = 1}), {0}, {{1}})[0] == Approx(-0.05));
}

TEST_CASE("weight decay is decoupled from the moments") {
  // a zero gradient leaves the decay alone: theta (1 - rate decay) a step
  const auto theta = run(adam<double>(1, {.rate = 0.1, .decay = 0.5}), {2}, {{0}, {0}});
  CHECK(theta[0] == Approx(2 * 0.95 * 0.95));
  const auto scaled = run(adam<double>(1, {.rate = 0.1, .decay = 0.5}), {2}, {{0}}, 0.5);
  CHECK(scaled[0] == Approx(2 * 0.975));
}

TEST_CASE("four steps end where those of PyTorch and optax end") {
  const std::vector<list> g{{0.5, -1, 2}, {-0.25, 3, 1e-4}, {4, 0.125, -2}, {0, -0.75, 1.5}};
  const double scales[] = {0.5, 1, 1, 0.25};
  const auto ends = [&](auto optimiser, const list& expected) {
    list theta{1, -2, 3};
    for (std::size_t t = 0; t < g.size(); ++t) REQUIRE(optimiser.step(theta, g[t], scales[t]) == status::ok);
    for (std::size_t i = 0; i < theta.size(); ++i) CHECK(theta[i] == Approx(expected[i]).epsilon(1e-14));
  };
  ends(adam<double>(3, {.rate = 0.1, .beta1 = 0.9, .beta2 = 0.95, .decay = 0.3}),
       {0.7698444297130427, -1.8854073636185409, 2.6507277430328395});
  ends(adam<double>(3, {.rate = 0.1}), {0.8437123819259594, -2.044869994828476, 2.8863158892092944});
  ends(momentum<double>(3, {.rate = 0.1}), {0.44295, -2.3880875, 2.729028975});
  ends(momentum<double>(3, {.rate = 0.1, .nesterov = true}), {0.098655, -2.59302875, 2.8186160775});
}

TEST_CASE("every optimiser finds the minimum of a parabola, in float and double") {
  const auto minimise = [](auto opt, auto theta) {
    using T = typename decltype(theta)::value_type;
    std::vector<T> g(2);
    const cosine_schedule schedule{.warm_up = 5, .total = 500};
    for (int t = 0; t < 500; ++t) {
      g[0] = theta[0] - 1;
      g[1] = 3 * (theta[1] + 2);
      REQUIRE(opt.step(theta, g, schedule(t)) == status::ok);
    }
    CHECK(theta[0] == Approx(1).margin(1e-3));
    CHECK(theta[1] == Approx(-2).margin(1e-3));
  };
  minimise(sgd<double>(2, {.rate = 0.1}), std::vector<double>(2));
  minimise(momentum<float>(2, {.rate = 0.02}), std::vector<float>(2));
  minimise(adam<float>(2, {.rate = 0.1}), std::vector<float>(2));
}

TEST_CASE("clipping keeps the direction, returns the norm, and leaves short and broken gradients alone") {
  gradient<double> g(2);
  g[0] = 3;
  g[1] = 4;
  CHECK(clip_norm(g, 10) == 5);
  CHECK(g[0] == 3);
  CHECK(clip_norm(g, 1) == 5);
  CHECK(g[0] == Approx(0.6));
  CHECK(g[1] == Approx(0.8));
  g[0] = std::numeric_limits<double>::infinity();
  CHECK(std::isinf(clip_norm(g, 1)));
  CHECK(g[1] == Approx(0.8));
  gradient<float> huge(1);
  huge[0] = 1e30f;
  CHECK(clip_norm(huge, 1) == Approx(1e30));
  CHECK(huge[0] == Approx(1));
  CHECK_THROWS_AS(clip_norm(g, 0), unroll::error);
}

TEMPLATE_TEST_CASE("clipping is right for list whose squares are not", "", float, double) {
  using T = TestType;
  using limits = std::numeric_limits<T>;
  // 2^664 is about 1e200; the last three are the largest, the smallest normal and a denormal number
  for (const int power :
       {664, -664, limits::max_exponent - 4, limits::min_exponent, limits::min_exponent - limits::digits + 8})
    for (const double share : {0.5, 0.0009765625}) {
      gradient<T> g(2), before(2);
      g[0] = before[0] = T(std::ldexp(3, power));
      g[1] = before[1] = T(std::ldexp(-4, power));
      if (!std::isfinite(g[0]) || g[0] == 0) continue;  // no float
      INFO("2^" << power);
      const double norm = std::ldexp(5, power);
      CHECK(clip_norm(g, 2 * norm) == Approx(norm).epsilon(1e-12));
      CHECK(std::equal(g.begin(), g.end(), before.begin()));
      CHECK(clip_norm(g, share * norm) == Approx(norm).epsilon(1e-12));
      CHECK(double(g[0]) == Approx(share * double(before[0])).epsilon(1e-6).margin(limits::denorm_min()));
      CHECK(double(g[1]) == Approx(share * double(before[1])).epsilon(1e-6).margin(limits::denorm_min()));
    }
  gradient<T> zero(3);
  CHECK(clip_norm(zero, 1) == 0);
}

TEST_CASE(
    "a norm beyond the doubles is clipped all the same, and small ones among large ones keep their sign") {
  gradient<double> g(3);
  g[0] = g[1] = 1.7e308;
  g[2] = -1e-300;
  CHECK(std::isinf(clip_norm(g, 2)));
  CHECK(g[0] == Approx(std::sqrt(2.0)));
  CHECK(g[1] == Approx(std::sqrt(2.0)));
  g[0] = g[1] = 1e200;
  g[2] = std::nan("");
  CHECK(std::isnan(clip_norm(g, 1)));
  CHECK(g[0] == 1e200);
}

TEMPLATE_TEST_CASE("a gradient that is not finite changes neither theta nor the optimiser", "", float,
                   double) {
  using T = TestType;
  const auto check = [](auto optimiser, T poison) {
    const auto trace = [](auto& o) {
      std::vector<double> all;
      o.visit([&](const char*, auto values) { all.insert(all.end(), values.begin(), values.end()); });
      return all;
    };
    std::vector<T> theta{1, 2, 3}, good{T(0.5), -1, 2}, bad{T(0.25), poison, 1};
    REQUIRE(optimiser.step(theta, good) == status::ok);
    const auto held = theta;
    const auto state = trace(optimiser);
    CHECK(optimiser.step(theta, bad) == status::non_finite);
    CHECK(theta == held);
    CHECK(trace(optimiser) == state);
    CHECK(optimiser.step(theta, good) == status::ok);
    CHECK(theta != held);
  };
  using limits = std::numeric_limits<T>;
  for (const T poison : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()}) {
    check(sgd<T>(3), poison);
    check(momentum<T>(3), poison);
    check(momentum<T>(3, {.nesterov = true}), poison);
    check(adam<T>(3), poison);
    check(adam<T>(3, {.decay = 0.1}), poison);
  }
  check(adam<T>(3), limits::max());  // its square is not finite
}

TEST_CASE("an optimiser with the values that another one shows goes on as that one does") {
  const auto check = [](auto one, auto other) {
    list theta{1, 2, 3};
    const list g{0.5, -1, 2};
    REQUIRE(one.step(theta, g) == status::ok);
    std::vector<double> shown;
    one.visit([&](const char*, auto values) { shown.insert(shown.end(), values.begin(), values.end()); });
    std::size_t at = 0;
    other.visit([&](const char*, auto values) {
      for (auto& v : values) v = static_cast<std::remove_reference_t<decltype(v)>>(shown[at++]);
    });
    list again = theta;
    REQUIRE(one.step(theta, g) == status::ok);
    REQUIRE(other.step(again, g) == status::ok);
    CHECK(again == theta);
  };
  check(momentum<double>(3), momentum<double>(3));
  check(adam<double>(3), adam<double>(3));
}

TEST_CASE("schedules have their documented values") {
  CHECK(constant_schedule{}(7) == 1);
  CHECK(inverse_sqrt_schedule{}(0) == 1);
  CHECK(inverse_sqrt_schedule{}(9) == Approx(0.25));
  CHECK(inverse_sqrt_schedule{.slope = 0.03}(100) == Approx(1 / 1.3));
  const cosine_schedule c{.warm_up = 10, .total = 110, .last = 0.1};
  CHECK(c(0) == Approx(0.1));
  CHECK(c(9) == 1);
  CHECK(c(10) == Approx(1));
  CHECK(c(60) == Approx(0.55));
  CHECK(c(110) == 0.1);
  CHECK(c(160) == 0.1);
  CHECK(c(1000) == 0.1);
}

TEST_CASE("optimisers refuse wrong sizes") {
  list two(2), three(3);
  CHECK_THROWS_AS((void)sgd<double>(2).step(three, two), unroll::error);
  CHECK_THROWS_AS((void)momentum<double>(2).step(two, three), unroll::error);
  CHECK_THROWS_AS((void)adam<double>(2).step(two, three), unroll::error);
}
