#pragma once

#include <charconv>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

#include "unroll/core/config.hpp"

namespace unroll {

/// A wrong size, shape, option or file. The message names the function, the argument and both values.
class error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// Throws "function: argument: message".
[[noreturn]] inline void fail(std::string_view function, std::string_view argument,
                              std::string_view message) {
  std::string text(function);
  text.append(": ").append(argument).append(": ").append(message);
  throw error(text);
}

/// A number for a message: the shortest text that reads back as the same number.
inline std::string number_text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

/// Throws "function: argument: has size `got`, expected `expected`" unless the two are equal.
inline void check_size(std::string_view function, std::string_view argument, index_t got, index_t expected) {
  if (got != expected)
    fail(function, argument, "has size " + std::to_string(got) + ", expected " + std::to_string(expected));
}

/// Throws "function: argument: is `got`, must be at least `least`" unless got >= least.
inline void check_at_least(std::string_view function, std::string_view argument, index_t got, index_t least) {
  if (got < least)
    fail(function, argument, "is " + std::to_string(got) + ", must be at least " + std::to_string(least));
}

/// Bytes of n objects of `each` bytes, before memory for them is asked for. Throws unroll::error "function:
/// argument: ..." where n is negative, or so large that a difference of two pointers cannot count them.
inline std::size_t count_bytes(std::string_view function, std::string_view argument, index_t n,
                               std::size_t each) {
  const index_t most = std::numeric_limits<index_t>::max() / index_t(each);
  check_at_least(function, argument, n, 0);
  if (n > most)
    fail(function, argument, "is " + std::to_string(n) + ", must be at most " + std::to_string(most));
  return std::size_t(n) * each;
}

namespace detail {

/// A name that stands in a file, quoted for a message: cut when it is long, control characters replaced.
inline std::string in_quotes(std::string_view name) {
  std::string out = "\"";
  for (const char c : name.substr(0, 200)) out += static_cast<unsigned char>(c) < 32 ? '?' : c;
  return out + (name.size() > 200 ? "...\"" : "\"");
}

}  // namespace detail

}  // namespace unroll
