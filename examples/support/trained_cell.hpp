#pragma once

// The state of a run of train_text, and its checkpoint.

#include <nlohmann/json.hpp>
#include <unroll/io/checkpoint.hpp>

#include "program.hpp"

namespace program {

template <class T>
struct trained_cell {
  unroll::parameters<T> theta;
  unroll::adam<T> optimiser;
  index_t sequence = 0;      ///< sequences trained on
  unroll::report seen = {};  ///< losses since the last report
  nlohmann::ordered_json history = nlohmann::ordered_json::array();

  /// `identity`: what a checkpoint must agree on before a run may continue from it.
  void save(const std::string& file, const std::string& identity) {
    unroll::checkpoint saved;
    saved.set_text("identity", identity);
    saved.set_text("course", nlohmann::ordered_json{{"sequence", sequence}, {"history", history}}.dump());
    saved.set("theta", theta);
    saved.save("adam", optimiser);
    save_checkpoint(file, saved);
  }
  /// Throws unroll::error on the checkpoint of another run.
  void load(const std::string& file, const std::string& identity) {
    const unroll::checkpoint saved = unroll::load_checkpoint(file);
    if (saved.text("identity") != identity)
      unroll::fail("train_text", "checkpoint",
                   "\"" + file + "\" belongs to another run: \"" + saved.text("identity") +
                       "\", asked for \"" + identity + "\"");
    saved.get("theta", theta);
    saved.load("adam", optimiser);
    const auto course = nlohmann::ordered_json::parse(saved.text("course"));
    sequence = course.at("sequence").get<index_t>();
    history = course.at("history");
  }
};

}  // namespace program
