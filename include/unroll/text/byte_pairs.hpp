#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "unroll/text/token.hpp"

namespace unroll::llama::detail {

/// A map from pairs of ids to values in one block of memory: the slot of a pair is the first from that of its
/// hash on that has the pair or is empty; at least half of all are empty.
template <class Value>
class pair_map {
 public:
  void reserve(std::size_t n) {
    std::size_t wanted = 16;
    while (wanted < 2 * n) wanted *= 2;
    if (wanted <= slots_.size()) return;
    std::vector<slot> old(wanted);
    old.swap(slots_);
    for (const slot& s : old)
      if (s.key != none) slots_[place(s.key)] = s;
  }
  /// False, and nothing is changed, where the pair is in the map.
  bool insert(token left, token right, const Value& value) {
    reserve(++size_);
    slot& s = slots_[place(key_of(left, right))];
    if (s.key != none) {
      --size_;
      return false;
    }
    s = {key_of(left, right), value};
    return true;
  }
  /// Null where the pair is not in the map.
  const Value* find(token left, token right) const {
    if (slots_.empty()) return nullptr;
    const slot& s = slots_[place(key_of(left, right))];
    return s.key == none ? nullptr : &s.value;
  }
  /// visit(left, right, value) of each, in no order.
  template <class Visit>
  void each(Visit&& visit) const {
    for (const slot& s : slots_)
      if (s.key != none) visit(token(std::uint32_t(s.key >> 32)), token(std::uint32_t(s.key)), s.value);
  }

 private:
  static constexpr std::uint64_t none = std::uint64_t{1} << 63;  // no id is -2^31
  struct slot {
    std::uint64_t key = none;
    Value value{};
  };
  static std::uint64_t key_of(token left, token right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  std::size_t place(std::uint64_t key) const {
    const std::uint64_t hash = key * 0x9E3779B97F4A7C15;
    std::size_t i = std::size_t(hash ^ hash >> 32) & (slots_.size() - 1);
    while (slots_[i].key != key && slots_[i].key != none) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  std::vector<slot> slots_;
  std::size_t size_ = 0;
};

/// What two neighbours become. Of all pairs of neighbours that are joined, that of the least rank is first,
/// of equals the leftmost.
struct join {
  std::uint32_t rank;
  token result;
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
  /// False, and nothing is added, where the pair is joined already.
  bool add(token left, token right, const join& j) { return joins_.insert(left, right, j); }
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
