#pragma once

// A program that runs as several processes: its ranks, and what it does where it cannot.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <unroll/ranks/ranks.hpp>

#ifdef UNROLL_WITH_MPI
#include <unroll/ranks/mpi.hpp>
#endif

#include "interrupt.hpp"

namespace program {

/// The ranks of this program: a process alone, unless mpirun has started several.
inline unroll::ranks world;

/// A number that mpirun tells the processes it starts, under whichever name; `otherwise` without one.
inline long of_mpirun(std::initializer_list<const char*> names, long otherwise) {
  for (const char* name : names)
    if (const char* value = std::getenv(name)) return std::strtol(value, nullptr, 10);
  return otherwise;
}
/// How many processes mpirun has started, whether or not this program can talk to them.
inline long started_processes() {
  return of_mpirun({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"}, 1);
}
inline long started_rank() {
  return of_mpirun({"OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"}, 0);
}

/// The same of the processes on this machine.
inline long processes_here() {
  return of_mpirun({"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE"},
                   started_processes());
}
inline long rank_here() {
  return of_mpirun({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK"},
                   started_rank());
}

/// Throws unroll::error where mpirun has started several processes of a command that is one.
inline void check_one_process(const char* program, const std::string& command) {
  if (const long n = started_processes(); n > 1)
    unroll::fail(program, command, "runs as one process, mpirun has started " + std::to_string(n));
}

/// Begins MPI where mpirun has started several processes: `world` are their ranks until the end of the
/// scope, and all but the first print nothing. Throws unroll::error in a program that was built without MPI.
class processes {
 public:
  explicit processes(const char* program) {
    if (started_processes() <= 1) return;
#ifdef UNROLL_WITH_MPI
    session_.emplace();
    all_.emplace();
    world = unroll::ranks(*all_);
    if (!world.first() && std::freopen("/dev/null", "w", stdout) == nullptr)
      unroll::fail(program, "/dev/null", "cannot be opened");
#else
    unroll::fail(program, "mpirun",
                 "has started " + std::to_string(started_processes()) +
                     " processes, each of which would do all of the work: this program was built without MPI "
                     "(UNROLL_MPI)");
#endif
  }
  processes(const processes&) = delete;
  processes& operator=(const processes&) = delete;
  ~processes() { world = {}; }

  /// Throws unroll::error where mpirun is of another MPI than this program, whose processes would each do all
  /// of the work.
  void check(const char* program) const {
    if (const long n = started_processes(); world.size() != n && n > 1)
      unroll::fail(program, "mpirun",
                   "has started " + std::to_string(n) + " processes, the MPI of this program knows " +
                       std::to_string(world.size()) + ": it is another one");
  }
  /// Ends the other ranks with a program that has failed.
  void fail_all([[maybe_unused]] int code) const {
#ifdef UNROLL_WITH_MPI
    if (world.size() > 1) session_->abort(code);
#endif
  }

 private:
#ifdef UNROLL_WITH_MPI
  std::optional<unroll::mpi_session> session_;
  std::optional<unroll::mpi_ranks> all_;
#endif
};

/// An error that all ranks come by is told by the first, which ends the others meanwhile.
inline void let_first_speak() {
  if (started_rank() == 0) return;
  std::signal(SIGTERM, SIG_DFL);
  std::this_thread::sleep_for(std::chrono::seconds(2));
}

/// Whether one of the ranks was interrupted: all of them then end at the same place. All call it.
inline bool stop_asked() {
  const bool asked = world.any(interrupted);
  if (asked) interrupted = true;
  return asked;
}

}  // namespace program
