#pragma once

#include <dlfcn.h>
#include <nccl.h>

#include <cstdlib>
#include <exception>
#include <string>

#include "unroll/cuda/check.hpp"
#include "unroll/ranks/ranks.hpp"

namespace unroll::cuda {

/// The functions of NCCL 2.7 or later, found when the program runs: UNROLL_NCCL names the file; where it is
/// unset or empty, libnccl.so.2 in the loader's usual places.
class nccl_library {
 public:
  /// The library, loaded once a process. Throws device_error with what was tried.
  static const nccl_library& get() {
    static const nccl_library library;
    return library;
  }

// clang-format off
#define UNROLL_NCCL_FUNCTIONS(each) \
  each(GetVersion) \
  each(GetUniqueId) \
  each(CommInitRank) \
  each(CommAbort) \
  each(CommDestroy) \
  each(GetErrorString) \
  each(Send) \
  each(Recv) \
  each(Broadcast)
// clang-format on
#define UNROLL_NCCL_MEMBER(name) decltype(&::nccl##name) name = nullptr;
  UNROLL_NCCL_FUNCTIONS(UNROLL_NCCL_MEMBER)
#undef UNROLL_NCCL_MEMBER

  /// Throws device_error unless `result`, of the call so named, is success.
  void check(ncclResult_t result, const char* call) const {
    if (result != ncclSuccess) fail_device("cuda::nccl", call, GetErrorString(result));
  }
  /// 10000 major + 100 minor + patch.
  int version() const {
    int v = 0;
    check(GetVersion(&v), "ncclGetVersion");
    return v;
  }

 private:
  nccl_library() {
    const char* const named = std::getenv("UNROLL_NCCL");
    const std::string file = named && *named ? named : "libnccl.so.2";
    void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) fail_device("cuda::nccl", "dlopen " + file, dlerror());
    const auto find = [&]<class F>(F& f, const char* name) {
      f = reinterpret_cast<F>(dlsym(handle, name));
      if (!f) fail_device("cuda::nccl", "dlsym in " + file, std::string("has no ") + name);
    };
#define UNROLL_NCCL_FIND(name) find(name, "nccl" #name);
    UNROLL_NCCL_FUNCTIONS(UNROLL_NCCL_FIND)
#undef UNROLL_NCCL_FIND
#undef UNROLL_NCCL_FUNCTIONS
  }
};

/// The ranks of several devices, one a process: a communicator whose bytes lie on the devices. Its calls are
/// enqueued on a stream and return, so that ranks::in_order(view<T>(sum, n), add), with an add that enqueues
/// on the same stream, adds gradients in the order of the documents without waiting: NCCL moves bytes only,
/// and the bits are those of one device. What looks at a number (ranks::any, check_same, a number or text
/// broadcast) is for the ranks of the host.
///
/// Unproven: compiled, and loaded, but never run between two devices.
class nccl_ranks final {
 public:
  /// For the ranks of `host`, over which the devices find each other, on a stream of the calling thread's
  /// device. All make it at once. Throws device_error where NCCL is missing or refuses.
  nccl_ranks(const ranks& host, cudaStream_t stream)
      : nccl_(nccl_library::get()), rank_(host.rank()), size_(host.size()), stream_(stream) {
    ncclUniqueId id{};
    if (host.first()) nccl_.check(nccl_.GetUniqueId(&id), "ncclGetUniqueId");
    host.broadcast(0, view<char>(id.internal, NCCL_UNIQUE_ID_BYTES));
    nccl_.check(nccl_.CommInitRank(&all_, int(size_), id, int(rank_)), "ncclCommInitRank");
  }
  nccl_ranks(const nccl_ranks&) = delete;
  nccl_ranks& operator=(const nccl_ranks&) = delete;
  /// Waits for what is enqueued; of a program that is ended by an exception, for nothing.
  ~nccl_ranks() {
    if (std::uncaught_exceptions() > exceptions_)
      nccl_.CommAbort(all_);
    else
      nccl_.CommDestroy(all_);
  }

  index_t rank() const { return rank_; }  ///< of this process
  index_t size() const { return size_; }  ///< how many there are

  /// See communicator; n bytes of the device.
  void send(index_t to, const void* bytes, std::size_t n) {
    nccl_.check(nccl_.Send(bytes, n, ncclInt8, int(to), all_, stream_), "ncclSend");
  }
  /// See communicator; n bytes of the device.
  void receive(index_t from, void* bytes, std::size_t n) {
    nccl_.check(nccl_.Recv(bytes, n, ncclInt8, int(from), all_, stream_), "ncclRecv");
  }
  /// See communicator; n bytes of the device.
  void broadcast(index_t root, void* bytes, std::size_t n) {
    nccl_.check(nccl_.Broadcast(bytes, bytes, n, ncclInt8, int(root), all_, stream_), "ncclBroadcast");
  }

 private:
  const nccl_library& nccl_;
  index_t rank_, size_;
  cudaStream_t stream_;
  ncclComm_t all_ = nullptr;
  int exceptions_ = std::uncaught_exceptions();
};

static_assert(communicator<nccl_ranks>);

}  // namespace unroll::cuda
