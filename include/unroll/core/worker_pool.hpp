#pragma once

#include <atomic>
#include <exception>
#include <system_error>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/core/thread.hpp"

#if (defined(__GLIBCXX__) && !defined(_GLIBCXX_HAS_GTHREADS)) || defined(_LIBCPP_HAS_NO_THREADS) || \
    (defined(_LIBCPP_HAS_THREADS) && !_LIBCPP_HAS_THREADS)
#include "unroll needs a standard library with threads"
#endif

namespace unroll {

/// `size` workers that run one job together, the caller among them. Starting a job allocates nothing.
class worker_pool {
 public:
  /// Throws unroll::error where the system starts fewer threads.
  explicit worker_pool(index_t size) {
    threads_.reserve(std::size_t(size > 1 ? size - 1 : 0));
    try {
      for (index_t i = 1; i < size; ++i) threads_.emplace_back([this, i] { serve(i); });
    } catch (const std::system_error& e) {
      join();
      fail("worker_pool", "size",
           "is " + std::to_string(size) + ", but " + std::to_string(threads_.size() + 1) +
               " are all that the system starts: " + e.what());
    }
    auto nothing = [](index_t) {};
    run(nothing);  // what a thread allocates when it starts belongs to the construction
  }
  ~worker_pool() { join(); }
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;

  index_t size() const { return index_t(threads_.size()) + 1; }

  /// Calls job(i) for every worker i in [0, size), at the same time; returns when all have returned. The
  /// first exception is thrown again here.
  template <class Job>
  void run(Job& job) {
    job_ = &job;
    call_ = [](void* j, index_t i) { (*static_cast<Job*>(j))(i); };
    thrown_ = nullptr;
    has_thrown_ = false;
    running_ = index_t(threads_.size());
    round_.fetch_add(1);
    round_.notify_all();
    attempt(0);
    for (index_t left = running_.load(); left != 0; left = running_.load()) running_.wait(left);
    if (thrown_) std::rethrow_exception(thrown_);
  }

 private:
  void join() {
    stop_ = true;
    round_.fetch_add(1);
    round_.notify_all();
    for (auto& t : threads_) t.join();
  }
  void attempt(index_t i) {
    try {
      call_(job_, i);
    } catch (...) {
      if (!has_thrown_.exchange(true)) thrown_ = std::current_exception();
    }
  }
  void serve(index_t i) {
    for (unsigned seen = 0;;) {
      round_.wait(seen);
      seen = round_.load();
      if (stop_) return;
      attempt(i);
      if (running_.fetch_sub(1) == 1) running_.notify_one();
    }
  }

  std::vector<detail::thread> threads_;
  std::atomic<unsigned> round_{0};
  std::atomic<index_t> running_{0};
  std::atomic<bool> stop_{false}, has_thrown_{false};
  void* job_ = nullptr;
  void (*call_)(void*, index_t) = nullptr;
  std::exception_ptr thrown_;  // of who set has_thrown_
};

/// Calls f(worker, i) for i = 0 .. n-1 from all workers of the pool: worker w has the items w, w + workers,
/// ...
template <class F>
void share_out(worker_pool& pool, index_t n, F&& f) {
  auto job = [&](index_t worker) {
    for (index_t i = worker; i < n; i += pool.size()) f(worker, i);
  };
  pool.run(job);
}

}  // namespace unroll
