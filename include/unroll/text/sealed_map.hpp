#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "unroll/core/config.hpp"

namespace unroll::llama::detail {

/// A map that is filled first and searched then. Entries stand in buckets by a hash of their keys, those of a
/// bucket in the order of their keys: a search takes O(1) where the hash spreads the keys, and O(log n)
/// comparisons whatever the n keys are, so that whoever chooses them cannot make it slow. Less than 2^32
/// entries.
template <class Key, class Value, class Hash>
class sealed_map {
 public:
  void reserve(std::size_t n) { entries_.reserve(n); }
  void add(Key key, Value value) { entries_.emplace_back(std::move(key), std::move(value)); }

  /// Ends the filling, in O(n log n). Of equal keys the least value stays; twice(it, another) is told.
  template <class Twice>
  void seal(Twice&& twice) {
    std::size_t buckets = 1;
    while (buckets < entries_.size()) buckets *= 2;
    begins_.assign(buckets + 1, 0);
    std::vector<std::uint32_t> of_entry(entries_.size());  // its bucket
    for (std::size_t i = 0; i < entries_.size(); ++i)
      ++begins_[(of_entry[i] = std::uint32_t(bucket(entries_[i].first))) + 1];
    for (std::size_t b = 0; b < buckets; ++b) begins_[b + 1] += begins_[b];
    std::vector<std::pair<Key, Value>> sorted(entries_.size());
    std::vector<std::uint32_t> next(begins_.begin(), begins_.end() - 1);
    for (std::size_t i = 0; i < entries_.size(); ++i) sorted[next[of_entry[i]]++] = std::move(entries_[i]);
    std::size_t kept = 0;
    for (std::size_t b = 0, from = 0; b < buckets; ++b) {
      const std::size_t first = kept, to = begins_[b + 1];
      if (to - from > 1)
        std::sort(sorted.begin() + std::ptrdiff_t(from), sorted.begin() + std::ptrdiff_t(to));
      for (; from < to; ++from) {
        if (kept > first && sorted[kept - 1].first == sorted[from].first)
          twice(sorted[kept - 1].second, sorted[from].second);
        else if (kept++ != from)
          sorted[kept - 1] = std::move(sorted[from]);
      }
      begins_[b + 1] = std::uint32_t(kept);
    }
    sorted.resize(kept);
    entries_ = std::move(sorted);
  }
  void seal() {
    seal([](const Value&, const Value&) {});
  }

  /// Null where the map has no such key, and before it is sealed.
  template <class Like>
  const Value* find(const Like& key) const {
    if (begins_.empty()) return nullptr;
    const std::size_t b = bucket(key);
    auto at = entries_.begin() + std::ptrdiff_t(begins_[b]);
    const auto end = entries_.begin() + std::ptrdiff_t(begins_[b + 1]);
    if (end - at > 4)
      at = std::lower_bound(at, end, key, [](const auto& e, const Like& k) { return e.first < k; });
    while (at != end && at->first < key) ++at;
    return at != end && at->first == key ? &at->second : nullptr;
  }
  /// visit(key, value) of each, in no order that means anything.
  template <class Visit>
  void each(Visit&& visit) const {
    for (const auto& [key, value] : entries_) visit(key, value);
  }

 private:
  template <class Like>
  std::size_t bucket(const Like& key) const {
    return std::size_t(Hash()(key)) & (begins_.size() - 2);  // a power of two, less one
  }

  std::vector<std::pair<Key, Value>> entries_;
  std::vector<std::uint32_t> begins_;  // of the buckets, and the end of the last one
};

}  // namespace unroll::llama::detail
