#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/exec/body_executor.hpp"
#include "unroll/exec/offload.hpp"
#include "unroll/testing/simt/context.hpp"
#include "unroll/testing/simt/device_memory.hpp"

namespace unroll::testing::simt {

/// Runs kernel bodies on the host, see context.hpp, in an order of the key.
class machine {
 public:
  explicit machine(key k)
      : key_(k),
        memory_(std::make_shared<device_memory>()),
        partial_(std::make_shared<device_block<double>>(
            kernels::reduce_body<kernels::reduction::sum, float>::most_parts, memory_)) {}

  /// Runs every block of a body.
  template <class Body>
  void run(const Body& body) const {
    const device_memory::access open(*memory_);
    simt::run(body, key_);
  }
  /// A copy of the host's numbers that bodies can read.
  template <class U>
  std::vector<std::remove_const_t<U>> staged(std::span<U> numbers) const {
    return {numbers.begin(), numbers.end()};
  }
  double* partial_sums() const { return partial_->data(); }  ///< of one sum
  const std::shared_ptr<device_memory>& memory() const { return memory_; }
  friend bool operator==(const machine&, const machine&) = default;

 private:
  key key_;
  std::shared_ptr<device_memory> memory_;
  std::shared_ptr<device_block<double>> partial_;
};

/// Copies between a device and memory of the host, made as late as exec/offload.hpp allows: what is done with
/// numbers that nobody has waited for finds others.
class late_copies {
 public:
  explicit late_copies(std::shared_ptr<device_memory> m) : memory_(std::move(m)) {}
  /// `to` = `from` is due.
  template <class U>
  void add(matrix<const U> from, matrix<U> to) {
    const auto bytes = [](index_t n) { return std::size_t(n) * sizeof(U); };
    for (index_t j = 0; j < from.cols; ++j)
      due_.push_back({from.data + j * from.stride, to.data + j * to.stride, bytes(from.rows)});
  }
  /// Makes what is due, in order.
  void make() {
    const device_memory::access open(*memory_);
    for (const copy& c : due_) std::memcpy(c.to, c.from, c.bytes);
    due_.clear();
  }

 private:
  struct copy {
    const void* from;
    void* to;
    std::size_t bytes;
  };
  std::shared_ptr<device_memory> memory_;
  std::vector<copy> due_;
};

/// The executor that runs the kernel bodies of a device on the host: numbers<float>, numbers<bf16>,
/// numbers<float, bf16>. With it a model, its layouts, arenas and batches are tested without a device, under
/// sanitizers, which also find host code that touches memory of the device. The key permutes blocks, threads,
/// warps and lanes, which changes no bit. Copies share the device's memory.
template <class N>
class executor : public exec::body_executor<N, machine> {
 public:
  template <class U, class Space = plain_space>
  using block = device_block<U, Space>;
  /// Numbers in memory of the host, see exec/offload.hpp.
  template <class U>
  using host_block = unroll::buffer<U>;

  explicit executor(key order = {})
      : exec::body_executor<N, machine>(simt::machine(order)),
        copies_(std::make_shared<late_copies>(this->machine().memory())) {}

  template <class U, class Space = plain_space>
  block<U, Space> allocate(index_t n) const {
    return block<U, Space>(n, this->machine().memory());
  }
  template <class U>
  void upload(const U* from, index_t n, U* here) const {
    const device_memory::access open(*this->machine().memory());
    std::copy_n(from, n, here);
  }
  template <class U>
  void download(const U* here, index_t n, U* to) const {
    const device_memory::access open(*this->machine().memory());
    std::copy_n(here, n, to);
  }
  void synchronise() const { copies_->make(); }

  /// n zeros U in memory of the host.
  template <class U>
  host_block<U> host_allocate(index_t n) const {
    return host_block<U>(n);
  }
  /// here = from, of the host, as late as may be.
  template <class U>
  void bring(matrix<const U> from, matrix<U> here) const {
    copies_->add(from, here);
  }
  /// The other way.
  template <class U>
  void take(matrix<const U> here, matrix<U> to) const {
    copies_->add(here, to);
  }
  void wait_for_copies() const { copies_->make(); }  ///< makes those that are due

  friend bool operator==(const executor& a, const executor& b) { return a.machine() == b.machine(); }

 private:
  std::shared_ptr<late_copies> copies_;
};

}  // namespace unroll::testing::simt
