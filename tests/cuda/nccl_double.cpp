// What cuda/nccl.hpp calls of NCCL, between threads of one process and over memory of the host: a library for
// UNROLL_NCCL. Like NCCL it takes counts in elements of the type given, needs a matching call, and refuses
// ranks that there are not.
#include <nccl.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace {

struct room {
  std::map<std::pair<int, int>, std::deque<std::string>> sent;  // from, to
};
std::mutex mutex;
std::condition_variable changed;
std::map<std::string, std::shared_ptr<room>> rooms;

std::size_t bytes_of(std::size_t count, ncclDataType_t type) { return type == ncclInt8 ? count : 4 * count; }

}  // namespace

struct ncclComm {
  std::shared_ptr<room> all;
  int rank, size;
};

ncclResult_t ncclGetVersion(int* version) { return *version = 20700, ncclSuccess; }
const char* ncclGetErrorString(ncclResult_t) { return "refused by the double"; }
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int made = 0;
  const std::lock_guard lock(mutex);
  std::memset(id->internal, 0, sizeof id->internal);
  id->internal[0] = 'n', id->internal[NCCL_UNIQUE_ID_BYTES - 1] = char(++made);
  rooms[std::string(id->internal, sizeof id->internal)] = std::make_shared<room>();
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  const std::lock_guard lock(mutex);
  const auto at = rooms.find(std::string(id.internal, sizeof id.internal));
  if (at == rooms.end() || rank < 0 || rank >= size) return ncclInvalidArgument;
  *comm = new ncclComm{at->second, rank, size};
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) { return delete comm, ncclSuccess; }
ncclResult_t ncclCommAbort(ncclComm_t comm) { return delete comm, ncclSuccess; }
ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t) {
  if (peer < 0 || peer >= comm->size || peer == comm->rank) return ncclInvalidArgument;
  const std::lock_guard lock(mutex);
  comm->all->sent[{comm->rank, peer}].emplace_back(static_cast<const char*>(from), bytes_of(count, type));
  changed.notify_all();
  return ncclSuccess;
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t) {
  if (peer < 0 || peer >= comm->size || peer == comm->rank) return ncclInvalidArgument;
  std::unique_lock lock(mutex);
  auto& messages = comm->all->sent[{peer, comm->rank}];
  changed.wait(lock, [&] { return !messages.empty(); });
  if (messages.front().size() != bytes_of(count, type)) return ncclInvalidUsage;
  std::memcpy(to, messages.front().data(), messages.front().size());
  messages.pop_front();
  return ncclSuccess;
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  if (root < 0 || root >= comm->size) return ncclInvalidArgument;
  if (comm->rank != root) return ncclRecv(to, count, type, root, comm, stream);
  for (int peer = 0; peer < comm->size; ++peer)
    if (peer != root) ncclSend(from, count, type, peer, comm, stream);
  std::memmove(to, from, bytes_of(count, type));
  return ncclSuccess;
}
