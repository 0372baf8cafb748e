#include "unroll/train/mean_loss.hpp"

#include <cmath>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/bptt.hpp"

using namespace unroll;

TEST_CASE("the mean loss of a sequence is that of the report of a gradient") {
  support::random_task<cells::elman<double>> task(cells::elman<double>({.hidden = 3, .lanes = 2}), 9, key{3});
  task.xs[4].target = nullptr;
  auto e = bptt(task.cell, {.max_steps = 9});
  gradient<double> g(task.cell.size().params);
  report r = e.advance(task.theta, task.xs, g);
  r += e.finish(task.theta, g);
  CHECK(r.losses == 16);
  const double mean = training::mean_loss(task.cell, task.theta, task.xs);
  CHECK_THAT(mean, Catch::Matchers::WithinAbs(r.loss / 16, 1e-14));
  CHECK(std::isnan(training::mean_loss(task.cell, task.theta, {})));
  CHECK_THROWS_AS(training::mean_loss(task.cell, std::span(task.theta).first(2), task.xs), error);
}

TEST_CASE("the mean loss looks at an input before it takes the step") {
  support::random_task<cells::elman<double>> task(cells::elman<double>({.hidden = 3, .lanes = 2}), 4, key{3});
  const std::vector<double> nan(2, std::nan(""));
  task.xs[3].x = nan.data();
  task.xs[3].target = nullptr;  // the state that it would spoil has no loss
  CHECK(std::isnan(training::mean_loss(task.cell, task.theta, task.xs)));

  support::random_task<cells::elman<double>> text(cells::elman<double>({.in = 3, .hidden = 2}), 4, key{3},
                                                  support::feed::tokens);
  const std::int32_t outside = 3;
  text.xs[2].token = &outside;
  CHECK_THROWS_WITH(training::mean_loss(text.cell, text.theta, text.xs),
                    Catch::Matchers::ContainsSubstring("x.token: is 3, must be in [0, 3)"));
}
