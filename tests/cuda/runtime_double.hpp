#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

// A double of the CUDA runtime for tests on the host: memory is the host's, streams run when somebody waits,
// one of them as far ahead of the others as events let it. For a program that is not linked with the runtime.
namespace runtime_double {

struct event {
  int device = 0;
  long recorded = 0, reached = 0;  // times
};
struct stream {
  int device = 0;
  std::deque<std::function<bool()>> work = {};  // false: waits
};

inline int current = 0;
inline std::vector<int> synchronised;  // devices, one a call of cudaDeviceSynchronize
inline std::vector<stream*> streams;   // in the order in which they were made
inline std::vector<int> order;         // streams by their numbers: the first one runs ahead; empty: as made
inline std::vector<std::string> log;   // copies, as they happen: "1: take 3" for three bytes in stream 1

/// Runs all streams until nothing is left, each one as far as it can in front of the next.
inline void run() {
  std::vector<stream*> all;
  for (const int i : order) all.push_back(streams[std::size_t(i)]);
  for (stream* s : streams)
    if (std::find(all.begin(), all.end(), s) == all.end()) all.push_back(s);
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
  auto* s = reinterpret_cast<stream*>(in);
  s->work.push_back([=] {
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
const char* cudaGetErrorName(cudaError_t) { return "an error"; }
const char* cudaGetErrorString(cudaError_t) { return "of the double"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* all) {
  *free = *all = 0;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t n) {
  *p = std::malloc(n);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, std::size_t n) { return cudaMallocHost(p, n); }
cudaError_t cudaFree(void* p) { return cudaFreeHost(p); }
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
  return cudaSuccess;
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
  auto* in = reinterpret_cast<runtime_double::stream*>(s);
  if (of->device != in->device) return cudaErrorInvalidResourceHandle;
  const long time = ++of->recorded;
  in->work.push_back([of, time] {
    of->reached = time;
    return true;
  });
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  auto* of = reinterpret_cast<runtime_double::event*>(e);
  const long time = of->recorded;
  reinterpret_cast<runtime_double::stream*>(s)->work.push_back([of, time] { return of->reached >= time; });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  runtime_double::run();
  return cudaSuccess;
}

}  // extern "C"
