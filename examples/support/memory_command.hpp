#pragma once

// A command of memory_llama: its name, help, outputs and threads.

#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "llama.hpp"

namespace program {

using json = nlohmann::ordered_json;
using unroll::fail;
using unroll::fold;
using unroll::key;
using unroll::parameters;
using unroll::data::bytes_per_token;
using unroll::data::corpus;

/// A command of the program, with its own options and help.
struct command {
  CLI::App* app = nullptr;
  std::string json_file, plot;
  index_t threads = index_t(std::max(1u, std::thread::hardware_concurrency()));
  std::uint64_t seed = 1;

  command(CLI::App& program, const char* name, const char* what, const char* examples)
      : app(program.add_subcommand(name, what)) {
    app->footer(std::string("\nexamples:\n") + examples);
  }
  bool asked() const { return app->parsed(); }

  void add_outputs(const char* figure = nullptr) {
    app->add_option("--json", json_file, "write the results to this file")->check(writable);
    if (figure)
      app->add_option("--plot", plot, std::string("draw ") + figure + " to this SVG, PNG or PDF file")
          ->check(drawable);
  }
  void add_seed(const char* what) {
    app->add_option("--seed", seed, what)->check(not_negative)->capture_default_str();
  }
  void add_threads() {
    app->add_option("--threads", threads, "that work at the same time; the numbers do not depend on it")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
  }
  void check_files(const named_files& inputs, named_files outputs = {}) const {
    outputs.insert(outputs.begin(), {{"--json", json_file}, {"--plot", plot}});
    check_outputs("memory_llama", outputs, inputs);
  }
  void write_json(const json& document) const { program::write_json(json_file, document); }
};

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Makes the folder of an output, and for a moment a file in it: before the work, not behind it.
inline void prepare_folder(const std::filesystem::path& folder) {
  if (folder.empty()) return;
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) fail("memory_llama", "out", "\"" + folder.string() + "\" cannot be made: " + code.message());
  const unroll::file_writer probe(folder / "probe", "memory_llama");
}

}  // namespace program
