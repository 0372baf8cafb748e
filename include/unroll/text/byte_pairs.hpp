#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <vector>

#include "unroll/text/sealed_map.hpp"
#include "unroll/text/token.hpp"

namespace unroll::llama::detail {

struct pair_hash {
  std::size_t operator()(std::uint64_t key) const {
    const std::uint64_t hash = key * 0x9E3779B97F4A7C15;
    return std::size_t(hash ^ hash >> 32);
  }
};

/// A sealed_map of pairs of ids.
template <class Value>
class pair_map {
 public:
  void reserve(std::size_t n) { map_.reserve(n); }
  void add(token left, token right, const Value& value) { map_.add(key_of(left, right), value); }
  template <class Twice>
  void seal(Twice&& twice) {
    map_.seal(twice);
  }
  void seal() { map_.seal(); }
  const Value* find(token left, token right) const { return map_.find(key_of(left, right)); }
  template <class Visit>
  void each(Visit&& visit) const {
    map_.each([&](std::uint64_t key, const Value& value) {
      visit(token(std::uint32_t(key >> 32)), token(std::uint32_t(key)), value);
    });
  }

 private:
  static std::uint64_t key_of(token left, token right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  sealed_map<std::uint64_t, Value, pair_hash> map_;
};

/// What two neighbours become. Of all pairs of neighbours that are joined, that of the least rank is first,
/// of equals the leftmost.
struct join {
  std::uint32_t rank;
  token result;
  auto operator<=>(const join&) const = default;
};

/// Byte-pair encoding of a row of ids (Sennrich et al. 2016).
class byte_pairs {
 public:
  static constexpr std::uint32_t none = 0xFFFFFFFF;
  struct symbol {
    token id;
    std::uint32_t before, after;
  };
  struct candidate {
    std::uint32_t rank, at;
    token left, right, result;
    bool operator<(const candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  /// Memory that calls share.
  struct workspace {
    std::vector<symbol> symbols;
    std::vector<candidate> heap;
  };

  void reserve(std::size_t n) { joins_.reserve(n); }
  void add(token left, token right, const join& j) { joins_.add(left, right, j); }
  /// Ends the adding; twice(join that counts, join that does not) is told of each further join of a pair.
  template <class Twice>
  void seal(Twice&& twice) {
    joins_.seal(twice);
  }
  /// visit(left, right, join) of each, in no order.
  template <class Visit>
  void each(Visit&& visit) const {
    joins_.each(visit);
  }

  /// Joins the n ids behind the first `begin`, fewer than 2^32, in O(n log n): a heap of the joins that are
  /// possible, over a linked list of the ids; an entry whose ids have changed since is passed over.
  void run(std::vector<token>& ids, std::size_t begin, workspace& w) const {
    if (ids.size() - begin < 2) return;
    std::vector<symbol>& symbols = w.symbols;
    std::vector<candidate>& heap = w.heap;
    symbols.clear();
    for (std::size_t i = begin; i < ids.size(); ++i) {
      const auto at = std::uint32_t(i - begin);
      symbols.push_back({ids[i], at - 1, at + 1});
    }
    symbols.back().after = none;
    const auto offer = [&](std::uint32_t i) {
      if (i == none || symbols[i].after == none) return;
      const token left = symbols[i].id, right = symbols[symbols[i].after].id;
      const join* found = joins_.find(left, right);
      if (!found) return;
      heap.push_back({found->rank, i, left, right, found->result});
      std::push_heap(heap.begin(), heap.end());
    };
    for (std::uint32_t i = 0; i < symbols.size(); ++i) offer(i);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const candidate c = heap.back();
      heap.pop_back();
      symbol& left = symbols[c.at];
      if (left.id != c.left || left.after == none || symbols[left.after].id != c.right) continue;
      symbol& right = symbols[left.after];
      left.id = c.result;
      left.after = right.after;
      right.id = -1;
      if (left.after != none) symbols[left.after].before = c.at;
      offer(left.before);
      offer(c.at);
    }
    ids.resize(begin);
    for (std::uint32_t i = 0; i != none; i = symbols[i].after) ids.push_back(symbols[i].id);
  }

 private:
  pair_map<join> joins_;
};

}  // namespace unroll::llama::detail
