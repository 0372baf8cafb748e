// Llamas of the programs on testing::simt: the kernels of a device, run by the host.
#include <unroll/testing/simt/executor.hpp>

#include "../support/device_model_on.hpp"

namespace program {

namespace {

struct host_as_device {
  std::string name() const { return "simt"; }
  double free_bytes() const { return 1e12; }  // for plans of any device
};
template <class N>
std::unique_ptr<device_llama> made() {
  using E = unroll::testing::simt::executor<N>;
  return std::make_unique<llama_on<E, host_as_device>>(E(), host_as_device());
}

}  // namespace

std::unique_ptr<device_llama> simt_llama(bool half) {
  return half ? made<unroll::numbers<unroll::bf16>>() : made<unroll::numbers<float>>();
}

}  // namespace program
