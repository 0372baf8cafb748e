// Llamas of the programs on a CUDA device.
#include <unroll/cuda/stream.hpp>

#include "../support/device_model_on.hpp"

namespace program {

namespace {

struct cuda_device {
  int index;

  std::string name() const {
    cudaDeviceProp p = {};
    unroll::cuda::check(cudaGetDeviceProperties(&p, index), "cuda_llama", "cudaGetDeviceProperties");
    return "cuda:" + std::to_string(index) + ", " + p.name;
  }
  double free_bytes() const {
    std::size_t free = 0, all = 0;
    unroll::cuda::check(cudaMemGetInfo(&free, &all), "cuda_llama", "cudaMemGetInfo");
    return double(free);
  }
};
template <class N>
std::unique_ptr<device_llama> made(int index) {
  using E = unroll::cuda::stream<N>;
  return std::make_unique<llama_on<E, cuda_device>>(E(index, {.early = true}), cuda_device{index});
}

}  // namespace

int cuda_devices() {
  int n = 0;
  unroll::cuda::check(cudaGetDeviceCount(&n), "cuda_llama", "cudaGetDeviceCount");
  return n;
}
std::unique_ptr<device_llama> cuda_llama(int index, bool half) {
  return half ? made<unroll::numbers<unroll::bf16>>(index) : made<unroll::numbers<float>>(index);
}

}  // namespace program
