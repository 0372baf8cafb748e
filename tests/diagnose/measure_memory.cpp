#include <cmath>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/diagnose/measure.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/policy.hpp"

using namespace unroll;
using namespace memory_task;

TEST_CASE("measure compares the policies of a memory model with its exact gradient") {
  const task<linear> k(make_linear(), 8);
  const parts all = every_part(k);
  const auto exact = exact_gradient(k.model, k.theta, k.xs);
  const auto differences = k.differences();
  CHECK(relative_error(exact, differences) < 1e-9);
  double square = 0;
  for (const double v : exact) square += v * v;

  const auto measured = [&](const char* name) {
    return with_policy(parse_policy(name), k.model, 8, philox_chooser{}, [&](const auto& e) {
      return measure(e, k.theta, k.xs, {.replicas = 3000, .seed = {4}, .threads = 1});
    });
  };
  const measurement none = measured("keep:2");
  CHECK(none.relative_bias == 0);
  CHECK(none.variance == 0);
  CHECK(std::abs(none.exact_norm - std::sqrt(square)) < 1e-12 * std::sqrt(square));
  CHECK(none.steps == (7 + 5 + 8) / 8.);  // writes, rewrites and reads a segment
  CHECK(none.vjps == (7 + 8) / 8.);

  const measurement window = measured("window:2");
  const auto truncated = run(incremental_tbptt(k.model, {.window = 2}), k.theta, k.xs);
  CHECK(window.variance == 0);
  CHECK(std::abs(window.relative_bias - relative_error(truncated, exact)) < 1e-12);
  CHECK(window.relative_bias > .01);

  const measurement reservoir2 = measured("reservoir:2");
  CHECK(reservoir2.relative_bias_low == 0);
  CHECK(std::abs(reservoir2.worst_z) < reservoir2.worst_z_limit);
  const double variance = variance_by_formula(all, reservoir(2));
  CHECK(std::abs(reservoir2.variance - variance) < .15 * variance);
  CHECK(measured("proportional:4").relative_bias_low == 0);
  CHECK(measured("reservoir:2:uncompensated").relative_bias_low > 0);
}

TEST_CASE("the mean of four reservoirs has a quarter of the variance, mirrored pairs the same mean") {
  const task<attention> k(make_attention(), 16);
  const reservoir_tbptt one(k.model, {.segments = 16, .size = 2});
  const double variance = variance_by_formula(every_part(k), reservoir(2));
  const measurement four =
      measure(mean_of(one, 4), k.theta, k.xs, {.replicas = 1500, .seed = {2}, .threads = 1});
  CHECK(four.relative_bias_low == 0);
  CHECK(std::abs(four.variance - variance / 4) < .15 * variance / 4);
  const measurement pairs =
      measure(mean_of(one, 2, true), k.theta, k.xs, {.replicas = 1500, .seed = {3}, .threads = 1});
  CHECK(pairs.relative_bias_low == 0);
}

// Losses that do not move, and a gradient beyond the doubles.
class cliff : public weights {
 public:
  using weights::weights;
  void write_vjp(std::span<const char>, index_t, params<const double>, std::span<const double* const>,
                 write_graphs<numbers<double>> graphs, memory_gradients<numbers<double>> to,
                 view<double>) const {
    for (const double v : graphs.dm) to.dtheta[0] += v * 1e200 * 1e200;
  }
};

TEST_CASE("an exact gradient that overflows is refused though every loss is finite") {
  const cliff model(3);
  const std::vector<char> xs(3);
  const std::vector<double> theta(9);
  rematerialise estimator(model, {.segments = 3});
  std::vector<double> g(9);
  estimator.reset({});
  report r = estimator.advance(theta, xs, g);
  r += estimator.finish(theta, g);
  CHECK(r.code == status::ok);
  CHECK_THROWS_WITH((exact_gradient(model, theta, xs)),
                    Catch::Matchers::ContainsSubstring("their gradient is not"));
}
