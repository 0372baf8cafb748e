#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

// A double of the CUDA runtime for tests on the host: memory is the host's, streams run when somebody waits,
// one of them as far ahead of the others as events let it. A capture notes what its streams are given, in
// order, and refuses what CUDA refuses. For a program that is not linked with the runtime.
namespace runtime_double {

using operation = std::function<bool()>;  // false: waits
struct graph {
  std::vector<operation> nodes = {};
};
struct capture {
  graph of = {};
  bool open = true;
};
struct stream;
struct event {
  int device = 0;
  long recorded = 0, reached = 0;  // times
  std::shared_ptr<capture> in = {};
  stream* of = nullptr;
};
struct stream {
  int device = 0;
  std::deque<operation> work = {};
  std::shared_ptr<capture> in = {};  // that it belongs to
  bool joined = true;                // whether the capture's first stream has waited for it
};

inline int current = 0;
inline std::vector<int> synchronised;  // devices, one a call of cudaDeviceSynchronize
inline std::vector<int> freed;         // devices, one a call of cudaFree
inline std::vector<stream*> streams;   // in the order in which they were made
inline std::vector<int> order;         // streams by their numbers: the first one runs ahead; empty: as made
inline std::string refused;            // the next call of that name fails
inline int devices = 2, driver = 13000, capability = 90;    // what there is; of every device
inline std::size_t free_bytes = std::size_t{1} << 40;       // of every device
inline std::map<std::string, cudaError_t> fails_with = {};  // what calls of these names return
inline std::vector<std::string> log;  // copies, as they happen: "1: take 3" for three bytes in stream 1

inline stream of_default;
inline stream* of(cudaStream_t s) { return s ? reinterpret_cast<stream*>(s) : &of_default; }
inline bool refuses(const char* name) {
  const bool now = refused == name;
  if (now) refused.clear();
  return now;
}
/// What a call returns, success unless a test says otherwise.
inline cudaError_t status_of(const char* name) {
  const auto at = fails_with.find(name);
  return at == fails_with.end() ? cudaSuccess : at->second;
}
/// Behind what the stream has, or into its capture.
inline void enqueue(stream* s, operation what) {
  if (s->in)
    s->in->of.nodes.push_back(std::move(what));
  else
    s->work.push_back(std::move(what));
}
/// The capture that begins with a stream is over: what it noted, or nothing where a stream has not come back.
inline graph* end_capture(stream* first) {
  const auto ended = first->in;
  bool all = true;
  for (stream* s : streams)
    if (s->in == ended) {
      all = all && (s == first || s->joined);
      s->in = nullptr;
    }
  ended->open = false;
  return all ? new graph(ended->of) : nullptr;
}

/// Runs all streams until nothing is left, each one as far as it can in front of the next.
inline void run() {
  std::vector<stream*> all;
  for (const int i : order) all.push_back(streams[std::size_t(i)]);
  for (stream* s : streams)
    if (std::find(all.begin(), all.end(), s) == all.end()) all.push_back(s);
  all.push_back(&of_default);
  for (bool some = true; some;) {
    some = false;
    for (stream* s : all) {
      if (!s->work.empty() && s->work.front()()) {
        s->work.pop_front();
        some = true;
        break;  // the first one again
      }
    }
  }
  for (stream* s : all)
    if (!s->work.empty()) std::abort();  // waits for ever
}

inline cudaError_t copy(void* to, std::size_t to_stride, const void* from, std::size_t from_stride,
                        std::size_t bytes, std::size_t columns, cudaMemcpyKind kind, cudaStream_t in) {
  auto* s = of(in);
  enqueue(s, [=] {
    for (std::size_t j = 0; j < columns; ++j)
      std::memcpy(static_cast<char*>(to) + j * to_stride, static_cast<const char*>(from) + j * from_stride,
                  bytes);
    const auto number = std::find(streams.begin(), streams.end(), s) - streams.begin();
    log.push_back(std::to_string(number) + (kind == cudaMemcpyHostToDevice ? ": bring " : ": take ") +
                  std::to_string(bytes * columns));
    return true;
  });
  return cudaSuccess;
}

}  // namespace runtime_double

extern "C" {

cudaError_t cudaGetDevice(int* device) {
  *device = runtime_double::current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  runtime_double::current = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  runtime_double::synchronised.push_back(runtime_double::current);
  runtime_double::run();
  return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaErrorNoDevice                 ? "cudaErrorNoDevice"
         : e == cudaErrorInsufficientDriver     ? "cudaErrorInsufficientDriver"
         : e == cudaErrorNoKernelImageForDevice ? "cudaErrorNoKernelImageForDevice"
         : e == cudaErrorMemoryAllocation       ? "cudaErrorMemoryAllocation"
         : e == cudaErrorLaunchFailure          ? "cudaErrorLaunchFailure"
                                                : "an error";
}
const char* cudaGetErrorString(cudaError_t) { return "of the double"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* n) {
  *n = runtime_double::devices;
  return runtime_double::status_of("cudaGetDeviceCount");
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = runtime_double::driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  const bool major = which == cudaDevAttrComputeCapabilityMajor;
  *value = major ? runtime_double::capability / 10 : runtime_double::capability % 10;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  a->ptxVersion = 80;
  return runtime_double::status_of("cudaFuncGetAttributes");
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  return runtime_double::status_of("cudaFuncSetAttribute");
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) {
  return runtime_double::status_of("cudaLaunchKernel");
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* all) {
  *free = runtime_double::free_bytes;
  *all = std::size_t{1} << 40;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t n) {
  if (const cudaError_t status = runtime_double::status_of("cudaMallocHost")) return status;
  *p = std::malloc(n);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, std::size_t n) {
  if (n > runtime_double::free_bytes) return cudaErrorMemoryAllocation;
  *p = std::malloc(n);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  runtime_double::freed.push_back(runtime_double::current);
  return cudaFreeHost(p);
}
cudaError_t cudaMemset(void* p, int value, std::size_t n) {
  std::memset(p, value, n);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t n, cudaMemcpyKind) {
  std::memcpy(to, from, n);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n, cudaMemcpyKind kind, cudaStream_t in) {
  return runtime_double::copy(to, n, from, n, n, 1, kind, in);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_stride, const void* from, std::size_t from_stride,
                              std::size_t bytes, std::size_t columns, cudaMemcpyKind kind, cudaStream_t in) {
  return runtime_double::copy(to, to_stride, from, from_stride, bytes, columns, kind, in);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  auto* made = new runtime_double::stream{runtime_double::current};
  runtime_double::streams.push_back(made);
  *s = reinterpret_cast<cudaStream_t>(made);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  auto& all = runtime_double::streams;
  auto* of = reinterpret_cast<runtime_double::stream*>(s);
  all.erase(std::find(all.begin(), all.end(), of));
  delete of;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  runtime_double::run();
  return runtime_double::status_of("cudaStreamSynchronize");
}
cudaError_t cudaEventCreate(cudaEvent_t* e) {
  *e = reinterpret_cast<cudaEvent_t>(new runtime_double::event{runtime_double::current});
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete reinterpret_cast<runtime_double::event*>(e);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  auto* of = reinterpret_cast<runtime_double::event*>(e);
  auto* in = runtime_double::of(s);
  if (of->device != in->device) return cudaErrorInvalidResourceHandle;
  of->in = in->in;
  of->of = in;
  if (of->in) return cudaSuccess;
  const long time = ++of->recorded;
  in->work.push_back([of, time] {
    of->reached = time;
    return true;
  });
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  auto* of = reinterpret_cast<runtime_double::event*>(e);
  auto* in = runtime_double::of(s);
  if (of->in && !of->in->open) return cudaErrorCapturedEvent;
  if (!of->in && in->in) return cudaErrorStreamCaptureIsolation;
  if (of->in) {
    if (!in->in) in->joined = false;
    in->in = of->in;
    of->of->joined = true;
    return cudaSuccess;
  }
  const long time = of->recorded;
  in->work.push_back([of, time] { return of->reached >= time; });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  if (reinterpret_cast<runtime_double::event*>(e)->in) return cudaErrorCapturedEvent;
  runtime_double::run();
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  *ms = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  if (!s) return cudaErrorStreamCaptureUnsupported;
  runtime_double::of(s)->in = std::make_shared<runtime_double::capture>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* out) {
  auto* made = runtime_double::end_capture(runtime_double::of(s));
  if (runtime_double::refuses("cudaStreamEndCapture")) {
    delete made;
    made = nullptr;
  }
  *out = reinterpret_cast<cudaGraph_t>(made);
  return made ? cudaSuccess : cudaErrorStreamCaptureUnjoined;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete reinterpret_cast<runtime_double::graph*>(g);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long) {
  *out = reinterpret_cast<cudaGraphExec_t>(
      new runtime_double::graph(*reinterpret_cast<runtime_double::graph*>(g)));
  return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t to, cudaGraph_t g, cudaGraphExecUpdateResultInfo*) {
  if (runtime_double::refuses("cudaGraphExecUpdate")) return cudaErrorGraphExecUpdateFailure;
  *reinterpret_cast<runtime_double::graph*>(to) = *reinterpret_cast<runtime_double::graph*>(g);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
  delete reinterpret_cast<runtime_double::graph*>(g);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
  runtime_double::log.push_back("graph");
  for (const auto& node : reinterpret_cast<runtime_double::graph*>(g)->nodes)
    runtime_double::of(s)->work.push_back(node);
  return cudaSuccess;
}

}  // extern "C"

// What nvcc alone is given of the runtime's C++.
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, Kernel* kernel) {
  return cudaFuncGetAttributes(a, reinterpret_cast<const void*>(kernel));
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute which, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), which, value);
}
