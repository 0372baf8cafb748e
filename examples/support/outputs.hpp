#pragma once

// The files that a program writes, and its standard output: looked at before the work begins, never lost
// without a word.

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <unroll/io/file.hpp>
#include <utility>
#include <vector>

#include "interrupt.hpp"
#include "processes.hpp"

namespace program {

/// Whether writing replaces the file, or makes it: not a device, a pipe or a descriptor.
inline bool is_replaced(const std::string& file) {
  namespace fs = std::filesystem;
  const fs::path target = unroll::detail::follow_links(file);
  std::error_code code;
  if (fs::is_symlink(fs::symlink_status(target, code))) return false;
  const auto status = fs::status(target, code);
  return !fs::exists(status) || fs::is_regular_file(status) || fs::is_directory(status);
}

/// For CLI11: empty, or why the file cannot be written; of several ranks the first writes.
inline std::string writable(const std::string& file) {
  if (!world.first()) return "";
  try {
    if (is_replaced(file)) const unroll::file_writer probe(file, "output");
    return "";
  } catch (const unroll::error& e) {
    return e.what();
  }
}

/// Options and the files or folders that they name; an empty path is an option that was not given.
using named_files = std::vector<std::pair<std::string, std::string>>;

/// Throws unroll::error, in the name of `program`, when an output is an input, lies in a folder of inputs
/// under an input's name, is another output, or is where the standard output goes.
inline void check_outputs(const char* program, const named_files& outputs, const named_files& inputs) {
  namespace fs = std::filesystem;
  named_files taken;
  const auto take = [&](const std::string& option, const std::string& path) {
    if (!path.empty() && is_replaced(path)) taken.emplace_back(option, path);
  };
  if (!is_replaced("/dev/stdout") && fs::is_regular_file("/dev/stdout"))
    taken.emplace_back("the standard output", "/dev/stdout");
  for (const auto& [option, path] : inputs) {
    take(option, path);
    std::error_code code;
    if (path.empty() || !fs::is_directory(path, code)) continue;
    const auto how = fs::directory_options::skip_permission_denied;
    for (const auto& entry : fs::recursive_directory_iterator(path, how, code)) take(option, entry.path());
  }
  for (const auto& [option, path] : outputs) {
    if (path.empty() || !is_replaced(path)) continue;
    for (const auto& [other, there] : taken)
      if (unroll::same_file(path, there))
        unroll::fail(program, option,
                     "\"" + path + "\" is also " + other + (other == option ? " once more" : ""));
    take(option, path);
  }
}

/// Throws unroll::error when a run that does not resume would replace the checkpoint of another.
inline void check_checkpoint(const char* program, const std::string& file, bool resume) {
  if (resume || file.empty() || !is_replaced(file) || !std::filesystem::exists(file)) return;
  unroll::fail(program, "--checkpoint",
               "\"" + file + "\" is there: --resume goes on from it, a new run needs another name");
}

/// Nothing where no file is named. Bytes that are not UTF-8 are replaced.
inline void write_json(const std::string& file, const nlohmann::ordered_json& document) {
  if (file.empty() || !world.first()) return;
  using json = nlohmann::ordered_json;
  unroll::write_file(file, document.dump(1, ' ', false, json::error_handler_t::replace) + "\n", "--json");
}

inline int output_error = 0;

/// Sends on what was printed. Where it cannot go, the program ends as after Ctrl-C, and run() says why.
inline void flush_output() {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return;
  if (output_error == 0) output_error = errno;
  interrupted = true;
}

/// Throws unroll::error when something that was printed did not arrive.
inline void check_output(const char* program) {
  errno = 0;
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return;
  const int why = output_error != 0 ? output_error : errno;
  unroll::fail(program, "standard output",
               std::string("cannot be written") + (why != 0 ? std::string(": ") + std::strerror(why) : ""));
}

}  // namespace program
