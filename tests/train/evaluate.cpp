#include "unroll/train/evaluate.hpp"

#include <cmath>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/system/learned_start.hpp"
#include "unroll/train/clipped_cotangent.hpp"

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

TEST_CASE("a stream that comes in parts has the losses and the outputs of one that comes at once") {
  const cells::elman<double> cell({.hidden = 3, .out = 2, .lanes = 2});
  support::random_task<cells::elman<double>> task(cell, 9, key{3});
  task.xs[4].target = nullptr;
  const report whole = training::evaluate(cell, task.theta, task.xs);
  CHECK((whole.losses == 16 && whole.steps == 9 && whole.consumed == 9 && whole.code == status::ok));
  std::vector<double> y(9 * 4), parts(9 * 4), s(6), one(4);
  CHECK(training::predict(cell, task.theta, task.xs, view<double>(y)).loss == whole.loss);

  double loss = 0;
  std::size_t at = 0;
  for (const std::size_t n : {2u, 0u, 3u, 4u}) {
    const auto xs = std::span(task.xs).subspan(at, n);
    loss +=
        training::predict(cell, task.theta, xs, s, view<double>(parts).part(index_t(at) * 4, index_t(n) * 4))
            .loss;
    at += n;
    if (n > 0) {
      cell.output(task.theta, s, view<double>(one));
      CHECK(std::equal(one.begin(), one.end(), parts.begin() + std::ptrdiff_t(at - 1) * 4));
    }
  }
  CHECK(parts == y);
  CHECK(loss == Approx(whole.loss).epsilon(1e-14));
  const std::vector<double> behind = s;
  std::fill(s.begin(), s.end(), 0);
  CHECK(training::evaluate(cell, task.theta, task.xs, s).loss == whole.loss);
  CHECK(s == behind);
}

TEST_CASE("a state is refused where the system has its start in theta") {
  const auto f = learned_start(cells::elman<double>({.hidden = 3}));
  parameters<double> theta(f.size().params);
  std::vector<double> s(3, 1), y(1), x(1);
  const std::vector<decltype(f)::input> xs{{{.x = x.data()}}};
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_WITH(training::evaluate(f, theta, xs, s), ContainsSubstring("learned_start: s0: is given"));
  CHECK_THROWS_WITH(training::predict(f, theta, xs, s, y), ContainsSubstring("learned_start: s0: is given"));
  CHECK_THROWS_WITH(training::evaluate(training::clipped_cotangent(f, 1), theta, xs, s),
                    ContainsSubstring("learned_start: s0: is given"));
  CHECK(training::evaluate(f, theta, xs).consumed == 1);
  CHECK(training::predict(f, theta, xs, y).consumed == 1);
}

TEST_CASE("an evaluation ends in front of what is not finite, and refuses wrong sizes by name") {
  using Catch::Matchers::ContainsSubstring;
  const cells::elman<double> cell({.hidden = 3, .out = 2, .lanes = 2});
  support::random_task<cells::elman<double>> task(cell, 5, key{3});
  std::vector<double> s(6), y(20, 7);
  training::evaluate(cell, task.theta, std::span(task.xs).first(3), s);
  const std::vector<double> after_three = s;
  std::fill(s.begin(), s.end(), 0);
  task.xs[3] = task.bad;
  const report r = training::predict(cell, task.theta, task.xs, s, view<double>(y));
  CHECK((r.code == status::non_finite && r.at == 3 && r.consumed == 3 && r.losses == 6));
  CHECK(s == after_three);
  CHECK((y[11] != 7 && y[12] == 7));
  std::vector<double> huge = task.theta;
  for (double& v : huge) v = 1e308;
  CHECK(training::evaluate(cell, huge, std::span(task.xs).first(2)).code == status::non_finite);

  CHECK_THROWS_WITH(training::evaluate(cell, task.theta, task.xs, std::span(s).first(5)),
                    ContainsSubstring("evaluate: s: has size 5, expected 6"));
  CHECK_THROWS_WITH(training::predict(cell, task.theta, task.xs, view<double>(y).part(0, 19)),
                    ContainsSubstring("predict: y: has size 19, which is no multiple of the 5 steps"));
  CHECK_THROWS_WITH(training::predict(cell, task.theta, task.xs, view<double>(y).part(0, 15)),
                    ContainsSubstring("y: has size 3, expected 4"));
  CHECK_THROWS_WITH(training::predict(cell, task.theta, {}, view<double>(y)),
                    ContainsSubstring("predict: y: has size 20"));
}
