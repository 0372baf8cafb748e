#include "unroll/diagnose/measure.hpp"

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"

using namespace unroll;

namespace {

// The exact gradient, scaled and displaced, with Gaussian noise: an estimator whose every number is known.
template <class T, bool draws = true>
struct noisy_gradient {
  using system_type = golden::rnn<T>;
  using scalar = T;
  using input = typename system_type::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = draws;
  static constexpr std::array<const char*, 0> references{};

  void reset(key k, state<const T> = {}) { chooser_.reset(k); }
  report advance(params<const T> theta, std::span<const input> xs, dparams<T> g) {
    smoothed_gradient<system_type> path(rnn, {.max_steps = index_t(xs.size())});
    gradient<T> exact(8);
    report r = path(key{}, theta, xs, exact);
    std::vector<double> noise(8, 0.0);
    if (random) chooser_.normals(0, view<double>(noise));
    if (coins > 0 && chooser_.coin(1, coins)) r.code = status::non_finite;
    for (index_t j = 0; j < 8; ++j)
      g[j] += T(scale * double(exact[j]) + sigma * noise[std::size_t(j)] + (j == 0 ? shift : 0));
    return r;
  }
  report finish(params<const T>, dparams<T>) { return {}; }
  const system_type& system() const { return rnn; }

  golden::rnn<T> rnn;
  double scale = 1, shift = 0, sigma = 0, coins = 0;
  philox_chooser chooser_;
};

using noisy = noisy_gradient<double>;
using fixed = noisy_gradient<double, false>;

// Everything but the time, byte for byte.
std::string bits(measurement m) {
  m.seconds = m.variance_time = 0;
  std::string s;
  const auto put = [&](const auto& v) {
    char raw[sizeof v];
    std::memcpy(raw, &v, sizeof v);
    s.append(raw, sizeof v);
  };
  for (double v : {m.exact_norm, m.bias_square, m.relative_bias, m.relative_bias_low, m.relative_bias_high,
                   m.variance, m.mse, m.snr, m.cosine, m.mean_norm_ratio, m.descent, m.descent_low,
                   m.descent_high, m.worst_z, m.max_over_sum, m.steps, m.vjps})
    put(v);
  for (index_t v : {m.replicas, m.diverged, m.pilot}) put(v);
  return s;
}

const auto theta = golden::theta<double>();
const auto xs = golden::inputs<double>();
const double norm = std::sqrt(golden::gradient_squared_norm);

}  // namespace

TEST_CASE("the exact gradient is the golden one") {
  const auto g = exact_gradient(golden::rnn<double>{}, theta, xs);
  for (index_t j = 0; j < 8; ++j)
    CHECK(g[j] == Approx(golden::gradient[std::size_t(j)]).epsilon(1e-13).margin(1e-14));
}

TEST_CASE("the numbers of a measurement are those of the estimator") {
  noisy est;
  est.sigma = 0.5;
  const auto m = measure(est, theta, xs, {.replicas = 4000, .threads = 1});
  CHECK(m.exact_norm == Approx(norm).epsilon(1e-12));
  CHECK(m.replicas == 4000);
  CHECK(m.code == status::ok);
  // 8 coordinates of variance 1/4; the sample variance has relative deviation sqrt(2 / 32000) = 0.8 %
  CHECK(m.variance == Approx(2).epsilon(0.04));
  CHECK(m.snr == Approx(golden::gradient_squared_norm / 2).epsilon(0.04));
  CHECK(m.mse == Approx(2).epsilon(0.05));
  CHECK(m.relative_bias_low == 0);
  CHECK(m.relative_bias < m.relative_bias_high);
  CHECK(m.relative_bias_high < 0.05);
  CHECK(m.worst_z < m.worst_z_limit);
  CHECK(m.cosine == Approx(1).margin(1e-3));
  CHECK(m.mean_norm_ratio > 1.1);  // sqrt(1 + tr V / ||g||^2) = 1.27 although there is no bias
  CHECK(m.descent_low < 1);
  CHECK(m.descent_high > 1);
  CHECK_FALSE(m.heavy_tails);
  CHECK(m.steps == 1);
  CHECK(m.vjps == 1);
  CHECK(m.bytes > 0);
  CHECK(m.variance_time == Approx(m.variance * m.seconds * 3));
}

TEST_CASE("a bias is found, with its length and its direction") {
  noisy est;
  est.sigma = 0.1;
  est.scale = 0.5;
  const auto m = measure(est, theta, xs, {.replicas = 400});
  CHECK(m.relative_bias_low < 0.5);
  CHECK(m.relative_bias_high > 0.5);
  CHECK(m.relative_bias_high - m.relative_bias_low < 0.05);
  CHECK(m.relative_bias == Approx(0.5).margin(0.01));
  CHECK(m.descent == Approx(0.5).margin(0.01));
  CHECK(m.descent_low < 0.5);
  CHECK(m.descent_high > 0.5);
  CHECK(m.cosine > 0.999);  // blind to a wrong length
  CHECK(m.worst_z > m.worst_z_limit);
  CHECK(m.mse == Approx(golden::gradient_squared_norm / 4 + 0.08).epsilon(0.05));
  est.scale = -0.2;
  CHECK(measure(est, theta, xs, {.replicas = 100}).descent_high < 0);
}

TEST_CASE("a deterministic estimator runs four times and its interval is a point") {
  fixed est;
  est.shift = 0.3;
  const auto m = measure(est, theta, xs, {.replicas = 50});
  CHECK(m.replicas == 4);
  CHECK(m.variance == 0);
  CHECK(m.relative_bias == Approx(0.3 / norm).epsilon(1e-12));
  CHECK(m.relative_bias_low == m.relative_bias_high);
  CHECK(m.relative_bias_low == Approx(0.3 / norm).epsilon(1e-12));
  CHECK(m.descent_low == m.descent_high);
  CHECK(m.worst_z == 0);
  CHECK_FALSE(m.heavy_tails);
}

TEST_CASE("an estimator that draws although it says that it does not gets all its replicas") {
  struct hidden : fixed {
    void reset(key k, state<const double> = {}) { shift = draw_uniform(k, 0); }
  };
  const auto m = measure(hidden{}, theta, xs, {.replicas = 500});
  CHECK(m.replicas == 500);
  CHECK(m.variance == Approx(1.0 / 12).epsilon(0.2));
  CHECK_THROWS_AS(measure(hidden{}, theta, xs, {.replicas = 1}), unroll::error);
  CHECK(measure(fixed{}, theta, xs, {.replicas = 1}).variance == 0);
}

TEST_CASE("the result has the same bits for any number of threads") {
  noisy est;
  est.sigma = 1;
  est.shift = 0.2;
  measure_options o{.replicas = 333};
  o.threads = 1;
  const auto one = bits(measure(est, theta, xs, o));
  for (index_t threads : {2, 5, 0}) {
    o.threads = threads;
    CHECK(bits(measure(est, theta, xs, o)) == one);
  }
  o.seed = key{2};
  CHECK(bits(measure(est, theta, xs, o)) != one);
  o.seed = key{1};
  o.precision = 0.05;
  o.threads = 1;
  const auto two_stages = bits(measure(est, theta, xs, o));
  o.threads = 3;
  CHECK(bits(measure(est, theta, xs, o)) == two_stages);
}

TEST_CASE("the second stage is large enough for the precision asked for") {
  noisy est;
  est.sigma = 1;
  for (double shift : {0.0, 1.0}) {
    est.shift = shift;
    const auto m = measure(est, theta, xs, {.replicas = 100, .precision = 0.05});
    CHECK(m.pilot == 100);
    CHECK(m.replicas > 100);
    CHECK((m.relative_bias_high - m.relative_bias_low) / 2 < 0.07);
    CHECK(m.relative_bias_low <= shift / norm);
    CHECK(m.relative_bias_high >= shift / norm);
    // it shares no draw with the pilot, so it is not the sample that a single stage would have taken
    const auto single = measure(est, theta, xs, {.replicas = m.replicas});
    CHECK(single.replicas == m.replicas);
    CHECK(single.bias_square != m.bias_square);
  }
  const auto bounded = measure(est, theta, xs, {.replicas = 100, .precision = 1e-6, .max_replicas = 200});
  CHECK(bounded.replicas == 200);
}

TEST_CASE("replicas that are not finite are counted and kept out of the numbers") {
  noisy est;
  est.sigma = 0.1;
  est.coins = 0.25;
  const auto m = measure(est, theta, xs, {.replicas = 200});
  CHECK(m.code == status::non_finite);
  CHECK(m.diverged > 20);
  CHECK(m.diverged + m.replicas == 200);
  CHECK(m.variance == Approx(0.08).epsilon(0.2));
  est.coins = 1;
  const auto none = measure(est, theta, xs, {.replicas = 20});
  CHECK(none.replicas == 0);
  CHECK(none.relative_bias_low == 0);
  CHECK(std::isinf(none.relative_bias_high));
  auto wild = xs;
  wild[1].x = std::numeric_limits<double>::infinity();
  CHECK(measure(est, theta, wild, {.replicas = 20}).code == status::non_finite);
  CHECK_THROWS_AS(exact_gradient(golden::rnn<double>{}, theta, wild), unroll::error);
}

TEST_CASE("heavy tails are flagged") {
  const auto sample_of = [](bool ratio) {
    const auto draw = [ratio](key k, dparams<double> x) {
      x[0] = draw_normal(k, 0) / (ratio ? draw_normal(k, 1) : 1);
      return report{};
    };
    return draw_sample<double>(draw, 1, {}, 1000, {.threads = 1});
  };
  const auto light = sample_of(false), heavy = sample_of(true);
  CHECK(light.max_over_sum() < 0.05);
  CHECK(heavy.max_over_sum() > 0.1);
}

TEST_CASE("a reference that is given is used, and sizes and options are checked") {
  noisy est;
  est.sigma = 0.1;
  const std::vector<double> zero(8, 0.0);
  std::vector<double> twice(8);
  for (std::size_t j = 0; j < 8; ++j) twice[j] = 2 * golden::gradient[j];
  CHECK(measure(est, theta, xs, {.replicas = 100, .reference = twice}).descent == Approx(0.5).margin(0.01));
  CHECK_THROWS_AS(measure(est, theta, xs, {.replicas = 100, .reference = view<const double>(zero.data(), 7)}),
                  unroll::error);
  CHECK_THROWS_AS(measure(est, params<const double>(theta.data(), 7), xs), unroll::error);
  CHECK_THROWS_AS(measure(est, theta, xs, {.replicas = 1}), unroll::error);
  CHECK_THROWS_AS(measure(est, theta, xs, {.confidence = 1}), unroll::error);
}

TEST_CASE("stopping returns the blocks that are complete") {
  noisy est;
  est.sigma = 1;
  std::atomic<index_t> done{0};
  std::atomic<bool> stop{true};
  const auto none = measure(est, theta, xs, {.replicas = 100, .reference = golden::gradient, .stop = &stop});
  CHECK(none.replicas == 0);
  stop = false;
  {
    const std::jthread watcher([&] {
      while (done.load() < 100) std::this_thread::yield();
      stop = true;
    });
    const auto some =
        measure(est, theta, xs, {.replicas = 100'000'000, .threads = 2, .done = &done, .stop = &stop});
    CHECK(some.replicas % 16 == 0);
    CHECK(some.replicas >= 64);
    CHECK(some.replicas < 100'000'000);
    CHECK(some.variance == Approx(8).epsilon(0.5));
  }
}

TEST_CASE("an exception inside a replica reaches the caller") {
  const auto draw = [](key k, dparams<double>) -> report {
    if (k == fold(key{1}, 37)) fail("draw", "key", "is the one that fails");
    return {};
  };
  for (index_t threads : {1, 3})
    CHECK_THROWS_WITH(draw_sample<double>(draw, 2, {}, 100, {.threads = threads}),
                      Catch::Matchers::ContainsSubstring("the one that fails"));
}

TEST_CASE("an exception inside a replica reaches the caller of a sample that was stopped, too") {
  for (int repeat = 0; repeat < 500; ++repeat) {  // the block that stops is rarely the first to say so
    std::atomic<bool> stop{false};
    const auto draw = [&](key k, dparams<double>) -> report {
      if (k != fold(key{1}, 16)) {  // the first block waits for the exception of the second
        while (!stop) std::this_thread::yield();
        return {};
      }
      stop = true;
      fail("draw", "key", "is the one that fails");
    };
    REQUIRE_THROWS_WITH(draw_sample<double>(draw, 2, {}, 32, {.threads = 2, .stop = &stop}),
                        Catch::Matchers::ContainsSubstring("the one that fails"));
  }
}

TEST_CASE("float estimators are measured in double") {
  noisy_gradient<float> est;
  est.sigma = 0.1;
  const auto m = measure(est, golden::theta<float>(), golden::inputs<float>(), {.replicas = 200});
  CHECK(m.exact_norm == Approx(norm).epsilon(1e-5));
  CHECK(m.relative_bias_low == 0);
  CHECK(m.variance == Approx(0.08).epsilon(0.2));
}
