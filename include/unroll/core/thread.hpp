#pragma once

#include <atomic>

#if __has_include(<pthread.h>) && __has_include(<unistd.h>) && !defined(_WIN32)
#include <pthread.h>
#include <unistd.h>

#include <memory>
#include <system_error>
#else
#include <thread>
#endif

#include "unroll/core/config.hpp"

// Of <thread> and <mutex> what is needed here: the two would be a twentieth of what unroll.hpp costs the
// compiler.
namespace unroll::detail {

#if __has_include(<pthread.h>) && __has_include(<unistd.h>) && !defined(_WIN32)

/// A thread that runs a copy of f, which must not throw. It must be joined. Throws std::system_error where
/// the system starts none.
class thread {
 public:
  template <class F>
  explicit thread(const F& f) {
    auto its = std::make_unique<F>(f);
    const auto run = [](void* p) -> void* {
      (*std::unique_ptr<F>(static_cast<F*>(p)))();
      return nullptr;
    };
    if (const int problem = pthread_create(&id_, nullptr, run, its.get()); problem != 0)
      throw std::system_error(problem, std::generic_category());
    (void)its.release();  // the thread has it
  }
  void join() { pthread_join(id_, nullptr); }

 private:
  pthread_t id_;
};

/// Threads that the machine runs at once.
inline index_t processors() {
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? index_t(n) : 1;
}

#else

using thread = std::thread;
inline index_t processors() {
  const unsigned n = std::thread::hardware_concurrency();
  return n > 0 ? index_t(n) : 1;
}

#endif

/// std::mutex, which must outlive every unlock().
class mutex {
 public:
  void lock() {
    while (taken_.exchange(true)) taken_.wait(true);
  }
  void unlock() {
    taken_.store(false);
    taken_.notify_one();
  }

 private:
  std::atomic<bool> taken_{false};
};

/// Has the mutex while it lives: std::lock_guard.
class lock_guard {
 public:
  explicit lock_guard(mutex& m) : mutex_(m) { mutex_.lock(); }
  ~lock_guard() { mutex_.unlock(); }
  lock_guard(const lock_guard&) = delete;
  lock_guard& operator=(const lock_guard&) = delete;

 private:
  mutex& mutex_;
};

}  // namespace unroll::detail
