#pragma once

#include <algorithm>
#include <new>
#include <type_traits>
#include <utility>

#include "unroll/core/view.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace unroll {

/// Says that a block is filled at once by whoever makes it.
struct unwritten {};

/// Owns `size` zero-initialised elements of one space, aligned to 64 bytes; the size is fixed at
/// construction.
template <class T, class Space = plain_space>
class block {
 public:
  using unroll_space = Space;

  block() = default;
  /// Throws unroll::error where the size is negative, or its bytes more than 64 bits count.
  explicit block(index_t size) : block(size, unwritten()) { zero(); }
  /// Without a value in any element: memory that is written once takes half the time.
  block(index_t size, unwritten) {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
    allocate(size);
  }
  block(const block& other) {
    allocate(other.size_);
    std::copy(other.begin(), other.end(), data_);
  }
  block(block&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  block& operator=(block other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~block() { ::operator delete(data_, alignment(bytes())); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  index_t size() const { return size_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](index_t i) {
    UNROLL_ASSERT(i >= 0 && i < size_);
    return data_[i];
  }
  const T& operator[](index_t i) const {
    UNROLL_ASSERT(i >= 0 && i < size_);
    return data_[i];
  }
  void zero() { std::fill(begin(), end(), T{}); }  ///< every element 0
  std::size_t bytes() const { return std::size_t(size_) * sizeof(T); }

  operator view<T, Space>() { return {data_, size_}; }
  operator view<const T, Space>() const { return {data_, size_}; }

 private:
  static constexpr std::size_t large_page = std::size_t{2} << 20;
  static bool large(std::size_t bytes) { return bytes >= 2 * large_page; }
  static std::align_val_t alignment(std::size_t bytes) {
    return std::align_val_t{large(bytes) ? large_page : 64};
  }
  // A large block asks for large pages: matrices of more than a few MiB have more pages of 4 KiB than a
  // processor remembers the places of.
  void allocate(index_t size) {
    const std::size_t n = count_bytes("block", "size", size, sizeof(T));
    if (size == 0) return;
    data_ = static_cast<T*>(::operator new(n, alignment(n)));
    size_ = size;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (large(n)) madvise(data_, n, MADV_HUGEPAGE);  // a wish: where it is not granted nothing changes
#endif
  }
  T* data_ = nullptr;
  index_t size_ = 0;
};

/// theta, owned.
template <class T>
using parameters = block<T, param_space>;
/// dL/dtheta, owned.
template <class T>
using gradient = block<T, param_cotangent_space>;
/// Working memory without a space.
template <class T>
using buffer = block<T, plain_space>;

}  // namespace unroll
