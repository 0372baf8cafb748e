#pragma once

#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/error.hpp"

namespace unroll {

/// A name and the numbers behind it, as a command line has them: "tbptt:1:4".
class named_numbers final {
 public:
  /// Throws unroll::error where what stands behind a colon is no finite number in decimal digits.
  explicit named_numbers(std::string_view text) : text_(text), name_(text.substr(0, text.find(':'))) {
    for (std::size_t colon = text.find(':'); colon != text.npos;) {
      const std::size_t end = text.find(':', colon + 1);
      const std::string_view part = text.substr(colon + 1, end == text.npos ? end : end - colon - 1);
      double value = 0;
      const auto [stop, problem] = std::from_chars(part.data(), part.data() + part.size(), value);
      if (problem != std::errc{} || stop != part.data() + part.size() || !std::isfinite(value))
        fail("options", text_, "\"" + std::string(part) + "\" is not a finite number");
      numbers_.push_back(value);
      colon = end;
    }
  }

  const std::string& text() const { return text_; }  ///< all of it
  const std::string& name() const { return name_; }  ///< what stands before the numbers
  /// How many numbers there are.
  std::size_t size() const { return numbers_.size(); }
  /// Number i, from 0, or `otherwise` where there are fewer.
  double number(std::size_t i, double otherwise) const { return i < size() ? numbers_[i] : otherwise; }
  /// The same as a count. Throws unroll::error where it is no whole number from 1 to 10^9.
  index_t count(std::size_t i, index_t otherwise) const {
    const double v = number(i, double(otherwise));
    if (!(v >= 1 && v <= 1e9) || v != double(index_t(v)))
      fail("options", text_, "needs whole numbers from 1 to 1e9, got " + std::to_string(v));
    return index_t(v);
  }

 private:
  std::string text_, name_;
  std::vector<double> numbers_;
};

}  // namespace unroll
