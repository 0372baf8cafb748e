#include "unroll/train/run.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "unroll/exec/mirror.hpp"
#include "unroll/io/file.hpp"
#include "unroll/testing/simt/executor.hpp"
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
  auto& g = r.gradient_sum();
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
  r.gradient_sum()[1] = nan;
  CHECK(r.update(1, 2) == status::non_finite);
  r.gradient_sum()[1] = 1;
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
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (const double value : {-0.1, inf, std::nan("")})
    CHECK_THROWS_WITH(with([&](auto& o) { o.decay = value; }),
                      ContainsSubstring("decay: is " + number_text(value) + ", must be at least 0"));
  for (const double value : {-0.1, 1.0, 1.5, std::nan("")}) {
    CHECK_THROWS_WITH(with([&](auto& o) { o.beta1 = value; }),
                      ContainsSubstring("beta1: is " + number_text(value) + ", must be in [0, 1)"));
    CHECK_THROWS_WITH(with([&](auto& o) { o.beta2 = value; }),
                      ContainsSubstring("beta2: is " + number_text(value) + ", must be in [0, 1)"));
  }
  CHECK_NOTHROW(with([](auto& o) { o.beta1 = o.beta2 = o.decay = 0; }));
}

TEST_CASE("a report that a saved run could not hold is refused, and changes nothing") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const folder files;
  training::run<float> r(short_run, start(), "test");
  CHECK_THROWS_WITH(r.update(1, -2), ContainsSubstring("tokens: are -2"));
  CHECK_THROWS_WITH(r.update(1, inf), ContainsSubstring("tokens: are inf"));
  REQUIRE(take_step(r) == status::ok);
  for (const auto& [held_out, bytes] : {std::pair{inf, 2.0},
                                        {std::nan(""), 2.0},
                                        {1.5, 0.0},
                                        {1.5, -1.0},
                                        {1.5, std::nan("")},
                                        {1.5, 1e-320}})
    CHECK_THROWS_WITH(r.report(held_out, bytes),
                      ContainsSubstring("run::report") && ContainsSubstring("is " + number_text(held_out)) &&
                          ContainsSubstring("of " + number_text(bytes) + " bytes"));
  CHECK(r.course().empty());
  CHECK(r.state().sums.steps == 1);
  r.report(1.5, 2);
  CHECK_THROWS_WITH(r.report(1.5, 2), ContainsSubstring("step: is 1, the last report is of step 1"));
  REQUIRE(take_step(r) == status::ok);
  // a loss whose sum is not finite, though it is
  r.gradient_sum()[0] = 1;
  CHECK(r.update(1.7e308, 2) == status::ok);
  r.gradient_sum()[0] = 1;
  CHECK(r.update(1.7e308, 2) == status::non_finite);
  CHECK(r.step() == 3);
  training::save_run(files.path / "run", r);
  training::run<float> again(short_run, start(), "test");
  CHECK_NOTHROW(training::load_run(files.path / "run", again));
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

TEST_CASE("a forged file is refused with both values, and leaves a run as it was") {
  const folder files;
  training::run<float> r(short_run, start(), "test");
  advance(r, 5);  // reported at step 3
  training::save_run(files.path / "run", r);
  const checkpoint whole = load_checkpoint(files.path / "run");
  training::run<float> other(short_run, start(), "test");
  advance(other, 1);
  const auto bytes_of = [&] {
    training::save_run(files.path / "other", other);
    return read_file(files.path / "other");
  };
  const std::string before = bytes_of();
  const auto refused = [&](const checkpoint& c, const std::string& why) {
    INFO(why);
    save_checkpoint(files.path / "forged", c);
    CHECK_THROWS_WITH(training::load_run(files.path / "forged", other),
                      ContainsSubstring("load_run: checkpoint: ") && ContainsSubstring(why));
    CHECK((bytes_of() == before));
  };
  const auto forged = [&](auto change, const std::string& why) {
    auto course = nlohmann::ordered_json::parse(whole.text("course"));
    change(course);
    checkpoint c = whole;
    c.set_text("course", course.dump());
    refused(c, why);
  };
  using json = nlohmann::ordered_json;
  forged([](json& c) { c["step"] = 1e300; }, "step: is 1e+300, must be an integer");
  forged([](json& c) { c["step"] = 5.0; }, "step: is 5.0, must be an integer");
  forged([](json& c) { c["step"] = std::uint64_t{1} << 63; },
         "step: is 9223372036854775808, must be an integer");
  forged([](json& c) { c["step"] = "5"; }, "step: is \"5\", must be an integer");
  forged([](json& c) { c["step"] = -1; }, "step: is -1, must be from 0 to 7");
  forged([](json& c) { c["step"] = 8; }, "step: is 8, must be from 0 to 7");
  forged([](json& c) { c["step"] = 6; }, "sums: steps: are 2, but 3 were taken");
  forged([](json& c) { c["sums"]["steps"] = -2; }, "sums: steps: are -2, but 2 were taken");
  forged([](json& c) { c["sums"]["tokens"] = -4; }, "sums: tokens: are -4, must be 0 or more");
  forged([](json& c) { c["sums"]["loss"] = nullptr; }, "loss: is null, must be a number");
  forged([](json& c) { c["history"][0]["step"] = 6; },
         "row 0 of the course: step: is 6, must be from 0 to 5");
  forged([](json& c) { c["history"][0]["step"] = -1; }, "step: is -1, must be from 0 to 5");
  forged([](json& c) { c["history"][0]["step"] = 1e300; }, "step: is 1e+300, must be an integer");
  forged([](json& c) { c["history"].push_back(c["history"][0]); },
         "row 1 of the course: step: is 3, must be from 4 to 5");
  forged([](json& c) { c["history"][0]["held_out"] = true; }, "held_out: is true, must be a number");
  forged([](json& c) { c["history"][0].erase("norm"); }, "norm");
  forged([](json& c) { c["history"] = nullptr; }, "history: is of type null, must be an array");
  checkpoint c = whole;
  std::string course = whole.text("course");
  course.replace(course.find("\"loss\":") + 7, 0, "1e999, \"x\":");
  c.set_text("course", course);
  refused(c, "damaged JSON");
  c = whole;
  c.set("adam.steps", std::numeric_limits<std::int64_t>::max());
  refused(c, "has 9223372036854775807 steps of the optimiser, expected 5");
  const auto lacking = [&](const std::string& name, const std::string& why) {  // another size
    c = whole;
    const std::vector<float> two(2);
    c.set(name, view<const float>(two));
    save_checkpoint(files.path / "forged", c);
    CHECK_THROWS_WITH(training::load_run(files.path / "forged", other), ContainsSubstring(why));
    CHECK((bytes_of() == before));
  };
  lacking("theta", "\"theta\": has 2 numbers, expected 3");
  lacking("adam.v", "\"adam.v\": has 2 numbers, expected 3");
  training::load_run(files.path / "run", other);
  CHECK(other.step() == 5);

  training::run_state none = r.state();
  none.sums.loss = std::nan("");
  CHECK_THROWS_WITH(other.restore(none), ContainsSubstring("sums: loss: is nan, must be finite"));
}

namespace {

// A gradient of two samples, whose number is their place: the losses are their sum.
double sample(training::run<float>& r, std::int64_t place, gradient<float>& g) {
  for (index_t i = 0; i < 3; ++i) g[i] += r.theta()[i] * 0.25f - float(place % 4);
  return 0.5 + double(place);
}

}  // namespace

TEST_CASE("a step of several gradients has the bits of one of all their samples, cut between them or not") {
  const folder files;
  training::run_options o = short_run;
  training::run<float> whole(o, start(), "test");
  o.accumulate = 3;
  const auto parts = [&] { return training::run<float>(o, start(), "test"); };
  training::run<float> several = parts();
  for (std::int64_t place = 0; place < 21; ++place) {
    CHECK(several.position() == place);
    CHECK(several.step() == place / 3);
    CHECK(several.due() == (place == 9 || place == 18));
    if (several.due()) several.report(1.5);
    training::save_run(files.path / "cut", several);
    several = parts();
    CHECK_FALSE(several.position() == (place == 0 ? 1 : place));
    training::load_run(files.path / "cut", several);
    const double loss = sample(several, place, several.gradient_sum());
    REQUIRE(several.update(loss, 1, 0.25) == status::ok);
  }
  for (std::int64_t step = 0; step < 7; ++step) {
    auto& g = whole.gradient_sum();
    double loss = 0;
    for (std::int64_t i = 0; i < 3; ++i) loss += sample(whole, 3 * step + i, g);
    if (whole.due()) whole.report(1.5);
    REQUIRE(whole.update(loss, 3) == status::ok);
  }
  CHECK((several.done() && whole.done()));
  CHECK(std::equal(whole.theta().begin(), whole.theta().end(), several.theta().begin()));
  CHECK(several.training_loss() == whole.training_loss());
  CHECK_THAT(several.identity(), ContainsSubstring("betas 0.9 0.95, of 3 gradients"));
  training::run<float> other = parts();
  training::save_run(files.path / "other", whole);
  CHECK_THROWS_WITH(training::load_run(files.path / "other", other),
                    ContainsSubstring("belongs to another run"));
}

TEST_CASE("a gradient that is not finite undoes the ones that waited with it") {
  training::run_options o = short_run;
  o.accumulate = 2;
  training::run<float> r(o, start(), "test");
  REQUIRE(r.update(1, 2) == status::ok);
  CHECK(r.position() == 1);
  CHECK(r.update(std::nan(""), 2) == status::non_finite);
  CHECK((r.position() == 0 && r.state().added_tokens == 0));
  CHECK(r.update(std::nan(""), 2) == status::non_finite);  // the first one is told at once
  REQUIRE(take_step(r) == status::ok);
  REQUIRE(take_step(r) == status::ok);
  CHECK(r.step() == 1);
  training::run_state s = r.state();
  s.added = 2;
  CHECK_THROWS_WITH(r.restore(s), ContainsSubstring("added: is 2, must be from 0 to 1"));
  s.added = 0, s.added_tokens = 3;
  CHECK_THROWS_WITH(r.restore(s), ContainsSubstring("added: tokens: are 3 and their loss 0, of 0 gradients"));
  s.added = 1, s.added_loss = std::nan("");
  CHECK_THROWS_WITH(r.restore(s), ContainsSubstring("added: loss: is nan"));
}

TEST_CASE("a run bounds every number of the gradient in front of its norm") {
  training::run_options o = short_run;
  o.clip_value = 0.25, o.clip = 0;
  training::run<float> r(o, start(), "test");
  auto& g = r.gradient_sum();
  g[0] = 8, g[1] = -1, g[2] = 0.25f;
  REQUIRE(r.update(1, 2) == status::ok);
  CHECK(r.state().sums.norm == Approx(std::sqrt(0.0625 + 0.0625 + 0.015625)));
  CHECK_THAT(r.identity(), ContainsSubstring(", clip value 0.25"));
  o.clip_value = -1;
  CHECK_THROWS_WITH(training::run<float>(o, start(), ""), ContainsSubstring("clip_value: is -1"));
}

TEST_CASE("a run ends early when its held-out loss has not fallen for as many reports as it has patience") {
  const folder files;
  training::run_options o{.steps = 100, .report = 2, .patience = 2};
  const auto losses = {5.0, 4.0, 4.0, 4.5, 3.0};
  training::run<float> r(o, start(), "test");
  CHECK(r.best() == nullptr);
  std::size_t best[] = {0, 1, 1, 1}, i = 0;
  for (const double loss : losses) {
    REQUIRE(take_step(r) == status::ok);
    REQUIRE(take_step(r) == status::ok);
    REQUIRE(r.due());
    r.report(loss);
    CHECK(r.best() - r.course().data() == std::ptrdiff_t(best[i++]));
    CHECK(r.ended_early() == (i == 4));
    if (r.done()) break;
  }
  CHECK((i == 4 && r.step() == 8 && !r.due()));
  training::save_run(files.path / "run", r);
  training::run<float> again(o, start(), "test");
  CHECK_FALSE(again.done());
  training::load_run(files.path / "run", again);
  CHECK(again.ended_early());
  o.patience = -1;
  CHECK_THROWS_WITH(training::run<float>(o, start(), ""), ContainsSubstring("patience: is -1"));
  o.patience = 0, o.accumulate = 0;
  CHECK_THROWS_WITH(training::run<float>(o, start(), ""), ContainsSubstring("accumulate: is 0"));
}

namespace {

using device = testing::simt::executor<numbers<float>>;

std::vector<float> numbers_of(training::run<device>& r) {
  const auto theta = exec::on_host(r.executor(), params<const float>(r.theta()));
  return {theta.begin(), theta.end()};
}

// As above, by the gradient that the host would give: `from`, plus what is there.
status take_step_there(training::run<device>& r) {
  const device& e = r.executor();
  const auto theta = numbers_of(r);
  std::vector<float> g;
  for (index_t i = 0; i < 3; ++i) g.push_back(2 * (theta[std::size_t(i)] - float(r.step())));
  auto there = e.allocate<float>(3);
  e.upload(g.data(), 3, there.data());
  e.axpy(1, there.data(), r.gradient_sum().data(), 3);
  return r.update(0.5 + double(r.step()), 2, 0.25);
}
void advance_there(training::run<device>& r, std::int64_t until) {
  while (r.position() < until) {
    REQUIRE(take_step_there(r) == status::ok);
    if (r.due()) r.report(1.5, 2, 1);
  }
}
training::run<device> there(const training::run_options& o, std::uint64_t order = 0) {
  return training::run<device>(o, start(), "test", device(key{order}));
}

}  // namespace

TEST_CASE("a run at another place follows that of the host") {
  training::run_options o = short_run;
  o.decay = 0.1, o.clip_value = 0.7;
  training::run<float> host(o, start(), "test");
  auto r = there(o);
  advance(host, 7);
  advance_there(r, 7);
  REQUIRE(r.done());
  const auto theta = numbers_of(r);
  for (index_t i = 0; i < 3; ++i) CHECK(theta[std::size_t(i)] == Approx(host.theta()[i]).epsilon(1e-5));
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(r.course()[i].training == host.course()[i].training);
    CHECK(r.course()[i].rate == host.course()[i].rate);
    CHECK(r.course()[i].norm == Approx(host.course()[i].norm).epsilon(1e-6));
  }
  auto permuted = there(o, 7);
  advance_there(permuted, 7);
  CHECK(numbers_of(permuted) == theta);
}

TEST_CASE("a step at another place that is not finite leaves a run as it was") {
  auto r = there(short_run);
  advance_there(r, 1);
  const auto before = numbers_of(r);
  const std::vector<float> bad{1, std::numeric_limits<float>::infinity(), 1};
  r.executor().upload(bad.data(), 3, r.gradient_sum().data());
  CHECK(r.update(1, 2) == status::non_finite);
  CHECK((r.step() == 1 && r.state().sums.steps == 1 && numbers_of(r) == before));
}

TEST_CASE(
    "a run at another place is resumed with the bits of one that was not, from a file of the host's form") {
  const folder files;
  training::run_options o = short_run;
  o.accumulate = 2;
  auto whole = there(o);
  advance_there(whole, 14);
  for (const std::int64_t cut : {0, 5, 6}) {  // with a gradient that waits for another one, and without
    auto first = there(o), second = there(o, 3);
    advance_there(first, cut);
    advance_there(second, 3);
    training::save_run(files.path / "one", first);
    training::load_run(files.path / "one", second);
    CHECK(second.position() == cut);
    training::save_run(files.path / "two", second);
    CHECK((read_file(files.path / "one") == read_file(files.path / "two")));
    advance_there(second, 14);
    CHECK(numbers_of(second) == numbers_of(whole));
    CHECK(second.course()[2].norm == whole.course()[2].norm);
  }
  auto waiting = there(o);
  advance_there(waiting, 5);
  training::save_run(files.path / "there", waiting);
  training::run<float> host(o, start(), "test");
  const checkpoint c = load_checkpoint(files.path / "there");
  for (const char* name : {"theta", "adam.m", "adam.v", "gradient_sum"}) {
    parameters<float> numbers(3);
    c.get(name, numbers);  // floats, as the host writes them
    CHECK(std::any_of(numbers.begin(), numbers.end(), [](float x) { return x != 0; }));
  }
  CHECK(c.get_integer("adam.steps") == 2);
  CHECK_THROWS_WITH(training::load_run(files.path / "there", host),
                    ContainsSubstring("belongs to another run: \"" + waiting.identity() + "\", asked for \"" +
                                      host.identity() + "\""));
  training::save_run(files.path / "host", host);
  CHECK_THROWS_WITH(training::load_run(files.path / "host", waiting),
                    ContainsSubstring("belongs to another run") && ContainsSubstring("; on a device\""));
}

TEST_CASE("a forged file leaves a run at another place as it was") {
  const folder files;
  auto r = there(short_run);
  advance_there(r, 5);
  training::save_run(files.path / "run", r);
  const checkpoint saved = load_checkpoint(files.path / "run");
  auto other = there(short_run);
  advance_there(other, 1);
  const auto bytes_of = [&] {
    training::save_run(files.path / "other", other);
    return read_file(files.path / "other");
  };
  const std::string before = bytes_of();
  for (const char* name : {"theta", "adam.m", "adam.v"}) {
    checkpoint c = saved;
    c.set(name, view<const float>(std::vector<float>(2)));
    save_checkpoint(files.path / "forged", c);
    CHECK_THROWS_WITH(training::load_run(files.path / "forged", other),
                      ContainsSubstring(std::string(name) + "\": has 2 numbers, expected 3"));
    CHECK((bytes_of() == before));
  }
  training::load_run(files.path / "run", other);
  CHECK(numbers_of(other) == numbers_of(r));
}
