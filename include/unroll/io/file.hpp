#pragma once

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include "unroll/core/error.hpp"

namespace unroll {

namespace detail {

struct close_file {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using file = std::unique_ptr<std::FILE, close_file>;

[[noreturn]] inline void fail_file(std::string_view function, const std::filesystem::path& path,
                                   std::string_view message) {
  fail(function, "\"" + path.string() + "\"", message);
}

}  // namespace detail

/// All bytes of a regular file. Throws unroll::error, in the name of `function`, when it cannot be read or
/// has more than `most` bytes; nothing larger is allocated.
inline std::string read_file(const std::filesystem::path& path, std::string_view function = "read_file",
                             std::uintmax_t most = std::uintmax_t{1} << 40) {
  std::error_code code;
  const auto status = std::filesystem::status(path, code);
  if (!std::filesystem::exists(status)) detail::fail_file(function, path, "does not exist");
  if (!std::filesystem::is_regular_file(status)) detail::fail_file(function, path, "is not a regular file");
  const auto size = std::filesystem::file_size(path, code);
  if (code) detail::fail_file(function, path, "cannot be read: " + code.message());
  if (size > most)
    detail::fail_file(
        function, path,
        "has " + std::to_string(size) + " bytes, at most " + std::to_string(most) + " expected");
  const detail::file f(std::fopen(path.string().c_str(), "rb"));
  if (!f) detail::fail_file(function, path, std::string("cannot be opened: ") + std::strerror(errno));
  std::string bytes(std::size_t(size), '\0');
  const std::size_t got = std::fread(bytes.data(), 1, bytes.size(), f.get());
  if (got != bytes.size())
    detail::fail_file(function, path,
                      "ends after " + std::to_string(got) + " of " + std::to_string(size) + " bytes");
  return bytes;
}

/// Replaces the file in one step: the bytes go to "<path>.partial" in the same folder, reach the disk, and
/// are renamed. Whatever happens, `path` holds either its old content or all of the new.
inline void write_file(const std::filesystem::path& path, std::string_view bytes,
                       std::string_view function = "write_file") {
  auto partial = path;
  partial += ".partial";
  std::error_code code;
  try {
    detail::file f(std::fopen(partial.string().c_str(), "wb"));
    if (!f) detail::fail_file(function, partial, std::string("cannot be opened: ") + std::strerror(errno));
    bool written = std::fwrite(bytes.data(), 1, bytes.size(), f.get()) == bytes.size();
    written = std::fflush(f.get()) == 0 && written;
#if __has_include(<unistd.h>)
    written = fsync(fileno(f.get())) == 0 && written;
#endif
    if (!written)
      detail::fail_file(function, partial, std::string("cannot be written: ") + std::strerror(errno));
    f.reset();
    std::filesystem::rename(partial, path, code);
    if (code) detail::fail_file(function, path, "cannot be replaced: " + code.message());
  } catch (...) {
    std::filesystem::remove(partial, code);
    throw;
  }
}

}  // namespace unroll
