#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "unroll/data/sequences.hpp"

namespace unroll::data {

/// Cuts a text into `lanes` contiguous streams of equal length and sets the label of each step to the next
/// character of its stream; what is left over at the end is dropped. Throws unroll::error when a stream is
/// shorter than `window` steps.
template <class T = double>
sequences<T> streams(std::span<const std::int32_t> numbers, index_t lanes, index_t window = 1) {
  check_at_least("streams", "lanes", lanes, 1);
  check_at_least("streams", "window", window, 1);
  const index_t steps = (index_t(numbers.size()) - 1) / lanes;
  if (numbers.empty() || steps < window)
    fail("streams", "numbers",
         "has " + std::to_string(numbers.size()) + " characters, " + std::to_string(lanes) +
             " lanes of at least " + std::to_string(window) + " steps need " +
             std::to_string(lanes * window + 1));
  sequences<T> s({.steps = steps, .lanes = lanes, .token = true, .label = true});
  for (index_t t = 0; t < steps; ++t) {
    for (index_t l = 0; l < lanes; ++l) {
      s.token(t, l) = numbers[std::size_t(l * steps + t)];
      s.label(t, l) = numbers[std::size_t(l * steps + t + 1)];
    }
  }
  return s;
}

}  // namespace unroll::data
