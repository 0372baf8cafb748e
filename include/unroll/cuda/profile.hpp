#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unroll/cuda/handles.hpp"

namespace unroll::cuda {

/// Where the time of a device goes: events around everything that a stream runs, added up by name. Slows
/// small kernels down; waits for the device every few thousand of them.
class profile {
 public:
  /// What one operation took.
  struct entry {
    std::string name;     ///< of the operation
    long long calls = 0;  ///< of the operation
    double ms = 0;        ///< milliseconds of all calls
  };

  /// Runs enqueue() in the stream, between two events.
  template <class F>
  void time(const std::string& name, cudaStream_t stream, F&& enqueue) {
    if (used_ == most) collect();
    if (used_ == events_.size()) events_.emplace_back();
    auto& [before, after] = events_[used_++];
    names_.push_back(name);
    before.record(stream);
    enqueue();
    after.record(stream);
  }
  /// Longest first; forgets them.
  std::vector<entry> take() {
    collect();
    std::vector<entry> all;
    for (auto& [name, e] : sums_) all.push_back({name, e.calls, e.ms});
    std::sort(all.begin(), all.end(), [](const entry& a, const entry& b) { return a.ms > b.ms; });
    sums_.clear();
    return all;
  }

 private:
  static constexpr std::size_t most = 4096;
  void collect() {
    for (std::size_t i = 0; i < used_; ++i) {
      auto& [before, after] = events_[i];
      after.synchronise();
      entry& e = sums_[names_[i]];
      ++e.calls;
      e.ms += after.milliseconds_since(before);
    }
    used_ = 0;
    names_.clear();
  }

  std::deque<std::pair<event_handle, event_handle>> events_;
  std::vector<std::string> names_;
  std::map<std::string, entry> sums_;
  std::size_t used_ = 0;
};

namespace detail {

/// The name of a body's type without its arguments.
template <class Body>
std::string body_name() {
  std::string_view text = __PRETTY_FUNCTION__;
  text = text.substr(text.find("Body = ") + 7);
  text = text.substr(0, text.find_first_of("<;]"));
  const auto colon = text.rfind(':');
  return std::string(colon == text.npos ? text : text.substr(colon + 1));
}

}  // namespace detail

}  // namespace unroll::cuda
