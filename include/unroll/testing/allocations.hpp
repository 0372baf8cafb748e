#pragma once

#include <atomic>
#include <cstdint>
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
  std::int64_t count() const { return total_allocations - before_; }

 private:
  std::int64_t before_;
};

/// Whether this program counts allocations at all.
inline bool allocations_are_counted() {
  const allocation_counter counter;
  ::operator delete(::operator new(1));
  return counter.count() > 0;
}

}  // namespace unroll::testing
