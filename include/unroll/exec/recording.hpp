#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>
#include <memory>
#include <string_view>
#include <type_traits>
#include <vector>

#include "unroll/exec/executor.hpp"

namespace unroll::exec {

/// An executor E that can take a list of operations as one piece, which it then makes again and again for
/// less than a call each (a device: as a graph). Beside the operations of executor.hpp:
///
///   recording         a list of operations, empty at first, and what they read of the host: size(),
///                     changes(); a copy is empty
///   together(r, f)    calls f, in which no operation happens: each is noted in r. Then all of them happen,
///                     in the order of their calls. Throws what f throws, and none of them happens then
///
/// f is called every time, with whatever numbers and sizes: r is compared with what it calls, and mended
/// where that is another operation or has other arguments or spans, so that nothing of an earlier time is
/// left in it. changes() counts the times where operations or arguments were others, spans apart; a list
/// without is made at its best. In f nothing can be waited for or downloaded, and one `together` cannot stand
/// in another.
template <class E>
concept recordable = executor<E> && std::copyable<typename E::recording> &&
    requires(const E e, typename E::recording& r, void (*f)()) {
  e.together(r, f);
  { r.size() } -> std::same_as<index_t>;
  { r.changes() } -> std::same_as<index_t>;
};

/// How a list differs from what it was the time before.
enum class difference {
  none,       ///< but for the contents of spans
  arguments,  ///< the same operations, some with other arguments
  operations  ///< other operations
};

#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
#define UNROLL_CLEARS_PADDING 1
#endif
#endif
#ifndef UNROLL_CLEARS_PADDING
#define UNROLL_CLEARS_PADDING 0
#endif
/// Whether equal arguments always count as equal. A compiler that cannot clear what lies between members
/// (clang 14) may count some as others, which costs time alone.
inline constexpr bool compares_exactly = UNROLL_CLEARS_PADDING != 0;

/// Operations of a machine, in order: trivially copyable objects that are called with the machine.
template <class Machine>
class operation_list {
 public:
  /// The operations that follow are compared with those that are here, from the first on.
  void begin() {
    next_ = 0;
    seen_ = difference::none;
  }
  /// The next operation.
  template <class Op>
  void add(Op op) {
    static_assert(std::is_trivially_copyable_v<Op> && std::is_trivially_destructible_v<Op>,
                  "an operation that is recorded has pointers and numbers alone");
    clear_padding(op);
    if (next_ < entries_.size() && entries_[next_]->kind == &kind_of<Op>) {
      Op& here = static_cast<entry_of<Op>&>(*entries_[next_++]).op;
      if (std::memcmp(static_cast<const void*>(&here), static_cast<const void*>(&op), sizeof(Op)) == 0)
        return;
      std::memcpy(static_cast<void*>(&here), static_cast<const void*>(&op), sizeof(Op));
      seen_ = std::max(seen_, difference::arguments);
      return;
    }
    entries_.resize(next_++);
    entries_.push_back(std::make_unique<entry_of<Op>>(op));
    seen_ = difference::operations;
  }
  /// There are no more. How they differ from those of the time before.
  difference end() {
    if (next_ < entries_.size()) {
      entries_.resize(next_);
      seen_ = difference::operations;
    }
    return seen_;
  }
  /// Calls them in order.
  void run(const Machine& m) const {
    for (const auto& e : entries_) e->run(m);
  }
  index_t size() const { return index_t(entries_.size()); }
  void clear() { entries_.clear(); }

 private:
  struct entry {
    explicit entry(const void* k) : kind(k) {}
    virtual ~entry() = default;
    virtual void run(const Machine& m) const = 0;
    const void* kind;
  };
  template <class Op>
  struct entry_of final : entry {
    explicit entry_of(const Op& o) : entry(&kind_of<Op>), op(o) {
      std::memcpy(static_cast<void*>(&op), static_cast<const void*>(&o),
                  sizeof(Op));  // what is between members
    }
    void run(const Machine& m) const override { op(m); }
    Op op;
  };
  template <class Op>
  static inline char kind_of = 0;  // its address tells one kind of operation from another

  template <class Op>
  static void clear_padding([[maybe_unused]] Op& op) {
#if UNROLL_CLEARS_PADDING
    __builtin_clear_padding(&op);
#endif
  }

  std::vector<std::unique_ptr<entry>> entries_;
  std::size_t next_ = 0;
  difference seen_ = difference::none;
};

/// What recorded operations read of the host's spans, in memory that stays where it is: the n-th span of a
/// list has the same address time after time. Chunk: made with a number of bytes, has host(), where they are
/// written, and place(), where operations find them once they were brought there.
template <class Chunk>
class recorded_spans {
 public:
  static constexpr index_t chunk_bytes = index_t{1} << 20;  ///< of one, unless a span is longer

  /// The spans that follow are the first, the second, ... once more. Nobody may be bringing them any more.
  void begin() {
    next_ = 0;
    ++time_;
    recent_ = {};
    if (!moved_) return;
    slots_.clear();  // what the time before has left of other spans
    calls_.clear();
    for (auto& c : chunks_) c.used = 0;
    moved_ = false;
  }
  /// The next one: where its numbers will be at the place.
  const void* put(const void* from, index_t bytes) {
    const std::size_t call = next_++;
    if (call < calls_.size()) {
      slot& s = slots_[calls_[call]];
      if (s.bytes == bytes && (s.time != time_ || holds(s, from))) return written(calls_[call], from);
      moved_ = true;
    } else {
      calls_.push_back(0);
    }
    calls_[call] = shared_or_new(from, bytes);
    return written(calls_[call], from);
  }
  /// f(host, place, bytes) for what has changed since it was brought there.
  template <class F>
  void for_changed(F&& f) {
    for (auto& c : chunks_) {
      if (c.first < c.end) f(c.of.host() + c.first, c.of.place() + c.first, c.end - c.first);
      c.first = c.size;
      c.end = 0;
    }
  }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& c : chunks_) sum += std::size_t(c.size);
    return sum;
  }

 private:
  struct slot {
    std::size_t chunk;
    index_t at, bytes;
    std::int64_t time;  // when it was written last
  };
  struct piece {
    Chunk of;
    index_t size, used, first, end;  // first .. end: what has changed
  };

  unsigned char* host_of(const slot& s) { return chunks_[s.chunk].of.host() + s.at; }
  bool holds(const slot& s, const void* from) {
    return std::memcmp(host_of(s), from, std::size_t(s.bytes)) == 0;
  }
  // One of the last, as every layer's positions and addresses are; but not what is only like it by chance the
  // next time, which put() then moves.
  std::size_t shared_or_new(const void* from, index_t bytes) {
    for (const std::size_t r : recent_)
      if (r > 0 && slots_[r - 1].bytes == bytes && slots_[r - 1].time == time_ && holds(slots_[r - 1], from))
        return r - 1;
    std::size_t c = 0;
    while (c < chunks_.size() && chunks_[c].used + bytes > chunks_[c].size) ++c;
    if (c == chunks_.size()) {
      const index_t size = std::max(chunk_bytes, bytes);
      chunks_.push_back({Chunk(size), size, 0, size, 0});
    }
    slots_.push_back({c, chunks_[c].used, bytes, -1});
    chunks_[c].used += (bytes + 255) / 256 * 256;
    return slots_.size() - 1;
  }
  const void* written(std::size_t index, const void* from) {
    slot& s = slots_[index];
    piece& c = chunks_[s.chunk];
    if (s.time < 0 || !holds(s, from)) {
      std::memcpy(host_of(s), from, std::size_t(s.bytes));
      c.first = std::min(c.first, s.at);
      c.end = std::max(c.end, s.at + s.bytes);
    }
    if (s.time != time_) recent_[oldest_++ % recent_.size()] = index + 1;
    s.time = time_;
    return c.of.place() + s.at;
  }

  std::vector<piece> chunks_;
  std::vector<slot> slots_;
  std::vector<std::size_t> calls_;  // the slot of each span
  std::array<std::size_t, 8> recent_ = {};
  std::size_t next_ = 0, oldest_ = 0;
  std::int64_t time_ = 0;
  bool moved_ = false;  // a span has another slot than the time before
};

/// What the recordings of executors have in common, see recordable: the operations of a machine and what they
/// read of the host, in chunks (recorded_spans). A copy is empty.
template <class Machine, class Chunk>
class recorded {
 public:
  recorded() = default;
  recorded(const recorded&) {}
  recorded& operator=(const recorded&) {
    *this = recorded();
    return *this;
  }
  recorded(recorded&&) noexcept = default;
  recorded& operator=(recorded&&) noexcept = default;
  ~recorded() = default;

  index_t size() const { return list_.size(); }  ///< operations
  index_t changes() const { return changes_; }   ///< times when they or their arguments were others

  /// What follows is noted.
  void begin() {
    list_.begin();
    spans_.begin();
  }
  /// The next operation.
  template <class Op>
  void add(const Op& op) {
    list_.add(op);
  }
  /// The next span of the host: where its numbers will be at the place.
  const void* put(const void* from, index_t bytes) { return spans_.put(from, bytes); }
  /// Nothing of what was noted will happen.
  void forget() { list_.clear(); }

 protected:
  /// There are no more operations. How they differ from those of the time before.
  difference end() {
    const difference seen = list_.end();
    if (seen != difference::none) ++changes_;
    return seen;
  }

  operation_list<Machine> list_;  ///< the operations
  recorded_spans<Chunk> spans_;   ///< what they read of the host

 private:
  index_t changes_ = 0;
};

/// The first half of together(r, f) of the executor of that name: f(), with `open` at r, where its operations
/// are noted. Where f throws, r has none.
template <class Recording, class F>
void note(std::string_view executor, Recording*& open, Recording& r, F&& f) {
  if (open) fail(executor, "together", "stands in another one");
  r.begin();
  open = &r;
  try {
    f();
  } catch (...) {
    open = nullptr;
    r.forget();
    throw;
  }
  open = nullptr;
}

/// Throws unroll::error where a recording is open: `call` of the executor of that name cannot be noted.
inline void refuse_noted(std::string_view executor, bool open, std::string_view call) {
  if (open) fail(executor, call, "waits for operations, which only happen when their recording is made");
}

}  // namespace unroll::exec

#undef UNROLL_CLEARS_PADDING
