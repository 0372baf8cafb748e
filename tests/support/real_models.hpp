#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "unroll/io/file.hpp"

// Trained models and their stories, where UNROLL_DATA_DIR names a folder that has them.
namespace unroll {

/// The folder; none, and said so, where it has no models.
inline std::optional<std::filesystem::path> data_folder() {
  const char* folder = std::getenv("UNROLL_DATA_DIR");
  if (folder && std::filesystem::exists(std::filesystem::path(folder) / "models/stories260K")) return folder;
  std::printf("skipped: UNROLL_DATA_DIR names no folder with models/stories260K\n");
  return std::nullopt;
}

/// The first stories of the corpus, each a text of its own.
inline std::vector<std::string> stories(const std::filesystem::path& data, std::size_t count) {
  const std::string all =
      read_file(data / "corpora/tinystories/tinystories_train_prefix_2MiB.txt").substr(0, 1000 * count);
  std::vector<std::string> out;
  for (std::size_t at = 0; out.size() < count;) {
    const std::size_t end = all.find("<|endoftext|>", at);
    const std::size_t first = all.find_first_not_of(" \n", at);
    out.push_back(all.substr(first, all.find_last_not_of(" \n", end - 1) + 1 - first));
    at = end + 13;
  }
  return out;
}

}  // namespace unroll
