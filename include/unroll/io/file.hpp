#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

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

/// Bytes that are read piece by piece: those of a regular file, or of memory. Reading beyond the end throws
/// unroll::error. A file has one position, so one thread reads at a time.
class byte_source {
 public:
  /// Throws unroll::error, in the name of `function`, when the file cannot be opened.
  static byte_source open(const std::filesystem::path& path, std::string_view function) {
    byte_source s;
    s.function_ = function;
    s.name_ = "\"" + path.string() + "\"";
    std::error_code code;
    const auto status = std::filesystem::status(path, code);
    if (!std::filesystem::exists(status)) s.refuse("does not exist");
    if (!std::filesystem::is_regular_file(status)) s.refuse("is not a regular file");
    s.size_ = std::filesystem::file_size(path, code);
    if (code) s.refuse("cannot be read: " + code.message());
    s.file_.reset(std::fopen(path.string().c_str(), "rb"));
    if (!s.file_) s.refuse(std::string("cannot be opened: ") + std::strerror(errno));
    return s;
  }
  /// Bytes that outlive the source; `name` stands for the file in messages.
  static byte_source memory(std::string_view bytes, std::string name, std::string_view function) {
    byte_source s;
    s.function_ = function;
    s.name_ = std::move(name);
    s.bytes_ = bytes;
    s.size_ = bytes.size();
    return s;
  }

  std::uint64_t size() const { return size_; }
  const std::string& name() const { return name_; }          ///< as messages show it
  const std::string& function() const { return function_; }  ///< in whose name messages speak

  /// Copies the bytes [at, at + count) to `out`.
  void read(std::uint64_t at, void* out, std::size_t count) const {
    if (at > size_ || count > size_ - at)
      refuse("has " + std::to_string(size_) + " bytes, " + std::to_string(count) + " from byte " +
             std::to_string(at) + " on are needed");
    if (count == 0) return;
    if (!file_) {
      std::memcpy(out, bytes_.data() + at, count);
      return;
    }
    if (!seek(at)) refuse(std::string("cannot be read: ") + std::strerror(errno));
    const std::size_t got = std::fread(out, 1, count, file_.get());
    if (got != count)
      refuse("ends after " + std::to_string(at + got) + " of " + std::to_string(size_) + " bytes");
  }
  /// The bytes [at, at + count); compared with the size before anything is allocated.
  std::string read(std::uint64_t at, std::uint64_t count) const {
    if (at > size_ || count > size_ - at) read(at, nullptr, std::size_t(count));
    std::string bytes(std::size_t(count), '\0');
    read(at, bytes.data(), bytes.size());
    return bytes;
  }

  /// Throws "function: name: message".
  [[noreturn]] void refuse(std::string_view message) const { fail(function_, name_, message); }

 private:
  bool seek(std::uint64_t at) const {
#if __has_include(<unistd.h>)
    return fseeko(file_.get(), off_t(at), SEEK_SET) == 0;
#else
    return at <= std::uint64_t(std::numeric_limits<long>::max()) &&
           std::fseek(file_.get(), long(at), SEEK_SET) == 0;
#endif
  }

  std::string function_, name_;
  detail::file file_;
  std::string_view bytes_;
  std::uint64_t size_ = 0;
};

/// All bytes of a regular file. Throws unroll::error, in the name of `function`, when it cannot be read or
/// has more than `most` bytes; nothing larger is allocated.
inline std::string read_file(const std::filesystem::path& path, std::string_view function = "read_file",
                             std::uintmax_t most = std::uintmax_t{1} << 40) {
  const auto source = byte_source::open(path, function);
  if (source.size() > most)
    source.refuse("has " + std::to_string(source.size()) + " bytes, at most " + std::to_string(most) +
                  " expected");
  return source.read(0, source.size());
}

/// Replaces a file in one step: the bytes go to "<path>.partial" in the same folder, reach the disk, and are
/// renamed by commit(). Whatever happens, `path` holds either its old content or all of the new.
class file_writer {
 public:
  explicit file_writer(std::filesystem::path path, std::string_view function = "write_file")
      : path_(std::move(path)), partial_(path_), function_(function) {
    partial_ += ".partial";
    file_.reset(std::fopen(partial_.string().c_str(), "wb"));
    if (!file_)
      detail::fail_file(function_, partial_, std::string("cannot be opened: ") + std::strerror(errno));
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  ~file_writer() {
    if (committed_) return;
    file_.reset();
    std::error_code code;
    std::filesystem::remove(partial_, code);
  }

  void append(const void* bytes, std::size_t count) {
    if (count > 0 && std::fwrite(bytes, 1, count, file_.get()) != count) refuse();
  }
  void append(std::string_view bytes) { append(bytes.data(), bytes.size()); }

  void commit() {
    bool written = std::fflush(file_.get()) == 0;
#if __has_include(<unistd.h>)
    written = written && fsync(fileno(file_.get())) == 0;
#endif
    if (!written) refuse();
    file_.reset();
    std::error_code code;
    std::filesystem::rename(partial_, path_, code);
    if (code) detail::fail_file(function_, path_, "cannot be replaced: " + code.message());
    committed_ = true;
  }

 private:
  [[noreturn]] void refuse() const {
    detail::fail_file(function_, partial_, std::string("cannot be written: ") + std::strerror(errno));
  }

  std::filesystem::path path_, partial_;
  std::string function_;
  detail::file file_;
  bool committed_ = false;
};

/// Replaces the file by these bytes in one step, as file_writer does.
inline void write_file(const std::filesystem::path& path, std::string_view bytes,
                       std::string_view function = "write_file") {
  file_writer w(path, function);
  w.append(bytes);
  w.commit();
}

}  // namespace unroll
