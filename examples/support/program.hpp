#pragma once

// What the example programs share: options, choosing a cell or an estimator by name, a progress line, main().

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

/// "name:1:2.5" -> the name and its numbers.
struct spec {
  std::string text, name;
  std::vector<double> numbers;

  explicit spec(std::string_view whole) : text(whole) {
    std::size_t colon = whole.find(':');
    name = whole.substr(0, colon);
    while (colon != std::string_view::npos) {
      const std::size_t end = whole.find(':', colon + 1);
      const std::string_view part =
          whole.substr(colon + 1, end == std::string_view::npos ? end : end - colon - 1);
      double value = 0;
      const auto [stop, problem] = std::from_chars(part.data(), part.data() + part.size(), value);
      if (problem != std::errc{} || stop != part.data() + part.size() || !std::isfinite(value))
        unroll::fail("options", text, "\"" + std::string(part) + "\" is not a finite number");
      numbers.push_back(value);
      colon = end;
    }
  }
  double number(std::size_t i, double otherwise) const { return i < numbers.size() ? numbers[i] : otherwise; }
  index_t count(std::size_t i, index_t otherwise) const {
    const double v = number(i, double(otherwise));
    if (!(v >= 1 && v <= 1e9) || v != double(index_t(v)))
      unroll::fail("options", text, "needs whole numbers from 1 to 1e9, got " + std::to_string(v));
    return index_t(v);
  }
  void at_most(std::size_t n) const {
    if (numbers.size() > n)
      unroll::fail("options", text,
                   "has " + std::to_string(numbers.size()) + " numbers, takes at most " + std::to_string(n));
  }
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

constexpr const char* estimator_help =
    "bptt, checkpointed[:SLOTS], rtrl: exact; tbptt:K2, tbptt:K1:K2 (every K1 steps, back K2), chunked:K: "
    "biased; "
    "artbp:L0[:ALPHA] (polynomial law of mean length L0), artbp_fixed:L0, uoro[:BLOCK], nobacktrack: "
    "unbiased; "
    "es:SIGMA[:PAIRS], nres:SIGMA[:PAIRS[:WINDOW]], pes:SIGMA[:PAIRS[:WINDOW]]: unbiased for a smoothed loss";

/// Calls f(estimator) for the estimator that `s` names; sequences have at most `length` steps.
template <class System, class Visitor>
decltype(auto) with_estimator(const spec& s, const System& system, index_t length, Visitor&& f) {
  using namespace unroll;
  const auto need = [&](std::size_t least, std::size_t most) {
    if (s.numbers.size() < least)
      fail("estimators", s.text,
           "needs " + std::to_string(least) + " number(s) behind the name, e.g. " + s.name + ":10");
    s.at_most(most);
  };
  if (s.name == "bptt") return need(0, 0), f(bptt(system, {.max_steps = length}));
  if (s.name == "checkpointed")
    return need(0, 1), f(checkpointed_bptt(system, {.slots = s.count(0, 8), .steps = length}));
  if (s.name == "rtrl") return need(0, 0), f(rtrl(system));
  if (s.name == "tbptt")
    return need(1, 2), f(tbptt(system, {.k1 = s.numbers.size() > 1 ? s.count(0, 1) : 1,
                                        .k2 = s.count(s.numbers.size() - 1, 1)}));
  if (s.name == "chunked") return need(1, 1), f(chunked_tbptt(system, {.window = s.count(0, 1)}));
  if (s.name == "artbp")
    return need(1, 2), f(artbp(system, polynomial_truncation(s.number(0, 16), s.number(1, 4))));
  if (s.name == "artbp_fixed") return need(1, 1), f(artbp(system, fixed_truncation(s.number(0, 16))));
  if (s.name == "uoro") return need(0, 1), f(uoro(system, {.block = s.count(0, 1)}));
  if (s.name == "nobacktrack") return need(0, 0), f(nobacktrack(system));
  if (s.name == "es") return need(1, 2), f(es(system, {.sigma = s.number(0, 0.1), .pairs = s.count(1, 1)}));
  if (s.name == "nres")
    return need(1, 3),
           f(nres(system, {.sigma = s.number(0, 0.1), .pairs = s.count(1, 1), .window = s.count(2, 10)}));
  if (s.name == "pes")
    return need(1, 3),
           f(pes(system, {.sigma = s.number(0, 0.1), .pairs = s.count(1, 1), .window = s.count(2, 10)}));
  fail("estimators", "name", "\"" + s.name + "\" is none of " + estimator_help);
}

/// Steps between two gradients of the estimator that `s` names, where it has them at fixed steps;
/// otherwise 1.
inline index_t gradient_period(const spec& s, index_t length) {
  if (s.name == "bptt" || s.name == "checkpointed" || s.name == "es") return length;
  if (s.name == "tbptt") return s.numbers.size() > 1 ? s.count(0, 1) : 1;
  if (s.name == "chunked" || s.name == "uoro") return s.count(0, 1);
  if (s.name == "nres" || s.name == "pes") return s.count(2, 10);
  return 1;
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
