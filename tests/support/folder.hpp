#pragma once

#include <stdlib.h>

#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>

/// A new folder that is gone with its contents at the end of the scope. Its name is its own: tests run beside
/// each other.
struct folder {
  folder() {
    std::string name = (std::filesystem::temp_directory_path() / "unroll_XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error(name + " cannot be made");
    path = name;
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  ~folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  /// Files and folders in it.
  auto entries() const {
    return std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator());
  }
  std::filesystem::path path;
};
