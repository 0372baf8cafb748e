#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "unroll/core/error.hpp"
#include "unroll/core/view.hpp"

// What save and resume of an object need (io/checkpoint.hpp):
//
//   template <class V> void visit(V&& v)      calls, for everything that later calls depend on,
//     v(name, view<T, Space>)      numbers, float, double or std::int64_t: the visitor reads or replaces them
//     v(name, std::string_view)    what the object is: a text that must be the same where it is read back
//
// Texts come first. A visitor that replaces numbers wants an object that has just been constructed or reset;
// a number that steers a loop or an index is shown by visit_integer, since a file may say anything.
namespace unroll {

/// Shows an integer, bool or enumerator. Throws unroll::error where what comes back is not in [least, most].
template <class V, class I>
void visit_integer(V&& v, std::string_view name, I& value, std::int64_t least = 0,
                   std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
  auto shown = static_cast<std::int64_t>(value);
  v(name, view<std::int64_t>(&shown, 1));
  if (shown < least || shown > most)
    fail("visit", name,
         "is " + std::to_string(shown) + ", must lie in [" + std::to_string(least) + ", " +
             std::to_string(most) + "]");
  value = static_cast<I>(shown);
}
/// A bool, as an integer 0 or 1.
template <class V>
void visit_flag(V&& v, std::string_view name, bool& value) {
  visit_integer(v, name, value, 0, 1);
}

/// Shows all that `part` shows, under "name.".
template <class V, class Part>
void visit_part(V&& v, const std::string& name, Part& part) {
  part.visit(
      [&](std::string_view inner, auto shown) { v(std::string(name).append(".").append(inner), shown); });
}

/// The name of a number kind, for texts.
template <class T>
constexpr std::string_view number_kind() {
  return sizeof(T) == 2 ? "bfloat16" : sizeof(T) == sizeof(float) ? "float" : "double";
}

}  // namespace unroll
