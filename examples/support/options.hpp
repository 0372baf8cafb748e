#pragma once

// Options of the command line: numbers with their ranges, and the checks of CLI11 that it lacks itself.

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <unroll/core/config.hpp>

namespace program {

using unroll::index_t;

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

/// A whole number from `least` to `most`; its value is the default.
inline CLI::Option* add_count(CLI::App* app, const char* name, index_t& value, index_t least, index_t most,
                              const std::string& what) {
  return app->add_option(name, value, what)->check(CLI::Range(least, most))->capture_default_str();
}
/// A number from 0 on.
inline CLI::Option* add_not_negative(CLI::App* app, const char* name, double& value,
                                     const std::string& what) {
  return app->add_option(name, value, what)->check(not_negative)->capture_default_str();
}
/// A number from 0 on, within a range.
inline CLI::Option* add_share(CLI::App* app, const char* name, double& value, double least, double most,
                              const std::string& what) {
  return app->add_option(name, value, what)
      ->check(CLI::Range(least, most))
      ->check(not_negative)
      ->capture_default_str();
}
inline CLI::Option* add_seed(CLI::App* app, std::uint64_t& seed, const char* what) {
  return app->add_option("--seed", seed, what)->check(not_negative)->capture_default_str();
}

}  // namespace program
