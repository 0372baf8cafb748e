#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>

#include "unroll/exec/visit_block.hpp"
#include "unroll/io/checkpoint.hpp"
#include "unroll/io/json.hpp"
#include "unroll/train/run.hpp"

namespace unroll::training {

/// One row of a course as JSON: times that are not known are null.
inline nlohmann::ordered_json to_json(const course_row& r) {
  return {{"step", r.step},
          {"training", r.training},
          {"held_out", r.held_out},
          {"held_out_bits_per_byte", r.held_out_bits_per_byte},
          {"rate", r.rate},
          {"norm", r.norm},
          {"tokens_per_second", r.tokens_per_second},
          {"seconds", r.seconds}};
}
/// An array of the rows.
inline nlohmann::ordered_json to_json(const std::vector<course_row>& course) {
  auto rows = nlohmann::ordered_json::array();
  for (const course_row& r : course) rows.push_back(to_json(r));
  return rows;
}

/// Saves a run, to be resumed bit for bit: a checkpoint (io/checkpoint.hpp) of theta and the optimiser, what
/// the run is, and its course as JSON, without times: the files of equal runs are equal. `streams`: what else
/// goes on from step to step and has visit(), such as an estimator in the middle of its stream. The file has
/// one form whatever the place of the run. Throws unroll::error when it cannot be written; the file that was
/// there stays then.
template <class X, class... Streams>
void save_run(const std::filesystem::path& file, run<X>& r, Streams&... streams) {
  const run_state& now = r.state();
  nlohmann::ordered_json course{{"step", now.step}, {"history", to_json(now.course)}};
  for (auto& row : course["history"]) row.erase("tokens_per_second"), row.erase("seconds");
  course["sums"] = {{"loss", now.sums.loss},
                    {"tokens", now.sums.tokens},
                    {"norm", now.sums.norm},
                    {"steps", now.sums.steps}};
  if (now.added > 0)
    course["added"] = {{"gradients", now.added}, {"loss", now.added_loss}, {"tokens", now.added_tokens}};
  checkpoint c;
  c.set_text("identity", r.identity());
  c.set_text("course", course.dump());
  const auto keep = [&](const char* name, auto shown) { c.set(name, shown); };
  visit_block(keep, "theta", r.executor(), r.theta(), r.theta().size());
  c.save("adam", r.optimiser());
  if (now.added > 0) visit_block(keep, "gradient_sum", r.executor(), r.gradient_sum(), r.theta().size());
  int stream = 0;
  (c.save("stream " + std::to_string(stream++), streams), ...);
  save_checkpoint(file, c);
}

namespace detail {

// An integer of a course, and a number.
inline std::int64_t integer_of(const nlohmann::json& from, const char* name) {
  const auto& value = from.at(name);
  constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > most))
    fail("run", name,
         "is " + value.dump().substr(0, 80) + ", must be an integer up to " + std::to_string(most));
  return value.get<std::int64_t>();
}
inline double number_of(const nlohmann::json& from, const char* name) {
  const auto& value = from.at(name);
  if (!value.is_number()) fail("run", name, "is " + value.dump().substr(0, 80) + ", must be a number");
  return value.get<double>();
}

// What save_run wrote of a run with these options.
inline run_state state_of(const std::string& text, const run_options& o) {
  const nlohmann::json course = parse_json(text, "run", "course");
  run_state s;
  try {
    const auto& sums = course.at("sums");
    s.sums = {number_of(sums, "loss"), number_of(sums, "tokens"), number_of(sums, "norm"),
              number_of(sums, "steps")};
    s.step = integer_of(course, "step");
    if (course.contains("added")) {
      const auto& added = course.at("added");
      s.added = integer_of(added, "gradients");
      s.added_loss = number_of(added, "loss");
      s.added_tokens = number_of(added, "tokens");
    }
    const auto& history = course.at("history");
    if (!history.is_array())
      fail("run", "history", "is of type " + std::string(history.type_name()) + ", must be an array");
    for (const auto& row : history)
      s.course.push_back({.step = integer_of(row, "step"),
                          .training = number_of(row, "training"),
                          .held_out = number_of(row, "held_out"),
                          .held_out_bits_per_byte = number_of(row, "held_out_bits_per_byte"),
                          .rate = number_of(row, "rate"),
                          .norm = number_of(row, "norm")});
  } catch (const nlohmann::json::exception& e) {
    fail("run", "course", e.what());
  }
  check_state(s, o.steps, o.accumulate);
  return s;
}

}  // namespace detail

/// Brings a run to where save_run left one of the same identity. Throws unroll::error when the file belongs
/// to another run, is none or holds what no such run comes by; the run is then as it was. Takes the memory of
/// the file meanwhile. `streams`: made as those that were saved, in their order; of an estimator
/// hold_inputs() must follow (estimate/concept.hpp).
template <class X, class... Streams>
void load_run(const std::filesystem::path& file, run<X>& r, Streams&... streams) {
  const std::string name = "\"" + file.string() + "\"";
  const checkpoint saved = load_checkpoint(file);
  if (const std::string other = saved.text("identity"); other != r.identity())
    fail("load_run", "checkpoint",
         name + " belongs to another run: \"" + other + "\", asked for \"" + r.identity() + "\"");
  run_state then;
  try {
    then = detail::state_of(saved.text("course"), r.options());
  } catch (const error& e) {
    fail("load_run", "checkpoint", name + " holds no course of a run: " + e.what());
  }
  saved.check("adam", r.optimiser());
  if (const std::int64_t steps = saved.get_integer("adam.steps"); steps != then.step)
    fail("load_run", "checkpoint",
         name + " has " + std::to_string(steps) + " steps of the optimiser, expected " +
             std::to_string(then.step));
  const index_t n = r.theta().size();
  gradient<std::remove_cvref_t<decltype(*r.theta().data())>> sum(n);
  if (then.added > 0) saved.get("gradient_sum", sum);
  int stream = 0;
  [[maybe_unused]] const auto try_one = [&](auto copy) {
    saved.load("stream " + std::to_string(stream++), copy);
  };
  (try_one(streams), ...);
  // the last that can be refused, and writes nothing then
  visit_block([&](const char* entry, auto shown) { saved.get(entry, shown); }, "theta", r.executor(),
              r.theta(), n);
  saved.load("adam", r.optimiser());
  stream = 0;
  (saved.load("stream " + std::to_string(stream++), streams), ...);
  r.restore(std::move(then));
  r.executor().upload(sum.data(), n, r.gradient_sum().data());
}

}  // namespace unroll::training
