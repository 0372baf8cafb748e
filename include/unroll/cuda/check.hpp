#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "unroll/core/error.hpp"

namespace unroll::cuda {

/// What a device or one of its libraries refused: "function: call: what it said".
class device_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws device_error "function: call: message".
[[noreturn]] inline void fail_device(std::string_view function, std::string_view call,
                                     std::string_view message) {
  std::string text(function);
  text.append(": ").append(call).append(": ").append(message);
  throw device_error(text);
}

/// Throws device_error unless `status` is success. An error of an earlier kernel is reported by the next call
/// that notices it.
inline void check(cudaError_t status, std::string_view function, std::string_view call) {
  if (status == cudaSuccess) return;
  std::string text = cudaGetErrorName(status);
  text.append(" (").append(cudaGetErrorString(status)).append(")");
  fail_device(function, call, text);
}

/// The devices that a driver shows; 0 where there is no driver, which is no error.
inline int device_count() {
  int n = 0;
  if (cudaGetDeviceCount(&n) == cudaSuccess) return n;
  cudaGetLastError();
  return 0;
}

/// Makes device `index` the calling thread's. Throws where there is none, the driver is too old, or the
/// device is older than compute capability 8.0, with what was found and what is needed.
inline void use_device(int index) {
  int n = 0, driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  if (const cudaError_t status = cudaGetDeviceCount(&n); status != cudaSuccess)
    fail_device("cuda::use_device", "cudaGetDeviceCount",
                std::string(cudaGetErrorName(status)) + ": the driver offers CUDA " +
                    (driver ? version(driver) : "nothing") + ", this program needs " + version(runtime));
  if (index < 0 || index >= n)
    fail("cuda::use_device", "index", "is " + std::to_string(index) + ", there are " + std::to_string(n));
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "cuda::use_device",
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index), "cuda::use_device",
        "cudaDeviceGetAttribute");
  if (major < 8)
    fail_device("cuda::use_device", "device " + std::to_string(index),
                "has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
                    ", at least 8.0 is needed");
  check(cudaSetDevice(index), "cuda::use_device", "cudaSetDevice");
}

}  // namespace unroll::cuda
