#pragma once

// Ctrl-C, and the standard streams of a program that was started without them.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

namespace program {

inline std::atomic<bool> interrupted{false};

/// From here on Ctrl-C, SIGTERM, SIGUSR1, which mpirun passes on, or a terminal that goes away (unless under
/// nohup), asks the program to finish what it is doing and write valid output; a second one ends it. A reader
/// that goes away is an error of the standard output, not the end.
inline void catch_interrupt() {
  const auto handler = [](int) {
    interrupted = true;
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
    std::signal(SIGHUP, SIG_DFL);
  };
  std::signal(SIGINT, handler);
  std::signal(SIGTERM, handler);
  std::signal(SIGUSR1, handler);
  if (std::signal(SIGHUP, handler) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
}

/// Closed standard streams are opened so that they fail: else the next file would get their number, and what
/// is printed.
inline void hold_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(stream, F_GETFD) == -1) open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

}  // namespace program
