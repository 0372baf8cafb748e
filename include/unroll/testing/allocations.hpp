#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <new>

#include "unroll/core/config.hpp"

namespace unroll::testing {

/// Allocations of the whole program. The only global of the library that changes; it counts only in a program
/// one of whose translation units includes unroll/testing/count_allocations.hpp.
inline std::atomic<std::int64_t> total_allocations{0};

/// Counts the allocations made, by any thread, since it was constructed.
class allocation_counter {
 public:
  allocation_counter() : before_(total_allocations) {}
  std::int64_t count() const { return total_allocations - before_; }  ///< allocations since it was made

 private:
  std::int64_t before_;
};

/// Whether unroll/testing/count_allocations.hpp is part of this program.
inline bool counting_is_linked = false;

/// Whether this program counts allocations at all.
inline bool allocations_are_counted() {
  const allocation_counter counter;
  ::operator delete(::operator new(1));
  return counter.count() > 0;
}

/// Whether counting is linked and nothing is counted all the same, because valgrind or a sanitizer has put
/// its own malloc in place. Says so on stderr, once: checks of allocations are left out then, and do not
/// fail.
inline bool counting_is_replaced() {
  if (!counting_is_linked || allocations_are_counted()) return false;
  [[maybe_unused]] static const int said = std::fputs(
      "unroll: allocations are not checked: valgrind or a sanitizer has replaced what counts them\n", stderr);
  return true;
}

}  // namespace unroll::testing
