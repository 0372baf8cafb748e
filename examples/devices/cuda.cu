// Llamas of the programs on a CUDA device.
#include <unroll/cuda/stream.hpp>
#if defined(UNROLL_WITH_CUDNN)
#include <unroll/cuda/cudnn_stream.hpp>
#endif

#include "../support/device_model_on.hpp"

namespace program {

namespace {

struct cuda_device {
  int index;

  std::string name() const {
    cudaDeviceProp p = {};
    unroll::cuda::check(cudaGetDeviceProperties(&p, index), "cuda_llama", "cudaGetDeviceProperties");
    std::string text = "cuda:" + std::to_string(index) + ", " + p.name;
    // what is computed by our kernels for want of a library, which is slower
    if (!unroll::cuda::cublaslt_library::missing().empty()) text += ", without cuBLASLt";
#if defined(UNROLL_WITH_CUDNN)
    if (!unroll::cuda::cudnn::missing().empty()) text += ", without cuDNN";
#endif
    return text;
  }
  double free_bytes() const {
    std::size_t free = 0, all = 0;
    unroll::cuda::check(cudaMemGetInfo(&free, &all), "cuda_llama", "cudaMemGetInfo");
    return double(free);
  }
};
template <class N>
struct executor_of {
  using type = unroll::cuda::stream<N>;
};
#if defined(UNROLL_WITH_CUDNN)
template <>
struct executor_of<unroll::numbers<unroll::bf16>> {
  using type = unroll::cuda::cudnn_stream<unroll::numbers<unroll::bf16>>;
};
#endif
template <class N>
std::unique_ptr<device_llama> made(int index) {
  using E = typename executor_of<N>::type;
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
