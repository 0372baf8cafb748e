#pragma once

// What the example programs share: options, a cell by name, a progress line, main().

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string_view>
#include <unroll/unroll.hpp>

#include "figure.hpp"

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

/// One line on the terminal that is written over; silent when standard error is not a terminal.
class progress {
 public:
  progress() : shown_(isatty(STDERR_FILENO) != 0) {}
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

/// Checks of options, for CLI11: empty, or what is wrong.
inline std::string positive(const std::string& number) {
  const double v = std::strtod(number.c_str(), nullptr);
  return v > 0 && std::isfinite(v) ? "" : number + " is not above 0 and finite";
}
inline std::string not_negative(const std::string& number) {
  const double v = std::strtod(number.c_str(), nullptr);
  return v >= 0 && std::isfinite(v) && number.rfind('-', 0) != 0 ? ""
                                                                 : number + " is not at least 0 and finite";
}

inline std::string not_empty(const std::string& text) { return text.empty() ? "names nothing" : ""; }

/// Every number on the command line is written out in decimal digits and fits its type: CLI11 itself reads
/// 010 as 8, and lets through what is too large, not a number, or infinite.
template <class Number>
std::string written_out(const std::string& text) {
  const std::string_view digits(text.starts_with('+') ? text.c_str() + 1 : text.c_str());
  const char* end = digits.data() + digits.size();
  Number value{};
  const auto [stop, problem] = std::from_chars(digits.data(), end, value);
  if (problem == std::errc::result_out_of_range) return text + " is beyond the numbers of this option";
  const auto first = digits.find_first_not_of('-');
  const bool padded =
      std::is_integral_v<Number> && first != digits.npos && digits[first] == '0' && digits.size() > first + 1;
  if (problem != std::errc{} || stop != end || padded || !std::isfinite(double(value)))
    return text + (std::is_floating_point_v<Number> ? " is not a finite number"
                   : std::is_signed_v<Number>       ? " is not a whole number in decimal digits"
                                                    : " is not a whole number in decimal digits, at least 0");
  return "";
}
inline void check_numbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (type.starts_with("UINT")) option->check(written_out<std::uint64_t>);
    if (type.starts_with("INT")) option->check(written_out<std::int64_t>);
    if (type.starts_with("FLOAT")) option->check(written_out<double>);
  }
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) check_numbers(*command);
}

inline std::vector<std::string> split(std::string_view text, char separator = ',') {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    parts.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

/// A built-in cell chosen by name, with its parameters' names and initial values.
template <class T>
struct named_cell {
  unroll::any_system<T, unroll::cells::example<T>> system;
  unroll::layout names;
  unroll::parameters<T> theta;

  template <class Cell>
  named_cell(const Cell& cell, unroll::key k)
      : system(cell), names(cell.layout()), theta(cell.size().params) {
    cell.init(theta, k);
  }
};

struct cell_size {
  index_t in = 1, hidden = 32, out = 1;
  unroll::loss_kind loss = unroll::loss_kind::squared_error;
  index_t lanes = 1;
};

template <class T>
named_cell<T> make_cell(const std::string& name, const cell_size& n, unroll::key k) {
  using namespace unroll;
  if (name == "elman")
    return {cells::elman<T>({.in = n.in, .hidden = n.hidden, .out = n.out, .loss = n.loss, .lanes = n.lanes}),
            k};
  if (name == "gru")
    return {cells::gru<T>({.in = n.in, .hidden = n.hidden, .out = n.out, .loss = n.loss, .lanes = n.lanes}),
            k};
  if (name == "lstm")
    return {cells::lstm<T>({.in = n.in, .hidden = n.hidden, .out = n.out, .loss = n.loss, .lanes = n.lanes}),
            k};
  if (name == "linear")
    return {
        cells::linear<T>({.in = n.in, .hidden = n.hidden, .out = n.out, .loss = n.loss, .lanes = n.lanes}),
        k};
  fail("system", "name", "\"" + name + "\" is none of elman, gru, lstm, linear");
}

/// main() of every program: reads the command line, then runs body(). An exception becomes one line on
/// standard error and exit code 1, as does a standard output that could not be written.
template <class Body>
int run(const char* name, CLI::App& app, int argc, char** argv, Body&& body) {
  const auto say = [&](std::string_view what) {
    const bool named = what.starts_with(name);
    std::fprintf(stderr, "%s%s%.*s\n", named ? "" : name, named ? "" : ": ", int(what.size()), what.data());
    return 1;
  };
  try {
    hold_standard_streams();
    catch_interrupt();
    check_numbers(app);
    int code = 0;
    try {
      app.parse(argc, argv);
      code = body();
    } catch (const CLI::ParseError& e) {
      code = app.exit(e);
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
