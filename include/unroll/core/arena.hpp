#pragma once

#include <memory>
#include <span>
#include <type_traits>

#include "unroll/core/matrix.hpp"
#include "unroll/core/view.hpp"

namespace unroll {

/// Cuts flat memory into matrices, one after another, each a multiple of 64 bytes behind the first. Without
/// memory it only counts, so that the size which a function asks for and what it takes are one piece of code.
template <class T>
class arena {
 public:
  arena() = default;
  explicit arena(view<T> memory) : memory_(memory.data()), size_(memory.size()) {}

  /// Not initialised; data is null where there is no memory.
  matrix<T> cut(index_t rows, index_t cols = 1) {
    const index_t at = used_;
    used_ += rounded(rows * cols);
    UNROLL_ASSERT(!memory_ || used_ <= size_);
    return {memory_ ? memory_ + at : nullptr, rows, cols};
  }
  /// The same of numbers of another kind.
  template <class U>
  matrix<U> cut_as(index_t rows, index_t cols = 1) {
    static_assert(std::is_const_v<U> == std::is_const_v<T>);
    if constexpr (std::is_same_v<U, T>) return cut(rows, cols);
    const matrix<T> m = cut((rows * cols * index_t(sizeof(U)) + index_t(sizeof(T)) - 1) / index_t(sizeof(T)));
    using untyped = std::conditional_t<std::is_const_v<T>, const void, void>;
    return {static_cast<U*>(static_cast<untyped*>(m.data)), rows, cols};
  }
  /// The same as a flat vector.
  view<T> cut_flat(index_t n) {
    const matrix<T> m = cut(n);
    return {m.data, m.data ? n : 0};
  }
  /// n objects of another type, value-initialised; empty where there is no memory.
  template <class U>
  std::span<U> cut_objects(index_t n) {
    static_assert(std::is_trivially_destructible_v<U> && alignof(U) <= 64);
    const std::size_t bytes = std::size_t(n) * sizeof(U);
    const view<T> room = cut_flat(index_t((bytes + alignof(U) + sizeof(T) - 1) / sizeof(T)));
    if (!memory_ || n == 0) return {};
    void* at = room.data();
    std::size_t space = std::size_t(room.size()) * sizeof(T);
    U* first = static_cast<U*>(std::align(alignof(U), bytes, at, space));
    std::uninitialized_value_construct_n(first, n);
    return {first, std::size_t(n)};
  }
  /// Numbers cut so far.
  index_t used() const { return used_; }
  /// What is not cut yet, as a flat vector; empty where there is no memory.
  view<T> rest() const { return memory_ ? view<T>(memory_ + used_, size_ - used_) : view<T>(); }

  /// What n numbers take.
  static constexpr index_t rounded(index_t n) {
    constexpr index_t line = 64 / index_t(sizeof(T));
    return (n + line - 1) / line * line;
  }

 private:
  T* memory_ = nullptr;
  index_t size_ = 0, used_ = 0;
};

}  // namespace unroll
