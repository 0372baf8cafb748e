#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

// What device code calls of nvcc, for tests that compile it for the host: it is parsed, and does not run.
#define __launch_bounds__(...)
inline uint3 threadIdx, blockIdx;
inline void __syncwarp() {}
inline void __syncthreads() {}
template <class T>
T __shfl_sync(unsigned, T x, int) {
  return x;
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int) {
  return x;
}
inline unsigned __any_sync(unsigned, int x) { return unsigned(x); }
inline std::size_t __cvta_generic_to_shared(const void* p) { return reinterpret_cast<std::size_t>(p); }
