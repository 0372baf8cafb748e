#pragma once

#include <vector>

#include "unroll/exec/body_executor.hpp"
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

/// The executor that runs the kernel bodies of a device on the host: numbers<float>, numbers<bf16>,
/// numbers<float, bf16>. With it a model, its layouts, arenas and batches are tested without a device, under
/// sanitizers, which also find host code that touches memory of the device. The key permutes blocks, threads,
/// warps and lanes, which changes no bit. Copies share the device's memory.
template <class N>
class executor : public exec::body_executor<N, machine> {
 public:
  template <class U, class Space = plain_space>
  using block = device_block<U, Space>;

  explicit executor(key order = {}) : exec::body_executor<N, machine>(simt::machine(order)) {}

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
  void synchronise() const {}

  friend bool operator==(const executor& a, const executor& b) { return a.machine() == b.machine(); }
};

}  // namespace unroll::testing::simt
