#pragma once

#include <string>

#include "unroll/cuda/check.hpp"
#include "unroll/cuda/context.hpp"

namespace unroll::cuda {

namespace detail {

/// In front of a kernel: waits until what the stream has in front of it is done, where the kernel was
/// launched before that, and lets the next one be launched so. Without Hopper's instructions kernels wait
/// anyway.
__device__ inline void begin_in_order() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace detail

/// Every block of a body.
template <class Body>
__global__ void __launch_bounds__(Body::threads) run_body(const __grid_constant__ Body body) {
  alignas(1024) extern __shared__ unsigned char unroll_shared_memory[];
  if constexpr (requires { body.prefetch(index_t(0), 0); })
    body.prefetch(index_t(blockIdx.x), int(threadIdx.x));
  detail::begin_in_order();
  context c(index_t(blockIdx.x), unroll_shared_memory, Body::threads);
  body(c);
}

/// Enqueues all blocks of a body. `early`, from compute capability 9.0 on: they are brought to their
/// processors while the kernel in front ends, and wait for it there. Throws device_error where the launch
/// fails; what fails while it runs is reported by the next synchronisation.
template <class Body>
void launch(const Body& body, cudaStream_t stream = nullptr, bool early = false) {
  const index_t blocks = body.blocks(), bytes = kernels::shared_bytes_of(body);
  if (blocks == 0) return;
  if (blocks > 0x7fffffff)
    fail("cuda::launch", "blocks", "are " + std::to_string(blocks) + ", a grid has at most 2147483647");
  constexpr index_t without_asking = 48 * 1024;
  if (bytes > without_asking)
    check(cudaFuncSetAttribute(run_body<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
          "cuda::launch", "cudaFuncSetAttribute(shared memory)");
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t how = {};
  how.gridDim = dim3(unsigned(blocks));
  how.blockDim = dim3(unsigned(Body::threads));
  how.dynamicSmemBytes = std::size_t(bytes);
  how.stream = stream;
  how.attrs = &attribute;
  how.numAttrs = early ? 1 : 0;
  check(cudaLaunchKernelEx(&how, run_body<Body>, body), "cuda::launch", "kernel launch");
}

}  // namespace unroll::cuda
