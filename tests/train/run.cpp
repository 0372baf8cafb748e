#include "unroll/train/run.hpp"

#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "unroll/io/file.hpp"
#include "unroll/train/run_file.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

parameters<float> start() {
  parameters<float> theta(3);
  for (index_t i = 0; i < 3; ++i) theta[i] = float(i) - 1;
  return theta;
}

const training::run_options short_run{.steps = 7, .report = 3, .rate = 0.01, .clip = 0.5, .decay = 0};

// A step with a gradient that is a function of the step and theta; two tokens, whose loss is summed.
status take_step(training::run<float>& r) {
  auto& g = r.zeroed_gradient();
  for (index_t i = 0; i < 3; ++i) g[i] = 2 * (r.theta()[i] - float(r.step()));
  return r.update(0.5 + double(r.step()), 2, 0.25);
}

void advance(training::run<float>& r, std::int64_t until) {
  while (r.step() < until) {
    REQUIRE(take_step(r) == status::ok);
    if (r.due()) r.report(1.5, 2, 1);
  }
}

}  // namespace

TEST_CASE("a run divides by the tokens, clips, follows its schedule and steps as AdamW does") {
  training::run<float> r(short_run, start(), "test");
  auto theta = start();
  adam<float> optimiser(3, {.rate = 0.01, .beta1 = 0.9, .beta2 = 0.95, .decay = 0});
  const cosine_schedule schedule{.warm_up = 0, .total = 7, .last = 0.1};
  for (std::int64_t step = 0; step < 7; ++step) {
    gradient<float> g(3);
    for (index_t i = 0; i < 3; ++i) g[i] = theta[i] - float(step);
    CHECK(clip_norm(g, 0.5) > 0);
    REQUIRE(optimiser.step(theta, g, schedule(step)) == status::ok);
    CHECK_FALSE(r.done());
    REQUIRE(take_step(r) == status::ok);
    for (index_t i = 0; i < 3; ++i) CHECK(r.theta()[i] == Approx(theta[i]).epsilon(1e-6));
  }
  CHECK(r.done());
}

TEST_CASE("a report has means over the steps since the one before, and the last step reports too") {
  training::run<float> r(short_run, start(), "test");
  advance(r, 2);
  CHECK_FALSE(r.due());
  CHECK(r.training_loss() == (0.5 + 1.5) / 4);
  CHECK(r.tokens_per_second() == 8);
  advance(r, 7);
  REQUIRE(r.course().size() == 3);
  const auto& first = r.course()[0];
  CHECK(first.step == 3);
  CHECK(first.training == Approx((0.5 + 1.5 + 2.5) / 6));
  CHECK(first.held_out == 1.5);
  CHECK(first.held_out_bits_per_byte == Approx(1.5 / 2 / std::log(2.0)));
  CHECK(first.seconds == Approx(3 * 0.25 + 1));
  CHECK(first.tokens_per_second == Approx(8));
  CHECK(first.rate == Approx(0.01 * cosine_schedule{.warm_up = 0, .total = 7, .last = 0.1}(2)));
  CHECK(first.norm > 0.5);  // before it was clipped
  CHECK(r.course()[1].step == 6);
  CHECK(r.course()[2].step == 7);
  CHECK(r.course()[2].training == Approx(6.5 / 2));
}

TEST_CASE("a step that is not finite leaves a run as it was") {
  training::run<float> r(short_run, start(), "test");
  advance(r, 1);
  const std::vector<float> before(r.theta().begin(), r.theta().end());
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  r.zeroed_gradient()[1] = nan;
  CHECK(r.update(1, 2) == status::non_finite);
  r.zeroed_gradient()[1] = 1;
  CHECK(r.update(nan, 2) == status::non_finite);
  CHECK(r.step() == 1);
  CHECK(r.state().sums.steps == 1);
  CHECK(std::vector<float>(r.theta().begin(), r.theta().end()) == before);
}

TEST_CASE("options of a run out of range are refused by name") {
  const auto with = [](auto change) {
    training::run_options o = short_run;
    change(o);
    return training::run<float>(o, start(), "");
  };
  CHECK_THROWS_WITH(with([](auto& o) { o.steps = 0; }), ContainsSubstring("steps"));
  CHECK_THROWS_WITH(with([](auto& o) { o.report = 0; }), ContainsSubstring("report"));
  CHECK_THROWS_WITH(with([](auto& o) { o.rate = std::nan(""); }), ContainsSubstring("rate"));
  CHECK_THROWS_WITH(with([](auto& o) { o.last_rate = 1.5; }), ContainsSubstring("last_rate"));
  CHECK_THROWS_WITH(with([](auto& o) { o.clip = -1; }), ContainsSubstring("clip"));
}

TEST_CASE("a run that was saved and loaded ends with the bits of one that was not, between reports too") {
  const folder files;
  training::run<float> whole(short_run, start(), "test");
  advance(whole, 7);
  for (const std::int64_t cut : {0, 2, 3, 5}) {
    training::run<float> first(short_run, start(), "test");
    advance(first, cut);
    training::save_run(files.path / "one", first);
    training::run<float> second(short_run, parameters<float>(3), "test");
    training::load_run(files.path / "one", second);
    CHECK(second.step() == cut);
    training::save_run(files.path / "two", second);  // times are not saved
    CHECK((read_file(files.path / "one") ==
           read_file(files.path / "two")));  // their bytes are not to be printed
    advance(second, 7);
    for (index_t i = 0; i < 3; ++i) CHECK(second.theta()[i] == whole.theta()[i]);
    REQUIRE(second.course().size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(second.course()[i].training == whole.course()[i].training);
      CHECK(second.course()[i].norm == whole.course()[i].norm);
    }
    if (cut >= 3) CHECK(std::isnan(second.course()[0].seconds));
    if (cut >= 3) CHECK(training::to_json(second.course()[0]).at("seconds").dump() == "null");
  }
}

TEST_CASE("the text of a run's course in a file is what files have always had") {
  const folder files;
  training::run<float> r(short_run, start(), "test");
  REQUIRE(take_step(r) == status::ok);
  r.report(1.5, 2);
  REQUIRE(take_step(r) == status::ok);
  training::save_run(files.path / "run", r);
  const checkpoint c = load_checkpoint(files.path / "run");
  CHECK(c.text("identity") ==
        "test; 7 steps, warm-up -1, report 3, rate 0.01 to 0.1, clip 0.5, decay 0, betas 0.9 0.95");
  const std::string course = c.text("course");
  CHECK_THAT(course,
             ContainsSubstring(R"({"step":2,"history":[{"step":1,"training":0.25,"held_out":1.5,)"
                               R"("held_out_bits_per_byte":1.0820212806667227,"rate":0.01,"norm":)") &&
                 ContainsSubstring(R"(}],"sums":{"loss":1.5,"tokens":2.0,"norm":)") &&
                 ContainsSubstring(R"("steps":1.0}})"));
}

TEST_CASE("a run is resumed by none but its own kind") {
  const folder files;
  training::run<float> r(short_run, start(), "test");
  training::save_run(files.path / "run", r);
  training::run<float> other(short_run, start(), "another test");
  CHECK_THROWS_WITH(training::load_run(files.path / "run", other),
                    ContainsSubstring("belongs to another run"));
  checkpoint c;
  c.set_text("identity", r.identity());
  c.set_text("course", "{}");
  save_checkpoint(files.path / "empty", c);
  CHECK_THROWS_WITH(training::load_run(files.path / "empty", r),
                    ContainsSubstring("holds no course of a run"));
}
