#include "unroll/train/loop.hpp"

#include <cmath>

#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/io/file.hpp"
#include "unroll/train/course_rows.hpp"
#include "unroll/train/evaluate.hpp"
#include "unroll/train/run_file.hpp"

using namespace unroll;

namespace {

using cell = cells::elman<double>;

// A stream of 60 steps, three of them a gradient, which tbptt looks at in windows of four: its windows end
// within the gradients, and a cut leaves inputs behind.
struct stream {
  support::random_task<cell> task{cell({.hidden = 3, .lanes = 2}), 60, key{3}};
  training::run_options options{.steps = 10, .report = 2, .rate = 0.05, .accumulate = 2};
  tbptt<cell> estimator{task.cell, {.k1 = 4, .k2 = 8}};
  training::run<double> run{options, theta(), "test"};
  std::vector<double> seen;  ///< held-out losses, as they were reported
  report known;              ///< of the gradients in front of the first report

  parameters<double> theta() const {
    parameters<double> t(index_t(task.theta.size()));
    std::copy(task.theta.begin(), task.theta.end(), t.begin());
    return t;
  }
  std::span<const cell::input> inputs(std::int64_t first, std::int64_t n) const {
    return std::span(task.xs).subspan(std::size_t(first), std::size_t(n));
  }
  template <class After>
  status train(const After& after) {
    return training::train(
        run,
        [&](const auto& at, auto& g) {
          const report r = estimator.advance(at, inputs(3 * run.position(), 3), g);
          if (seen.empty()) known += r;
          return r;
        },
        [&](const auto& at) { return training::mean_loss(task.cell, at, inputs(0, 9)); },
        [&](const training::course_row& row) {
          seen.push_back(row.held_out);
          return after(row);
        });
  }
};

}  // namespace

TEST_CASE("the loop calls after every report, and a stream that was cut there goes on with the same bits") {
  const folder files;
  const auto file = files.path / "run";
  stream whole;
  CHECK(whole.train([](const auto&) { return true; }) == status::ok);
  CHECK((whole.run.done() && whole.run.position() == 20 && whole.seen.size() == 5));
  CHECK(whole.seen.back() != whole.seen.front());
  CHECK(whole.run.course()[4].held_out ==
        training::mean_loss(whole.task.cell, whole.run.theta(), whole.inputs(0, 9)));
  CHECK(whole.run.course()[0].seconds > 0);
  CHECK(whole.run.course()[0].training == Approx(whole.known.loss / double(whole.known.losses)));

  stream first;
  CHECK(first.train([&](const auto& row) {
    training::save_run(file, first.run, first.estimator);
    return row.step < 4;
  }) == status::ok);
  CHECK(first.run.step() == 4);
  stream second;
  training::load_run(file, second.run, second.estimator);
  const index_t held = held_inputs(second.estimator);
  CHECK(held > 0);
  hold_inputs(second.estimator, second.inputs(24 - held, held));
  CHECK(second.train([](const auto&) { return true; }) == status::ok);
  CHECK(std::equal(whole.run.theta().begin(), whole.run.theta().end(), second.run.theta().begin()));
  CHECK(second.seen == std::vector<double>(whole.seen.begin() + 2, whole.seen.end()));

  stream third;  // another stream is refused, and leaves the run as it was
  tbptt<cell> other(third.task.cell, {.k1 = 5, .k2 = 10});
  CHECK_THROWS_WITH(training::load_run(file, third.run, other),
                    Catch::Matchers::ContainsSubstring("stream 0"));
  CHECK(third.run.step() == 0);
}

TEST_CASE("the loop ends at a gradient that is not finite") {
  stream s;
  s.task.xs[7] = s.task.bad;  // in the third gradient, the first of the second step
  CHECK(s.train([](const auto&) {}) == status::non_finite);
  CHECK((s.run.step() == 1 && s.run.position() == 2 && s.seen.empty()));
}

TEST_CASE("a gradient that was not finite, or threw, takes with it the ones that waited for its step") {
  stream s;
  s.task.xs[10] = s.task.bad;  // in the fourth gradient, the second of the second step
  CHECK(s.train([](const auto&) {}) == status::non_finite);
  CHECK((s.run.step() == 1 && s.run.position() == 2));
  for (const double v : s.run.gradient_sum()) CHECK(v == 0);

  training::run<double> r({.steps = 3, .accumulate = 2}, parameters<double>(1), "test");
  const auto held_out = [](const auto&) { return 0.0; };
  const auto half = [&](const auto&, auto& g) -> report {
    g[0] += 1;
    if (r.position() == 1) fail("half", "input", "is gone");
    report one;
    one.losses = 1;
    return one;
  };
  CHECK_THROWS_AS(training::train(r, half, held_out, [](const auto&) {}), error);
  CHECK(r.position() == 0);
  CHECK(r.gradient_sum()[0] == 0);
}

TEST_CASE("a course is rows of a table, with the names of its JSON") {
  training::run<double> r({.steps = 2, .report = 1}, parameters<double>(1), "test");
  REQUIRE(r.update(2, 4, 0.5) == status::ok);
  r.report(1.5, 2);
  const auto rows = training::to_rows(r.course());
  REQUIRE(rows.size() == 1);
  const auto json = training::to_json(r.course()[0]);
  REQUIRE(rows[0].fields().size() == json.size());
  std::size_t i = 0;
  for (const auto& [name, value] : json.items()) {
    const auto& [known, number] = rows[0].fields()[i++];
    CHECK(known == name);
    CHECK((i == 1 ? double(*number.count()) : *number.number()) == value.get<double>());
  }
}
