#pragma once

#include <algorithm>
#include <new>
#include <utility>

#include "unroll/core/view.hpp"

namespace unroll {

/// Owns `size` zero-initialised elements of one space, aligned to 64 bytes; the size is fixed at
/// construction.
template <class T, class Space = plain_space>
class block {
 public:
  using unroll_space = Space;

  block() = default;
  explicit block(index_t size) {
    check_at_least("block", "size", size, 0);
    allocate(size);
    zero();
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
  ~block() { ::operator delete (data_, std::align_val_t{alignment}); }

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
  static constexpr std::size_t alignment = 64;
  void allocate(index_t size) {
    if (size == 0) return;
    data_ = static_cast<T*>(::operator new (std::size_t(size) * sizeof(T), std::align_val_t{alignment}));
    size_ = size;
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
