// What the executor of a device says where there is none, or it is of no use, over a double of the CUDA
// runtime: the call, what was found and what is needed.
#define __CUDA_ARCH_LIST__ 800, 900  // as nvcc has it
#include "tests/cuda/device_double.hpp"

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda/host_program.hpp"
#include "tests/cuda/runtime_double.hpp"
#include "unroll/cuda/stream.hpp"

namespace unroll::cuda {
alignas(1024) unsigned char unroll_shared_memory[1024];  // of run_body, which does not run
}
using namespace unroll;
using host_program::expect;
using host_program::thrown;
using E = cuda::stream<numbers<float>>;

namespace {

/// f throws a text with every one of `parts` in it, while calls of `name` return `status`.
template <class F>
void refused(const char* name, cudaError_t status, std::vector<std::string> parts, F&& f) {
  if (status != cudaSuccess) runtime_double::fails_with[name] = status;
  const std::string said = thrown(f);
  runtime_double::fails_with.clear();
  for (const std::string& part : parts)
    expect(said.find(part) != said.npos, std::string(name) + ": \"" + said + "\" lacks \"" + part + "\"");
}
void made() { const E e(0, {.library = false}); }

void devices() {
  runtime_double::devices = 0;
  refused("cudaGetDeviceCount", cudaErrorNoDevice,
          {"cuda::use_device: cudaGetDeviceCount: cudaErrorNoDevice (of the double): the driver offers CUDA "
           "13.0"},
          made);
  runtime_double::driver = 0;
  refused("cudaGetDeviceCount", cudaErrorInsufficientDriver,
          {"cudaErrorInsufficientDriver", "the driver offers nothing, this program needs CUDA 13.0"}, made);
  runtime_double::driver = 12040;
  refused("cudaGetDeviceCount", cudaErrorInsufficientDriver,
          {"cudaErrorInsufficientDriver", "the driver offers CUDA 12.4, this program needs CUDA 13.0"}, made);
  runtime_double::fails_with["cudaGetDeviceCount"] = cudaErrorNoDevice;
  expect(cuda::device_count() == 0, "no device to be counted");
  runtime_double::fails_with.clear();
  runtime_double::driver = 13000, runtime_double::devices = 2;
  refused("an index", cudaSuccess, {"cuda::use_device: index: is 2, there are 2"},
          [] { const E e(2, {.library = false}); });
  refused("an index below 0", cudaSuccess, {"index: is -1"}, [] { const E e(-1, {.library = false}); });
  runtime_double::capability = 75;
  refused("an old device", cudaSuccess,
          {"cuda::use_device: device 0: has compute capability 7.5, at least 8.0 is needed"}, made);
  runtime_double::capability = 120;
  for (const cudaError_t status : {cudaErrorNoKernelImageForDevice, cudaErrorInvalidDeviceFunction})
    refused("cudaFuncGetAttributes", status,
            {"cuda::stream: cudaFuncGetAttributes",
             "device 0 has compute capability 12.0, this program was compiled for 8.0, 9.0"},
            made);
  runtime_double::capability = 90;
}

void memory() {
  runtime_double::free_bytes = 3 << 20;
  refused("cudaMalloc", cudaSuccess,
          {"cuda::device_block: staging: cudaErrorMemoryAllocation: needs 16777216 bytes, 3145728 of "
           "1099511627776 are free"},
          made);
  runtime_double::free_bytes = std::size_t{1} << 40;
  refused("cudaMallocHost", cudaErrorMemoryAllocation,
          {"cuda::pinned_block: cudaMallocHost of 16777216 bytes: cudaErrorMemoryAllocation"}, made);
  const E e(0, {.library = false});
  runtime_double::free_bytes = 100;
  refused("allocate", cudaSuccess, {"needs 400 bytes, 100 of"}, [&] { e.allocate<float>(100); });
  runtime_double::free_bytes = std::size_t{1} << 40;
}

void launches() {
  const E e(0, {.library = false});
  auto x = e.allocate<float>(8);
  const auto fill = [&] { e.fill(matrix<float>(x.data(), 8, 1), 1); };
  refused("cudaLaunchKernel", cudaErrorLaunchFailure,
          {"cuda::launch: kernel launch: cudaErrorLaunchFailure (of the double)"}, fill);
  fill();
  refused("cudaStreamSynchronize", cudaErrorLaunchFailure,
          {"cuda::stream_handle: cudaStreamSynchronize: cudaErrorLaunchFailure"}, [&] { e.synchronise(); });
  // what was to be downloaded is dropped, and a later download is one
  float to[2] = {5, 5};
  e.download(x.data(), 1, to);
  refused("cudaStreamSynchronize", cudaErrorLaunchFailure, {"cudaStreamSynchronize"},
          [&] { e.synchronise(); });
  e.download(x.data() + 1, 1, to + 1);
  e.synchronise();
  expect(to[0] == 5 && to[1] == 0, "a download in front of what failed is dropped");
  refused("blocks", cudaSuccess, {"cuda::launch: blocks: are 2147483648, a grid has at most 2147483647"},
          [&] { e.fill(matrix<float>(x.data(), 1, index_t{1} << 31), 1); });
}

void libraries() {
  setenv("UNROLL_CUBLASLT", "/there/is/no/libcublasLt.so", 1);
  refused("UNROLL_CUBLASLT", cudaSuccess,
          {"cuda::cublaslt: UNROLL_CUBLASLT names /there/is/no/libcublasLt.so: ",
           "cannot open shared object file"},
          [] { const E e; });
  expect(cuda::cublaslt_library::missing().find("cannot open") != std::string::npos, "what is missing");
  setenv("UNROLL_CUBLASLT", "libdl.so.2", 1);
  refused("UNROLL_CUBLASLT", cudaSuccess, {"cuda::cublaslt: dlsym in libdl.so.2: has no cublasLtCreate"},
          [] { const E e; });
  unsetenv("UNROLL_CUBLASLT");
  expect(!E(0, {.library = false}).has_library(), "without a library");
}

}  // namespace

int main() {
  devices();
  memory();
  launches();
  libraries();
  return host_program::end("refusals");
}
