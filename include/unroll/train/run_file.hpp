#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "unroll/io/checkpoint.hpp"
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
inline nlohmann::ordered_json to_json(const std::vector<course_row>& course) {
  auto rows = nlohmann::ordered_json::array();
  for (const course_row& r : course) rows.push_back(to_json(r));
  return rows;
}

/// Saves a run, to be resumed bit for bit: a checkpoint (io/checkpoint.hpp) of theta and the optimiser, what
/// the run is, and its course as JSON, without times: the files of equal runs are equal. Throws unroll::error
/// when it cannot be written.
template <class T>
void save_run(const std::filesystem::path& file, run<T>& r) {
  const run_state& now = r.state();
  nlohmann::ordered_json course{{"step", now.step}, {"history", to_json(now.course)}};
  for (auto& row : course["history"]) row.erase("tokens_per_second"), row.erase("seconds");
  course["sums"] = {{"loss", now.sums.loss},
                    {"tokens", now.sums.tokens},
                    {"norm", now.sums.norm},
                    {"steps", now.sums.steps}};
  checkpoint c;
  c.set_text("identity", r.identity());
  c.set_text("course", course.dump());
  c.set("theta", r.theta());
  c.save("adam", r.optimiser());
  save_checkpoint(file, c);
}

/// Brings a run to where save_run left one of the same identity. Throws unroll::error when the file belongs
/// to another run or is none.
template <class T>
void load_run(const std::filesystem::path& file, run<T>& r) {
  const std::string name = "\"" + file.string() + "\"";
  const checkpoint saved = load_checkpoint(file);
  if (const std::string other = saved.text("identity"); other != r.identity())
    fail("load_run", "checkpoint",
         name + " belongs to another run: \"" + other + "\", asked for \"" + r.identity() + "\"");
  run_state then;
  try {
    const auto course = nlohmann::ordered_json::parse(saved.text("course"));
    const auto& s = course.at("sums");
    then.sums = {s.at("loss"), s.at("tokens"), s.at("norm"), s.at("steps")};
    then.step = course.at("step");
    for (const auto& row : course.at("history"))
      then.course.push_back({.step = row.at("step"),
                             .training = row.at("training"),
                             .held_out = row.at("held_out"),
                             .held_out_bits_per_byte = row.at("held_out_bits_per_byte"),
                             .rate = row.at("rate"),
                             .norm = row.at("norm")});
  } catch (const nlohmann::json::exception& e) {
    fail("load_run", "checkpoint", name + " holds no course of a run: " + e.what());
  }
  saved.get("theta", r.theta());
  saved.load("adam", r.optimiser());
  r.restore(std::move(then));
}

}  // namespace unroll::training
