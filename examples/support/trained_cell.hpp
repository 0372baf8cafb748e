#pragma once

// The state of a run of train_text, and its checkpoint.

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unroll/io/checkpoint.hpp>

#include "program.hpp"

namespace program {

template <class T>
struct trained_cell {
  unroll::parameters<T> theta;
  unroll::adam<T> optimiser;
  index_t sequence = 0;      ///< sequences trained on
  unroll::gradient<T> sum;   ///< of the gradients that wait for others of their update
  index_t added = 0;         ///< how many they are
  unroll::report seen = {};  ///< losses since the last report
  nlohmann::ordered_json history = nlohmann::ordered_json::array();

  trained_cell(const unroll::parameters<T>& initial, const unroll::adam_options& options)
      : theta(initial), optimiser(initial.size(), options), sum(initial.size()) {}

  /// Whether the held-out loss has not fallen for `patience` of the reports that are due after every `report`
  /// sequences; 0: never. The one of a run that was stopped between two is none of them, so that a resumed
  /// run ends where it would have.
  bool ended_early(index_t patience, index_t report) const {
    if (patience == 0) return false;
    double best = std::numeric_limits<double>::infinity();
    index_t since = 0;
    for (const auto& row : history) {
      if (row.at("sequence").template get<index_t>() % report != 0) continue;
      const auto bits = row.at("held_out_bits").template get<double>();
      since = bits < best ? 0 : since + 1;
      best = std::min(best, bits);
    }
    return since >= patience;
  }

  /// `identity`: what a checkpoint must agree on before a run may continue from it.
  void save(const std::string& file, const std::string& identity) {
    unroll::checkpoint saved;
    saved.set_text("identity", identity);
    nlohmann::ordered_json course{{"sequence", sequence}, {"history", history}};
    if (added > 0) {
      course["added"] = added;
      saved.set("sum", sum);
    }
    saved.set_text("course", course.dump());
    saved.set("theta", theta);
    saved.save("adam", optimiser);
    save_checkpoint(file, saved);
  }
  /// Throws unroll::error on the checkpoint of another run, whose updates are of `accumulate` gradients.
  void load(const std::string& file, const std::string& identity, index_t accumulate) {
    const unroll::checkpoint saved = unroll::load_checkpoint(file);
    if (saved.text("identity") != identity)
      unroll::fail("train_text", "checkpoint",
                   "\"" + file + "\" belongs to another run: \"" + saved.text("identity") +
                       "\", asked for \"" + identity + "\"");
    saved.get("theta", theta);
    saved.load("adam", optimiser);
    const auto course = nlohmann::ordered_json::parse(saved.text("course"));
    sequence = course.at("sequence").get<index_t>();
    added = course.value("added", index_t{0});
    if (added < 0 || added >= accumulate)
      unroll::fail("train_text", "checkpoint",
                   "\"" + file + "\": added is " + std::to_string(added) + ", must be from 0 to " +
                       std::to_string(accumulate - 1));
    if (added > 0) saved.get("sum", sum);
    history = course.at("history");
  }
};

}  // namespace program
