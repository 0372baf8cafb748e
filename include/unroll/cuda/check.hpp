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

/// The name of an error and what it means.
inline std::string error_text(cudaError_t status) {
  std::string text = cudaGetErrorName(status);
  return text.append(" (").append(cudaGetErrorString(status)).append(")");
}

/// Throws device_error unless `status` is success. An error of an earlier kernel is reported by the next call
/// that notices it.
inline void check(cudaError_t status, std::string_view function, std::string_view call) {
  if (status != cudaSuccess) fail_device(function, call, error_text(status));
}

/// The devices that a driver shows; 0 where there is no driver, which is no error.
inline int device_count() {
  int n = 0;
  if (cudaGetDeviceCount(&n) == cudaSuccess) return n;
  cudaGetLastError();
  return 0;
}

/// 10 major + minor of a device.
inline int compute_capability(int device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cuda::compute_capability",
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cuda::compute_capability",
        "cudaDeviceGetAttribute");
  return 10 * major + minor;
}

namespace detail {

inline std::string capability_text(int capability) {
  return std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

/// Throws where `status`, of a question about a kernel or of its first launch, says that the program has no
/// code for a device: what it is, and what the program was compiled for.
inline void check_has_code(cudaError_t status, int device, std::string_view function, std::string_view call) {
  if (status != cudaErrorNoKernelImageForDevice && status != cudaErrorInvalidDeviceFunction &&
      status != cudaErrorUnsupportedPtxVersion)
    return check(status, function, call);
  std::string all;
#if defined(__CUDA_ARCH_LIST__)
  for (const int arch : {__CUDA_ARCH_LIST__})
    all.append(all.empty() ? ", this program was compiled for " : ", ").append(capability_text(arch / 10));
#endif
  fail_device(function, call,
              error_text(status) + ": device " + std::to_string(device) + " has compute capability " +
                  capability_text(compute_capability(device)) + all);
}

}  // namespace detail

/// Makes device `index` the calling thread's. Throws where there is none, the driver is too old, or the
/// device is older than compute capability 8.0, with what was found and what is needed.
inline void use_device(int index) {
  int n = 0, driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  if (const cudaError_t status = cudaGetDeviceCount(&n); status != cudaSuccess)
    fail_device("cuda::use_device", "cudaGetDeviceCount",
                error_text(status) + ": the driver offers " +
                    (driver ? "CUDA " + version(driver) : "nothing") + ", this program needs CUDA " +
                    version(runtime));
  if (index < 0 || index >= n)
    fail("cuda::use_device", "index", "is " + std::to_string(index) + ", there are " + std::to_string(n));
  if (const int capability = compute_capability(index); capability < 80)
    fail_device("cuda::use_device", "device " + std::to_string(index),
                "has compute capability " + detail::capability_text(capability) + ", at least 8.0 is needed");
  check(cudaSetDevice(index), "cuda::use_device", "cudaSetDevice");
}

}  // namespace unroll::cuda
