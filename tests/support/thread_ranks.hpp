#pragma once

// Several ranks in one process, each a thread: what a message is, and in which order, as MPI has it.

#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "unroll/ranks/ranks.hpp"

namespace thread_ranks {

using unroll::index_t;

// Messages from each rank to each, and from each to all.
class network {
 public:
  explicit network(index_t size)
      : size_(size), boxes_(std::size_t(2 * size * size)), dead_(std::size_t(size)) {}

  index_t size() const { return size_; }
  void put(bool to_all, index_t from, index_t to, const void* bytes, std::size_t n) {
    const std::lock_guard lock(mutex_);
    box(to_all, from, to).emplace_back(static_cast<const char*>(bytes), n);
    sent_.notify_all();
  }
  void get(bool to_all, index_t from, index_t to, void* bytes, std::size_t n) {
    std::unique_lock lock(mutex_);
    auto& messages = box(to_all, from, to);
    sent_.wait(lock, [&] { return !messages.empty() || dead_[std::size_t(from)]; });
    if (messages.empty()) throw unroll::error("thread_ranks: rank " + std::to_string(from) + " has ended");
    if (messages.front().size() != n)
      unroll::check_size("thread_ranks", "a message", index_t(n), index_t(messages.front().size()));
    std::memcpy(bytes, messages.front().data(), n);
    messages.pop_front();
  }
  void die(index_t rank) {
    const std::lock_guard lock(mutex_);
    dead_[std::size_t(rank)] = true;
    sent_.notify_all();
  }
  bool all_received() const {
    for (const auto& messages : boxes_)
      if (!messages.empty()) return false;
    return true;
  }

 private:
  std::deque<std::string>& box(bool to_all, index_t from, index_t to) {
    return boxes_[std::size_t((index_t(to_all) * size_ + from) * size_ + to)];
  }
  index_t size_;
  std::vector<std::deque<std::string>> boxes_;
  std::vector<bool> dead_;
  std::mutex mutex_;
  std::condition_variable sent_;
};

class one_of {
 public:
  one_of(network& all, index_t rank) : all_(&all), rank_(rank) {}
  index_t rank() const { return rank_; }
  index_t size() const { return all_->size(); }
  void send(index_t to, const void* bytes, std::size_t n) { all_->put(false, rank_, to, bytes, n); }
  void receive(index_t from, void* bytes, std::size_t n) { all_->get(false, from, rank_, bytes, n); }
  void broadcast(index_t root, void* bytes, std::size_t n) {
    if (rank_ != root) return all_->get(true, root, rank_, bytes, n);
    for (index_t to = 0; to < size(); ++to)
      if (to != root) all_->put(true, root, to, bytes, n);
  }

 private:
  network* all_;
  index_t rank_;
};

// Runs f(ranks) as each of `size` ranks at once. What each of them threw, "" for nothing; where a message was
// left behind, that of rank 0 says so.
template <class F>
std::vector<std::string> run(index_t size, F&& f) {
  network all(size);
  std::vector<std::string> said(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (index_t r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      one_of me(all, r);
      try {
        f(unroll::ranks(me));
      } catch (const std::exception& e) {
        said[std::size_t(r)] = e.what();
        all.die(r);
      }
    });
  for (auto& t : threads) t.join();
  bool quiet = true;
  for (const auto& text : said) quiet = quiet && text.empty();
  if (quiet && !all.all_received()) said[0] = "a message was not received";
  return said;
}

}  // namespace thread_ranks
