#pragma once

#include <string>

#include "unroll/cuda/check.hpp"
#include "unroll/cuda/context.hpp"

namespace unroll::cuda {

/// Every block of a body.
template <class Body>
__global__ void __launch_bounds__(Body::threads) run_body(const __grid_constant__ Body body) {
  alignas(128) extern __shared__ unsigned char unroll_shared_memory[];
  context c(index_t(blockIdx.x), unroll_shared_memory, Body::threads);
  body(c);
}

/// Enqueues all blocks of a body. Throws device_error where the launch fails; what fails while it runs is
/// reported by the next synchronisation.
template <class Body>
void launch(const Body& body, cudaStream_t stream = nullptr) {
  const index_t blocks = body.blocks(), bytes = body.shared_bytes();
  if (blocks == 0) return;
  if (blocks > 0x7fffffff)
    fail("cuda::launch", "blocks", "are " + std::to_string(blocks) + ", a grid has at most 2147483647");
  constexpr index_t without_asking = 48 * 1024;
  if (bytes > without_asking)
    check(cudaFuncSetAttribute(run_body<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
          "cuda::launch", "cudaFuncSetAttribute(shared memory)");
  run_body<Body><<<unsigned(blocks), unsigned(Body::threads), std::size_t(bytes), stream>>>(body);
  check(cudaGetLastError(), "cuda::launch", "kernel launch");
}

}  // namespace unroll::cuda
