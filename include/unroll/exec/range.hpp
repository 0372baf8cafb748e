#pragma once

#include <string_view>
#include <type_traits>
#include <utility>

#include "unroll/core/config.hpp"

namespace unroll::exec {

/// Names what an executor does while it lives, for a profiler: "write 3 .. 6" for four segments from `first`
/// on, or the name alone. Only executors with
///   void begin_range(std::string_view name, index_t first, index_t n) const     n = 0: the name alone
///   void end_range() const
/// show it; for the others this is nothing at all. A copy is empty.
template <class E>
class range {
  static constexpr bool shown = requires(const E& e) {
    e.begin_range(std::string_view(), index_t(0), index_t(0));
    e.end_range();
  };
  struct nothing {};

 public:
  range() = default;
  explicit range(const E& e, std::string_view name, index_t first = 0, index_t n = 0) {
    if constexpr (shown) {
      e.begin_range(name, first, n);
      of_ = &e;
    }
  }
  range(const range&) {}
  range(range&& other) noexcept : of_(std::exchange(other.of_, {})) {}
  range& operator=(range other) noexcept {
    std::swap(of_, other.of_);
    return *this;
  }
  ~range() {
    if constexpr (shown)
      if (of_) of_->end_range();
  }

 private:
  [[no_unique_address]] std::conditional_t<shown, const E*, nothing> of_ = {};
};

}  // namespace unroll::exec
