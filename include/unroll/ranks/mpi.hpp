#pragma once

#include <mpi.h>

#include <algorithm>
#include <exception>
#include <string>

#include "unroll/ranks/ranks.hpp"

namespace unroll {

/// MPI from here to the end of the scope, for calls of one thread at a time. What leaves the scope as an
/// exception ends the other ranks, too, which would wait for this one forever.
class mpi_session final {
 public:
  /// Throws unroll::error where MPI was begun before, or allows calls of the first thread only.
  mpi_session() {
    int begun = 0, allowed = 0;
    MPI_Initialized(&begun);
    if (begun) fail("mpi_session", "MPI_Init", "was called before");
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &allowed);
    if (allowed < MPI_THREAD_SERIALIZED) {
      MPI_Finalize();
      fail("mpi_session", "threads", "this MPI was built for programs of one thread");
    }
  }
  mpi_session(const mpi_session&) = delete;
  mpi_session& operator=(const mpi_session&) = delete;
  ~mpi_session() {
    if (std::uncaught_exceptions() > exceptions_) abort(1);
    MPI_Finalize();
  }
  /// Ends all ranks at once, each with this exit code.
  [[noreturn]] static void abort(int code) {
    MPI_Abort(MPI_COMM_WORLD, code);
    std::terminate();
  }

 private:
  int exceptions_ = std::uncaught_exceptions();
};

/// The ranks of an MPI communicator (MPI 3 or later), machines of one kind: bytes are sent as they lie. Has a
/// copy of the communicator, so that messages do not meet those of others; made and destroyed by all ranks
/// at once, while MPI is there. What MPI cannot deliver ends the program with MPI's own message.
class mpi_ranks final {
 public:
  /// Those of `all`.
  explicit mpi_ranks(MPI_Comm all = MPI_COMM_WORLD) {
    MPI_Comm_dup(all, &all_);
    MPI_Comm_rank(all_, &rank_);
    MPI_Comm_size(all_, &size_);
  }
  mpi_ranks(const mpi_ranks&) = delete;
  mpi_ranks& operator=(const mpi_ranks&) = delete;
  ~mpi_ranks() {
    if (std::uncaught_exceptions() == exceptions_) MPI_Comm_free(&all_);
  }

  index_t rank() const { return rank_; }  ///< of this process
  index_t size() const { return size_; }  ///< how many there are

  /// See communicator.
  void send(index_t to, const void* bytes, std::size_t n) {
    in_parts(n, [&](std::size_t at, int count) {
      MPI_Send(static_cast<const char*>(bytes) + at, count, MPI_BYTE, int(to), 0, all_);
    });
  }
  /// See communicator. Throws unroll::error on a message that is shorter; a longer one ends the program.
  void receive(index_t from, void* bytes, std::size_t n) {
    in_parts(n, [&](std::size_t at, int count) {
      MPI_Status status;
      int got = 0;
      MPI_Recv(static_cast<char*>(bytes) + at, count, MPI_BYTE, int(from), 0, all_, &status);
      MPI_Get_count(&status, MPI_BYTE, &got);
      check_size("mpi_ranks::receive", "a message of rank " + std::to_string(from), got, count);
    });
  }
  /// See communicator.
  void broadcast(index_t root, void* bytes, std::size_t n) {
    in_parts(n, [&](std::size_t at, int count) {
      MPI_Bcast(static_cast<char*>(bytes) + at, count, MPI_BYTE, int(root), all_);
    });
  }

 private:
  // MPI counts in int.
  template <class F>
  static void in_parts(std::size_t n, F&& f) {
    constexpr std::size_t most = std::size_t{1} << 30;
    for (std::size_t at = 0; at < n; at += most) f(at, int(std::min(most, n - at)));
  }

  MPI_Comm all_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  int exceptions_ = std::uncaught_exceptions();
};

static_assert(communicator<mpi_ranks>);

}  // namespace unroll
