#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "unroll/core/view.hpp"

namespace unroll {

/// A key that may stand in a file without changing what is computed from it, and why.
struct harmless_key {
  const char* key;  ///< its name
  const char* why;  ///< it changes nothing
};

}  // namespace unroll

// Names and places of files as messages show them.
namespace unroll::detail {

/// "[2, 3]"
inline std::string shape_text(const std::vector<index_t>& shape) {
  std::string out = "[";
  for (const index_t n : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(n);
  return out + "]";
}

/// Where element i of a row-major tensor is: "[row, column]".
inline std::string position_text(const std::vector<index_t>& shape, index_t i) {
  std::vector<index_t> at(shape.size());
  for (std::size_t k = shape.size(); k-- > 0; i /= shape[k]) at[k] = i % shape[k];
  return shape_text(at);
}

/// The first number that is nan or infinite, or count.
template <class T>
index_t first_non_finite(view<const T> x) {
  return std::find_if_not(x.begin(), x.end(), [](T v) { return std::isfinite(v); }) - x.begin();
}

}  // namespace unroll::detail
