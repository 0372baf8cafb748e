#pragma once

#include <atomic>
#include <cerrno>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#if __has_include(<unistd.h>) && !defined(_WIN32)  // MinGW's has no fsync
#include <sys/mman.h>
#include <unistd.h>
#define UNROLL_POSIX 1
#else
#define UNROLL_POSIX 0
#endif

#include "unroll/core/error.hpp"

namespace unroll {

/// The system refuses a file: it is not there, cannot be read, or has no room. Nothing is wrong with what was
/// asked for, and another try may succeed; what stands in a file and is wrong is an unroll::error alone.
class file_error final : public error {
 public:
  using error::error;
};

namespace detail {

struct close_file {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using file = std::unique_ptr<std::FILE, close_file>;

/// A file as messages show it. (A literal + a string warns under -Wrestrict in g++ 12, its bug 105651.)
inline std::string quoted_path(const std::filesystem::path& path) {
  std::string text = path.string();
  text.insert(text.begin(), '"');
  text.push_back('"');
  return text;
}

[[noreturn]] inline void fail_file(std::string_view function, const std::filesystem::path& path,
                                   std::string_view message) {
  throw file_error(std::string(function) + ": " + quoted_path(path) + ": " + std::string(message));
}

/// What a chain of links leads to, there or not. The links in /proc/self/fd, to which /dev/stdout leads, are
/// descriptors and stay as they are; so does a chain without an end.
inline std::filesystem::path follow_links(std::filesystem::path path) {
  namespace fs = std::filesystem;
  std::error_code code;
  const fs::path descriptors = fs::canonical("/proc/self/fd", code);
  for (int i = 0; i < 40 && fs::is_symlink(fs::symlink_status(path, code)); ++i) {
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    if (!descriptors.empty() && fs::canonical(folder, code) == descriptors) break;
    path = folder / fs::read_symlink(path, code);  // an absolute one replaces the folder
  }
  return path;
}

}  // namespace detail

/// Bytes that are read piece by piece: those of a regular file, or of memory. Reading beyond the end throws
/// unroll::error. A file has one position, so one thread reads at a time, unless it is mapped.
class byte_source {
 public:
  /// Throws unroll::error, whose message begins with `function`, when the file cannot be opened.
  static byte_source open(const std::filesystem::path& path, std::string_view function) {
    byte_source s;
    s.function_ = function;
    s.name_ = detail::quoted_path(path);
    std::error_code code;
    const auto status = std::filesystem::status(path, code);
    if (!std::filesystem::exists(status)) s.unreadable("does not exist");
    if (!std::filesystem::is_regular_file(status)) s.unreadable("is not a regular file");
    s.size_ = std::filesystem::file_size(path, code);
    if (code) s.unreadable("cannot be read: " + code.message());
    s.file_.reset(std::fopen(path.string().c_str(), "rb"));
    if (!s.file_) s.unreadable(std::string("cannot be opened: ") + std::strerror(errno));
    return s;
  }
  /// The same file mapped into memory, where the system maps files: any number of threads may read, and pages
  /// are loaded when they are read. A file that somebody cuts meanwhile ends the process (SIGBUS), as any
  /// mapping does.
  static byte_source map(const std::filesystem::path& path, std::string_view function) {
    byte_source s = open(path, function);
#if UNROLL_POSIX
    const auto n = std::size_t(s.size_);
    void* at = n > 0 ? mmap(nullptr, n, PROT_READ, MAP_PRIVATE, fileno(s.file_.get()), 0) : MAP_FAILED;
    if (at != MAP_FAILED) {
      s.mapping_ = std::shared_ptr<void>(at, [n](void* p) { munmap(p, n); });
      s.bytes_ = {static_cast<const char*>(at), n};
      s.file_.reset();
    }
#endif
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

  template <std::same_as<std::string> S>  // a temporary: its bytes would be gone
  static byte_source memory(S&& bytes, std::string name, std::string_view function) = delete;

  std::uint64_t size() const { return size_; }
  const std::string& name() const { return name_; }          ///< how error messages call the source
  const std::string& function() const { return function_; }  ///< what error messages begin with

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
    if (!seek(at)) unreadable(std::string("cannot be read: ") + std::strerror(errno));
    const std::size_t got = std::fread(out, 1, count, file_.get());
    if (got != count)
      unreadable("ends after " + std::to_string(at + got) + " of " + std::to_string(size_) + " bytes");
  }
  /// The bytes [at, at + count) where they lie in memory; those of a file that is not mapped are copied to
  /// `out`.
  const unsigned char* bytes(std::uint64_t at, unsigned char* out, std::size_t count) const {
    if (!file_ && at <= size_ && count <= size_ - at)
      return reinterpret_cast<const unsigned char*>(bytes_.data() + at);
    read(at, out, count);
    return out;
  }
  /// The bytes [at, at + count); compared with the size before anything is allocated.
  std::string read(std::uint64_t at, std::uint64_t count) const {
    if (at > size_ || count > size_ - at) read(at, nullptr, std::size_t(count));
    if (!file_) return std::string(bytes_.substr(std::size_t(at), std::size_t(count)));
    std::string bytes(std::size_t(count), '\0');
    read(at, bytes.data(), bytes.size());
    return bytes;
  }

  /// Throws "function: name: message".
  [[noreturn]] void refuse(std::string_view message) const { fail(function_, name_, message); }

 private:
  [[noreturn]] void unreadable(std::string_view message) const {
    throw file_error(function_ + ": " + name_ + ": " + std::string(message));
  }
  bool seek(std::uint64_t at) const {
#if UNROLL_POSIX
    return fseeko(file_.get(), off_t(at), SEEK_SET) == 0;
#else
    return at <= std::uint64_t(std::numeric_limits<long>::max()) &&
           std::fseek(file_.get(), long(at), SEEK_SET) == 0;
#endif
  }

  std::string function_, name_;
  detail::file file_;
  std::shared_ptr<void> mapping_;
  std::string_view bytes_;
  std::uint64_t size_ = 0;
};

/// All bytes of a regular file. Throws unroll::error, whose message begins with `function`, when it cannot be
/// read or has more than `most` bytes, before anything is allocated.
inline std::string read_file(const std::filesystem::path& path, std::string_view function = "read_file",
                             std::uintmax_t most = std::uintmax_t{1} << 40) {
  const auto source = byte_source::open(path, function);
  if (source.size() > most)
    source.refuse("has " + std::to_string(source.size()) + " bytes, at most " + std::to_string(most) +
                  " expected");
  return source.read(0, source.size());
}

/// Whether two paths name one file, or would once it is there: through links, and for hard links too.
inline bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code code;
  if (std::filesystem::equivalent(a, b, code) && !code) return true;
  const auto canonical = [](const std::filesystem::path& p) {
    std::error_code unknown;
    const auto full = std::filesystem::absolute(detail::follow_links(p), unknown);
    const auto whole = std::filesystem::weakly_canonical(full, unknown);
    return whole.has_filename() ? whole : whole.parent_path();  // without the / at the end
  };
  return canonical(a) == canonical(b);
}

/// Replaces a file in one step: the bytes go to a file of their own in the same folder, whose name no other
/// writer has, reach the disk, and are renamed by commit(). Whatever happens, `path` holds either its old
/// content or all of the new, and keeps its permissions. A link stays, and the file that it leads to is
/// replaced. Devices, pipes and the descriptors in /dev/fd are not replaced but written to, at once.
class file_writer {
 public:
  /// Throws unroll::error, whose message begins with `function`, for a folder, a file without write
  /// permission, and where nothing can be written.
  explicit file_writer(const std::filesystem::path& path, std::string_view function = "write_file")
      : path_(detail::follow_links(path)), function_(function) {
    namespace fs = std::filesystem;
    if (!path.has_filename()) detail::fail_file(function_, path, "names no file");
    std::error_code code;
    const auto status = fs::status(path_, code);
    if (status.type() == fs::file_type::none)
      detail::fail_file(function_, path, "cannot be reached: " + code.message());
    if (fs::is_directory(status)) detail::fail_file(function_, path, "is a folder");
    if (fs::is_symlink(fs::symlink_status(path_, code))) {
      open_descriptor();
    } else if (fs::exists(status) && !fs::is_regular_file(status)) {
      file_.reset(std::fopen(path_.string().c_str(), "wb"));
    } else {
      if (fs::exists(status) && (status.permissions() & fs::perms(0222)) == fs::perms::none)
        detail::fail_file(function_, path, "has no write permission");
      open_partial();
      if (file_ && fs::exists(status)) fs::permissions(partial_, status.permissions(), code);
    }
    if (!file_)
      detail::fail_file(function_, partial_.empty() ? path : partial_,
                        std::string("cannot be opened: ") + std::strerror(errno));
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  ~file_writer() {
    if (committed_ || partial_.empty()) return;
    file_.reset();
    std::error_code code;
    std::filesystem::remove(partial_, code);
  }

  void append(const void* bytes, std::size_t count) {
    if (!file_) detail::fail_file(function_, path_, "is complete: nothing can be appended behind sync()");
    if (count > 0 && std::fwrite(bytes, 1, count, file_.get()) != count) refuse();
  }
  void append(std::string_view bytes) { append(bytes.data(), bytes.size()); }

  /// All that was appended reaches the disk; `path` is as it was. commit() does it where nobody has: who
  /// looks at `path` once more before it is replaced calls this first, since it takes the time.
  void sync() {
    if (!file_) return;
    bool written = std::fflush(file_.get()) == 0;
#if UNROLL_POSIX
    if (!partial_.empty()) written = written && fsync(fileno(file_.get())) == 0;
#endif
    if (!written) refuse();
    if (std::fclose(file_.release()) != 0) refuse();
  }

  void commit() {
    sync();
    std::error_code code;
    if (!partial_.empty()) std::filesystem::rename(partial_, path_, code);
    if (code) detail::fail_file(function_, path_, "cannot be replaced: " + code.message());
    committed_ = true;
  }

 private:
  void open_descriptor() {
#if UNROLL_POSIX
    const std::string number = path_.filename().string();
    int descriptor = -1;
    std::from_chars(number.data(), number.data() + number.size(), descriptor);
    std::fflush(stdout);  // what was printed before comes first
    const int copy = dup(descriptor);
    if (copy >= 0) file_.reset(fdopen(copy, "wb"));
#endif
  }
  void open_partial() {
#if UNROLL_POSIX
    const std::string process = std::to_string(getpid()) + ".";
#else
    const std::string process;
#endif
    static std::atomic<std::uint64_t> count{0};
    do {
      partial_ = path_;
      partial_ += "." + process + std::to_string(count++) + ".partial";
      file_.reset(std::fopen(partial_.string().c_str(), "wbx"));
    } while (!file_ && errno == EEXIST);
  }
  [[noreturn]] void refuse() const {
    detail::fail_file(function_, path_, std::string("cannot be written: ") + std::strerror(errno));
  }

  std::filesystem::path path_, partial_;  // partial_ is empty where nothing is replaced
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

#undef UNROLL_POSIX
