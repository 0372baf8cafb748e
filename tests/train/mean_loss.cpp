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
