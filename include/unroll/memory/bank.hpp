#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll {

/// What the replay of a sequence of segments has cost since it began.
struct replay_counts {
  std::int64_t writes = 0;      ///< memories written for the first time
  std::int64_t rewrites = 0;    ///< memories written again, to have their graph
  std::int64_t write_vjps = 0;  ///< graphs that were sent back through
  std::int64_t reads = 0;       ///< losses evaluated, with their vjp or without
  std::int64_t read_vjps = 0;   ///< those with their vjp
  index_t live_graphs = 0;      ///< most graphs of writes that were alive at once
};

/// Whether the loss of a segment depends on theta other than through the memories: what the model's optional
/// member `bool reads_params() const` says, else true. Where it does not, the first segment is read without a
/// vjp, and read_vjp is given an empty dtheta.
template <class M>
bool reads_params(const M& model) {
  if constexpr (requires {
                  { model.reads_params() } -> std::same_as<bool>;
                })
    return model.reads_params();
  else
    return true;
}

/// The memories of a sequence of segments, some accumulators of their adjoints, and slots for the graphs
/// (tapes) of some writes. Makes the calls of the model, so that it can count them. Everything is allocated
/// at construction: (segments - 1 + adjoints) memories, `graphs` tapes and the workspace of one call. The
/// memory of the last segment is written by nobody.
template <class M>
class memory_bank {
  static_assert(memory_model<M>);

 public:
  using T = typename M::scalar;
  using input = typename M::input;
  static constexpr index_t none = -1;

  memory_bank(const M& model, index_t segments, index_t adjoints, index_t graphs)
      : size_(model.size()),
        memories_((segments - 1) * size_.memory),
        adjoints_(adjoints * size_.memory),
        tapes_(graphs * size_.tape),
        work_(model.workspace(segments - 1)),
        past_(segments),
        dpast_(segments),
        owner_(graphs) {
    clear();
  }

  /// A new sequence: no memory, no graph, zero adjoints.
  void clear() {
    adjoints_.zero();
    std::fill(owner_.begin(), owner_.end(), none);
    written_ = live_ = 0;
    counts_ = {};
  }

  index_t written() const { return written_; }
  T* memory(index_t s) { return memories_.data() + s * size_.memory; }
  view<T> adjoint(index_t i) { return {adjoints_.data() + i * size_.memory, size_.memory}; }
  index_t slots() const { return owner_.size(); }
  /// The segment whose graph is in a slot, or none.
  index_t owner(index_t slot) const { return owner_[slot]; }
  const replay_counts& counts() const { return counts_; }
  std::size_t bytes() const {
    return memories_.bytes() + adjoints_.bytes() + tapes_.bytes() + work_.bytes() + past_.bytes() +
           dpast_.bytes() + owner_.bytes();
  }

  /// The addresses of the adjoints of m_0 .. m_{t-1}, all null until the caller sets them; one set at a time.
  std::span<T*> targets(index_t t) {
    std::fill_n(dpast_.data(), t, nullptr);
    return {dpast_.data(), std::size_t(t)};
  }

  /// Writes the memory of the next segment, s = written(), with its graph in a slot or without. False when it
  /// is not finite: it then does not count as written.
  bool write(const M& model, const input& x, params<const T> theta, index_t slot = none) {
    const index_t s = written_;
    encode(model, x, s, theta, slot);
    ++counts_.writes;
    if (linalg::all_finite(memory(s), size_.memory)) {
      ++written_;
      return true;
    }
    release(slot);
    return false;
  }
  /// Writes a memory once more, to have its graph.
  void rewrite(const M& model, const input& x, index_t s, params<const T> theta, index_t slot) {
    encode(model, x, s, theta, slot);
    ++counts_.rewrites;
  }
  /// Sends dm back through the graph in `slot`, which is free afterwards.
  void write_vjp(const M& model, const input& x, params<const T> theta, index_t slot, view<const T> dm,
                 std::span<T* const> dpast, dparams<T> g) {
    const index_t s = owner_[slot];
    model.write_vjp(x, s, theta, seen_by_write(model, s), view<const T>(tape(slot)), dm, dpast, g, work_);
    ++counts_.write_vjps;
    release(slot);
  }
  T read(const M& model, const input& x, index_t t, params<const T> theta) {
    ++counts_.reads;
    return model.read(x, t, theta, past(t), work_);
  }
  T read_vjp(const M& model, const input& x, index_t t, params<const T> theta, std::span<T* const> dpast,
             dparams<T> g) {
    ++counts_.reads;
    ++counts_.read_vjps;
    return model.read_vjp(x, t, theta, past(t), dpast, g, work_);
  }

 private:
  void encode(const M& model, const input& x, index_t s, params<const T> theta, index_t slot) {
    release(slot);  // first: where the model throws, nobody owns what the tape then holds
    model.write(x, s, theta, seen_by_write(model, s), {memory(s), size_.memory},
                slot == none ? view<T>{} : tape(slot), work_);
    if (slot == none) return;
    owner_[slot] = s;
    counts_.live_graphs = std::max(counts_.live_graphs, ++live_);
  }
  void release(index_t slot) {
    if (slot == none || owner_[slot] == none) return;
    owner_[slot] = none;
    --live_;
  }
  view<T> tape(index_t slot) { return {tapes_.data() + slot * size_.tape, size_.tape}; }
  // Made for each call: a bank that was copied points to its own memories.
  std::span<const T* const> past(index_t t) {
    for (index_t s = 0; s < t; ++s) past_[s] = memory(s);
    return {past_.data(), std::size_t(t)};
  }
  std::span<const T* const> seen_by_write(const M& model, index_t s) {
    return past(model.independent() ? 0 : s);
  }

  memory_dims size_;
  block<T> memories_, adjoints_, tapes_, work_;
  block<const T*> past_;
  block<T*> dpast_;
  block<index_t> owner_;
  index_t written_ = 0, live_ = 0;
  replay_counts counts_;
};

}  // namespace unroll
