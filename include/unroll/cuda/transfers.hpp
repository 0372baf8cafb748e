#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "unroll/core/matrix.hpp"
#include "unroll/cuda/handles.hpp"

namespace unroll::cuda::detail {

/// Host numbers on their way to the device: pinned memory with a copy on the device, in four parts that are
/// used in turn.
class staging {
 public:
  static constexpr index_t part_bytes = index_t{4} << 20;

  staging() : host_(parts * part_bytes), device_(parts * part_bytes, "staging") {}

  /// Enqueues a copy to the device of `bytes` at `from`, free again when the call returns. What one of the
  /// last copies has brought, as every layer's positions and addresses, is there.
  const void* copy(const void* from, index_t bytes, cudaStream_t stream) {
    if (bytes > part_bytes)
      fail("cuda::stream", "span",
           "has " + std::to_string(bytes) + " bytes, at most " + std::to_string(part_bytes) + " are staged");
    for (const span& s : last_)
      if (s.bytes == bytes && std::memcmp(host_.data() + s.at, from, std::size_t(bytes)) == 0)
        return device_.data() + s.at;
    if (used_ + bytes > part_bytes) {
      last_ = {};
      left_[now_].record(stream);
      now_ = (now_ + 1) % parts;
      used_ = 0;
      // what this part held a lap ago was used before the part behind it was left
      left_[(now_ + 1) % parts].synchronise();
    }
    const index_t at = index_t(now_) * part_bytes + used_;
    used_ += (bytes + 255) / 256 * 256;
    std::memcpy(host_.data() + at, from, std::size_t(bytes));
    check(cudaMemcpyAsync(device_.data() + at, host_.data() + at, std::size_t(bytes), cudaMemcpyHostToDevice,
                          stream),
          "cuda::stream", "cudaMemcpyAsync");
    last_[oldest_++ % last_.size()] = {at, bytes};
    return device_.data() + at;
  }

 private:
  static constexpr std::size_t parts = 4;
  pinned_block<unsigned char> host_;
  device_block<unsigned char> device_;
  std::array<event_handle, parts> left_;
  std::size_t now_ = 0;
  index_t used_ = 0;
  struct span {
    index_t at = 0, bytes = -1;
  };
  std::array<span, 8> last_ = {};  // of the part in use
  std::size_t oldest_ = 0;
};

/// Copies between the device and memory of the host, see exec/offload.hpp: each direction in a stream of its
/// own, so that both are under way at once.
class copies {
 public:
  enum direction { bring, take };  ///< to the device, to the host

  /// to = from, after what `operations` has been given so far.
  template <class U>
  void enqueue(direction d, matrix<const U> from, matrix<U> to, cudaStream_t operations) {
    if (from.rows == 0 || from.cols == 0) return;
    const cudaStream_t own = own_[d].get();
    given_.record(operations);
    wait_for(given_, own);
    const touched here = d == bring ? range_of(matrix<const U>(to)) : range_of(from);
    for (const copy& other : made_[d == bring ? take : bring].all())
      if (other.here.begin < here.end && here.begin < other.here.end) wait_for(*other.made, own);
    const auto bytes = [](index_t n) { return std::size_t(n) * sizeof(U); };
    const cudaMemcpyKind kind = d == bring ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
    if (from.cols == 1)
      check(cudaMemcpyAsync(to.data, from.data, bytes(from.rows), kind, own), "cuda::stream",
            "cudaMemcpyAsync");
    else
      check(cudaMemcpy2DAsync(to.data, bytes(to.stride), from.data, bytes(from.stride), bytes(from.rows),
                              std::size_t(from.cols), kind, own),
            "cuda::stream", "cudaMemcpy2DAsync");
    made_[d].add(here).record(own);
  }
  /// What `operations` is given later runs after all that was enqueued here.
  void wait(cudaStream_t operations) {
    for (copies_of& of : made_) {
      if (!of.all().empty()) wait_for(*of.all().back().made, operations);
      of.clear();
    }
  }
  /// Nobody will wait for what was enqueued here: it was captured, and the capture was given up.
  void forget() {
    for (copies_of& of : made_) of.clear();
  }

 private:
  struct touched {
    std::uintptr_t begin, end;  // on the device
  };
  struct copy {
    touched here;
    event_handle* made;  // behind it
  };
  // Those of one direction that nobody has waited for; events are used again.
  class copies_of {
   public:
    const std::vector<copy>& all() const { return all_; }
    event_handle& add(touched here) {
      if (all_.size() == events_.size()) events_.emplace_back();
      event_handle& made = events_[all_.size()];
      all_.push_back({here, &made});
      return made;
    }
    void clear() { all_.clear(); }

   private:
    std::deque<event_handle> events_;
    std::vector<copy> all_;
  };

  template <class U>
  static touched range_of(matrix<const U> m) {
    return {reinterpret_cast<std::uintptr_t>(m.data),
            reinterpret_cast<std::uintptr_t>(m.data + (m.cols - 1) * m.stride + m.rows)};
  }
  static void wait_for(const event_handle& e, cudaStream_t stream) {
    check(cudaStreamWaitEvent(stream, e.get(), 0), "cuda::stream", "cudaStreamWaitEvent");
  }

  std::array<stream_handle, 2> own_;
  std::array<copies_of, 2> made_;
  event_handle given_;
};

}  // namespace unroll::cuda::detail
