#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "unroll/core/view.hpp"
#include "unroll/cuda/check.hpp"

namespace unroll::cuda {

/// Makes a device the calling thread's while it lives, and the one before again then.
class device_scope {
 public:
  explicit device_scope(int device) {
    check(cudaGetDevice(&before_), "cuda::device_scope", "cudaGetDevice");
    if (device == before_) return;
    check(cudaSetDevice(device), "cuda::device_scope", "cudaSetDevice");
    changed_ = true;
  }
  device_scope(const device_scope&) = delete;
  device_scope& operator=(const device_scope&) = delete;
  ~device_scope() {
    if (changed_) cudaSetDevice(before_);
  }
  /// The calling thread's.
  static int current() {
    int device = 0;
    check(cudaGetDevice(&device), "cuda::device_scope", "cudaGetDevice");
    return device;
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

namespace detail {

/// f(), in a destructor, with `device` the calling thread's. What fails is left to the next call.
template <class F>
void at_the_end(int device, F&& f) noexcept {
  int before = device;
  cudaGetDevice(&before);
  if (before != device) cudaSetDevice(device);
  f();
  if (before != device) cudaSetDevice(before);
}

}  // namespace detail

/// A stream: one of its own, which does not wait for the default stream, or the caller's. Work enqueued in it
/// runs in order.
class stream_handle {
 public:
  stream_handle() : owned_(true) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cuda::stream_handle",
          "cudaStreamCreateWithFlags");
  }
  /// The caller's, which must outlive this.
  explicit stream_handle(cudaStream_t of_caller) : stream_(of_caller) {}
  stream_handle(const stream_handle&) = delete;
  stream_handle& operator=(const stream_handle&) = delete;
  ~stream_handle() {
    if (owned_) cudaStreamDestroy(stream_);
  }

  cudaStream_t get() const { return stream_; }  ///< CUDA's own
  /// Waits for all that was enqueued, and throws what failed in it.
  void synchronise() const {
    check(cudaStreamSynchronize(stream_), "cuda::stream_handle", "cudaStreamSynchronize");
  }

 private:
  cudaStream_t stream_ = nullptr;
  bool owned_ = false;
};

/// Owns an event, a point in a stream.
class event_handle {
 public:
  event_handle() { check(cudaEventCreate(&event_), "cuda::event_handle", "cudaEventCreate"); }
  event_handle(const event_handle&) = delete;
  event_handle& operator=(const event_handle&) = delete;
  ~event_handle() { cudaEventDestroy(event_); }

  cudaEvent_t get() const { return event_; }  ///< CUDA's own
  /// Marks the place that the stream has reached.
  void record(cudaStream_t stream) {
    check(cudaEventRecord(event_, stream), "cuda::event_handle", "cudaEventRecord");
  }
  void synchronise() const {
    check(cudaEventSynchronize(event_), "cuda::event_handle", "cudaEventSynchronize");
  }
  /// Milliseconds from `earlier` to this event; both have happened.
  double milliseconds_since(const event_handle& earlier) const {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, earlier.event_, event_), "cuda::event_handle", "cudaEventElapsedTime");
    return double(ms);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Owns `size` zeroed numbers of one space on the calling thread's device, or borrows the caller's; the size
/// is fixed at construction. A copy is on the same device, whichever is the thread's then, and memory is
/// freed there.
template <class T, class Space = plain_space>
class device_block {
 public:
  using unroll_space = Space;

  device_block() = default;
  /// Throws device_error with what is needed and what is free; `what` names it.
  explicit device_block(index_t size, std::string_view what = "size") {
    allocate(size, what);
    if (size == 0) return;
    check(cudaMemset(data_, 0, bytes()), "cuda::device_block", "cudaMemset");
    check(cudaDeviceSynchronize(), "cuda::device_block", "cudaDeviceSynchronize");  // streams do not wait
  }
  /// The caller's `size` numbers at `data`, on the device, which must outlive this: for weights that lie
  /// there already. A copy has memory of its own.
  static device_block borrow(T* data, index_t size) {
    check_at_least("cuda::device_block", "size", size, 0);
    device_block out;
    out.data_ = data;
    out.size_ = size;
    out.device_ = device_scope::current();
    out.owned_ = false;
    return out;
  }
  device_block(const device_block& other) {
    if (other.size_ == 0) return;
    const device_scope there(other.device_);
    allocate(other.size_, "size");
    check(cudaDeviceSynchronize(), "cuda::device_block", "cudaDeviceSynchronize");
    check(cudaMemcpy(data_, other.data_, bytes(), cudaMemcpyDeviceToDevice), "cuda::device_block",
          "cudaMemcpy");
  }
  device_block(device_block&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        device_(other.device_),
        owned_(std::exchange(other.owned_, true)) {}
  device_block& operator=(device_block other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(device_, other.device_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~device_block() {
    if (owned_ && data_) detail::at_the_end(device_, [&] { cudaFree(data_); });
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  index_t size() const { return size_; }
  std::size_t bytes() const { return std::size_t(size_) * sizeof(T); }

  operator view<T, Space>() { return {data_, size_}; }
  operator view<const T, Space>() const { return {data_, size_}; }

 private:
  void allocate(index_t size, std::string_view what) {
    const std::size_t wanted = count_bytes("cuda::device_block", what, size, sizeof(T));
    if (size == 0) return;
    device_ = device_scope::current();
    void* memory = nullptr;
    if (const cudaError_t status = cudaMalloc(&memory, wanted); status != cudaSuccess) {
      std::size_t free = 0, all = 0;
      cudaGetLastError();
      cudaMemGetInfo(&free, &all);
      fail_device("cuda::device_block", what,
                  std::string(cudaGetErrorName(status)) + ": needs " + std::to_string(wanted) + " bytes, " +
                      std::to_string(free) + " of " + std::to_string(all) + " are free");
    }
    data_ = static_cast<T*>(memory);
    size_ = size;
  }
  T* data_ = nullptr;
  index_t size_ = 0;
  int device_ = 0;
  bool owned_ = true;
};

/// Owns n objects of host memory that the device copies from and to without a detour; not initialised.
template <class U>
class pinned_block {
 public:
  pinned_block() = default;
  explicit pinned_block(index_t n) : size_(n) {
    const std::size_t bytes = count_bytes("cuda::pinned_block", "n", n, sizeof(U));
    if (n == 0) return;
    void* memory = nullptr;
    check(cudaMallocHost(&memory, bytes), "cuda::pinned_block",
          "cudaMallocHost of " + std::to_string(bytes) + " bytes");
    data_ = static_cast<U*>(memory);
  }
  pinned_block(pinned_block&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  pinned_block& operator=(pinned_block&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~pinned_block() { cudaFreeHost(data_); }

  U* data() { return data_; }
  const U* data() const { return data_; }
  index_t size() const { return size_; }

 private:
  U* data_ = nullptr;
  index_t size_ = 0;
};

/// Owns n zeroed numbers of host memory that a device brings and takes while it computes, see
/// exec/offload.hpp: that which is the calling thread's when it is made. Before it is copied or ends, it
/// waits for that device, whichever is the thread's then.
template <class U>
class host_block {
 public:
  host_block() = default;
  explicit host_block(index_t n) : host_block(n, n > 0 ? device_scope::current() : 0) {}
  host_block(const host_block& other) : host_block(other.size(), other.device_) {
    if (size() == 0) return;
    const device_scope there(device_);
    check(cudaDeviceSynchronize(), "cuda::host_block", "cudaDeviceSynchronize");
    std::copy_n(other.data(), other.size(), block_.data());
  }
  host_block(host_block&&) noexcept = default;
  host_block& operator=(host_block other) noexcept {
    std::swap(block_, other.block_);
    std::swap(device_, other.device_);
    return *this;
  }
  ~host_block() {
    if (size() > 0) detail::at_the_end(device_, [] { cudaDeviceSynchronize(); });
  }

  U* data() { return block_.data(); }
  const U* data() const { return block_.data(); }
  index_t size() const { return block_.size(); }
  std::size_t bytes() const { return std::size_t(size()) * sizeof(U); }

 private:
  host_block(index_t n, int device) : device_(device) {
    if (n == 0) return;
    const device_scope there(device);
    block_ = pinned_block<U>(n);
    std::fill_n(block_.data(), n, U{});
  }

  pinned_block<U> block_;
  int device_ = 0;
};

}  // namespace unroll::cuda
