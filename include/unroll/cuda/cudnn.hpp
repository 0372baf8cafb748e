#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <string_view>

#include "unroll/exec/sdpa.hpp"

namespace unroll::cuda {

struct cudnn_options {
  /// Sums in one order: same arguments, same bits. The vjp then takes a workspace of 2 bytes for every pair
  /// of a query and a key of every head.
  bool deterministic = true;
};

/// Attention by cuDNN, 9.6 or later, on one stream: the library of exec/sdpa.hpp. What is not inline here is
/// compiled in the target unroll::cudnn. cuDNN is loaded when it is first asked for: the file that the
/// environment variable UNROLL_CUDNN names, else libcudnn.so.9 in the loader's usual places.
///
/// A shape's first call makes its plan, which takes seconds, for cuDNN compiles its kernel; the plan is kept.
/// One thread at a time uses an object, as it does the stream.
class cudnn final {
 public:
  /// Why cuDNN cannot be used, with what was tried and what is needed; empty: it can. Throws device_error
  /// where UNROLL_CUDNN names a file that is none.
  static std::string missing();
  /// 10000 major + 100 minor + patch of what was loaded.
  static int version();
  /// Bytes of workspace at most, of a shape's sizes, whatever the options. Measured with 9.19 and 9.26 for an
  /// H100; a plan that takes more is refused.
  static index_t workspace_bound(const exec::sdpa_shape& shape);

  /// Of the calling thread's device, enqueues on `stream`; every call makes that device the thread's. Throws
  /// device_error where cuDNN is missing.
  explicit cudnn(cudaStream_t stream, cudnn_options how = {}) : cudnn(stream, current_device(), how) {}
  /// Plans alone, without a device: for the one whose properties cuDNN has written as JSON, of compute
  /// capability `capability`, 90 for 9.0. Whatever enqueues is refused.
  cudnn(std::string_view device_properties, int capability, cudnn_options how = {});
  cudnn(const cudnn&) = delete;
  cudnn& operator=(const cudnn&) = delete;
  ~cudnn();

  /// Why cuDNN does not run a shape; empty: it does. Makes the shape's plan.
  const std::string& refuses(const exec::sdpa_shape& shape);
  /// Bytes of workspace of a shape that it runs.
  index_t workspace(const exec::sdpa_shape& shape);
  /// Its plan of the shape: the engine and its settings.
  std::string plan(const exec::sdpa_shape& shape);
  /// Enqueues; workspace: 256-byte aligned.
  void forward(const exec::sdpa_shape& shape, const exec::sdpa_call& call, void* workspace);
  /// Enqueues the vjp.
  void vjp(const exec::sdpa_shape& shape, const exec::sdpa_vjp_call& call, void* workspace);

 private:
  struct device {
    int index = 0, capability = 0;
    // of the runtime that the caller is linked with
    cudaError_t (*make_current)(int) = nullptr;
    cudaError_t (*get_current)(int*) = nullptr;
  };
  cudnn(cudaStream_t stream, device of, cudnn_options how);
  static device current_device() {
    int index = 0, major = 0, minor = 0;
    cudaGetDevice(&index);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
    return {index, 10 * major + minor, &cudaSetDevice, &cudaGetDevice};
  }
  struct state;
  std::unique_ptr<state> state_;
};

static_assert(exec::sdpa_library<cudnn>);

}  // namespace unroll::cuda
