#pragma once

// What the example programs share: a progress line, small helpers, main().

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <ctime>
#include <exception>
#include <optional>
#include <string_view>
#include <thread>
#include <unroll/unroll.hpp>

#include "figure.hpp"
#include "options.hpp"
#include "processes.hpp"

namespace program {

using unroll::index_t;

/// printf into a string of any length.
template <class... Values>
std::string text_of(const char* format, Values... values) {
  std::string text(std::size_t(std::max(0, std::snprintf(nullptr, 0, format, values...))), '\0');
  std::snprintf(text.data(), text.size() + 1, format, values...);
  return text;
}

/// Of the bytes of some numbers, for a checkpoint to know what it belongs to.
template <class T>
std::uint64_t fingerprint(const T* numbers, std::size_t n) {
  return unroll::fnv1a(numbers, n * sizeof(T));
}

/// Processor time of this program: other programs that run beside it do not count.
inline double processor_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

/// Runs beside each other show no progress of their own.
inline bool quiet = false;

/// One line on the terminal that is written over; silent when standard error is not a terminal.
class progress {
 public:
  progress() : shown_(isatty(STDERR_FILENO) != 0 && world.first() && !quiet) {}
  ~progress() { clear(); }
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;
  void show(const std::string& text) const {
    if (shown_) std::fprintf(stderr, "\r\033[K%s", text.c_str());
  }
  void clear() const {
    if (shown_) std::fprintf(stderr, "\r\033[K");
  }

 private:
  bool shown_;
};

/// A progress line "WHAT: N THINGS" that follows a count while other threads raise it.
class counting_progress {
 public:
  counting_progress(const std::string& what, const char* things)
      : watch_([this, what, things](std::stop_token end) {
          while (!end.stop_requested()) {
            line_.show(what + ": " + std::to_string(done.load()) + " " + things);
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
          }
        }) {}

  std::atomic<index_t> done{0};

 private:
  progress line_;
  std::jthread watch_;
};

inline std::vector<std::string> split(std::string_view text, char separator = ',') {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    parts.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

/// For run(): the program can be several ranks.
constexpr bool several_ranks = true;

/// main() of every program: reads the command line, then runs body(). An exception becomes one line on
/// standard error and exit code 1, as does a standard output that could not be written; on one of several
/// ranks it ends all. Several ranks are refused unless the program says that it can be some.
template <bool several = false, class Body>
int run(const char* name, CLI::App& app, int argc, char** argv, Body&& body) {
  std::optional<processes> all;
  const auto ended = [&](int code) {
    if (all && code != 0) all->fail_all(code);
    return code;
  };
  const auto say = [&](std::string_view what) {
    let_first_speak();
    const bool named = what.starts_with(name);
    const std::string rank = world.first() ? "" : "rank " + std::to_string(world.rank()) + ": ";
    std::fprintf(stderr, "%s%s%s%.*s\n", rank.c_str(), named ? "" : name, named ? "" : ": ", int(what.size()),
                 what.data());
    return ended(1);
  };
  try {
    hold_standard_streams();
    catch_interrupt();
    if (several) {
      all.emplace(name);
      all->check(name);
    } else {
      check_one_process(name, "this program");
    }
    check_numbers(app);
    int code = 0;
    try {
      app.parse(argc, argv);
      code = body();
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() != 0) let_first_speak();
      return ended(app.exit(e));
    }
    check_output(name);
    return code;
  } catch (const std::bad_alloc&) {
    return say("not enough memory for these sizes");
  } catch (const std::length_error&) {
    return say("not enough memory for these sizes");
  } catch (const std::exception& e) {
    return say(e.what());
  }
}

}  // namespace program
