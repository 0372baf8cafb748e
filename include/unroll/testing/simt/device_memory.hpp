#pragma once

#include <algorithm>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "unroll/core/view.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNROLL_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define UNROLL_ADDRESS_SANITIZER
#endif
#if defined(UNROLL_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace unroll::testing::simt {

/// The memory of a device that the host plays: under an address sanitizer it can be touched only while a body
/// runs or something is copied, so that host code which reads or writes it is found.
class device_memory {
 public:
  /// While one lives, device memory is open.
  class access {
   public:
    explicit access(device_memory& m) : memory_(&m) { memory_->set(true); }
    access(const access&) = delete;
    access& operator=(const access&) = delete;
    ~access() { memory_->set(false); }

   private:
    device_memory* memory_;
  };

  void* allocate(std::size_t bytes) {
    void* const p = ::operator new(bytes, alignment);
    std::fill_n(static_cast<unsigned char*>(p), bytes, static_cast<unsigned char>(0));
    blocks_.push_back({p, bytes});
    mark(blocks_.back(), open_ > 0);
    return p;
  }
  /// What allocate() gave.
  void free(void* p) {
    const auto at =
        std::find_if(blocks_.begin(), blocks_.end(), [p](const piece& b) { return b.first == p; });
    mark(*at, true);
    blocks_.erase(at);
    ::operator delete(p, alignment);
  }

 private:
  using piece = std::pair<void*, std::size_t>;
  static constexpr std::align_val_t alignment{256};

  void set(bool open) {
    open_ += open ? 1 : -1;
    if (open_ == (open ? 1 : 0))
      for (const piece& b : blocks_) mark(b, open);
  }
  static void mark([[maybe_unused]] const piece& b, [[maybe_unused]] bool open) {
#if defined(UNROLL_ADDRESS_SANITIZER)
    if (open)
      __asan_unpoison_memory_region(b.first, b.second);
    else
      __asan_poison_memory_region(b.first, b.second);
#endif
  }

  std::vector<piece> blocks_;
  int open_ = 0;
};

/// Owns n numbers of a device's memory, zeroed. A copy has memory of its own.
template <class U, class Space = plain_space>
class device_block {
 public:
  using unroll_space = Space;

  device_block() = default;
  device_block(index_t n, std::shared_ptr<device_memory> of) : memory_(std::move(of)), size_(n) {
    data_ = static_cast<U*>(memory_->allocate(count_bytes("simt::device_block", "n", n, sizeof(U))));
  }
  device_block(const device_block& other) {
    if (!other.memory_) return;
    *this = device_block(other.size_, other.memory_);
    const device_memory::access open(*memory_);
    std::copy_n(other.data_, size_, data_);
  }
  device_block(device_block&& other) noexcept
      : memory_(std::move(other.memory_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  device_block& operator=(device_block other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~device_block() {
    if (data_) memory_->free(data_);
  }

  U* data() { return data_; }
  const U* data() const { return data_; }
  index_t size() const { return size_; }
  std::size_t bytes() const { return std::size_t(size_) * sizeof(U); }
  operator view<U, Space>() { return {data_, size_}; }
  operator view<const U, Space>() const { return {data_, size_}; }

 private:
  std::shared_ptr<device_memory> memory_;
  U* data_ = nullptr;
  index_t size_ = 0;
};

}  // namespace unroll::testing::simt
