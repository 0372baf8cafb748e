#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "unroll/core/arena.hpp"
#include "unroll/core/block.hpp"
#include "unroll/core/visit.hpp"
#include "unroll/exec/of.hpp"
#include "unroll/exec/visit_block.hpp"
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

/// Where the numbers of a memory model lie: at the model's own executor(), or on the host.
template <class M>
auto executor_of(const M& model) {
  if constexpr (requires { model.executor(); })
    return model.executor();
  else
    return exec::host<numbers_of<M>>{};
}

/// The memories of a sequence of segments, some accumulators of their adjoints, and slots for the graphs
/// (tapes) of some writes. Makes the calls of the model, of up to `batch` segments each, so that it can count
/// them. Everything is allocated at construction: (segments - 1 + adjoints) memories, `graphs` tapes and the
/// workspace of one call, at the place of the model's executor, and nothing waits for it but finite(). The
/// memory of the last segment is written by nobody.
///
/// With graphs_end_with_reads, tapes lie where reads work, behind the workspace of writes: whoever asks for
/// it reads no segment while it needs a graph, and a read ends all of them.
template <class M>
class memory_bank {
  static_assert(memory_model<M>);

 public:
  using executor_type = decltype(executor_of(std::declval<const M&>()));
  using T = typename M::scalar;
  using input = typename M::input;
  using memory_type = typename numbers_of<M>::memory;
  using adjoint_type = typename numbers_of<M>::adjoint;
  using activation = typename numbers_of<M>::activation;
  using loss_type = typename numbers_of<M>::accumulator;
  using segments = std::span<const input>;  ///< consecutive inputs
  static constexpr index_t none = -1;

  memory_bank(const M& model, index_t room, index_t adjoints, index_t graphs, index_t batch = 1,
              bool graphs_end_with_reads = false)
      : executor_(executor_of(model)),
        size_(model.size()),
        batch_(batch),
        write_work_(graphs_end_with_reads ? write_workspace(model, room - 1, batch) : none),
        memories_(executor_.template allocate<memory_type>((room - 1) * size_.memory)),
        adjoints_(executor_.template allocate<adjoint_type>(adjoints * size_.memory)),
        tapes_(executor_.template allocate<activation>(shared() ? 0 : graphs * size_.tape)),
        work_(executor_.template allocate<activation>(
            std::max(model.workspace(room - 1, batch), shared() ? write_work_ + graphs * size_.tape : 0))),
        answer_(executor_.template allocate<loss_type>(1)),
        past_(room),
        dpast_(room),
        graphs_(graphs) {
    clear();
  }

  /// A new sequence: no memory, no graph, zero adjoints.
  void clear() {
    clear_adjoints();
    std::fill(graphs_.begin(), graphs_.end(), graph{});
    written_ = live_ = 0;
    counts_ = {};
  }

  const executor_type& executor() const { return executor_; }
  index_t batch() const { return batch_; }      ///< most segments of a call
  index_t written() const { return written_; }  ///< memories so far
  memory_type* memory(index_t s) { return memories_.data() + s * size_.memory; }
  /// n adjoints, one after another.
  view<adjoint_type> adjoint(index_t i, index_t n = 1) {
    return {adjoints_.data() + i * size_.memory, n * size_.memory};
  }
  /// All of them 0.
  void clear_adjoints() { executor_.fill(matrix<adjoint_type>(adjoints_.data(), adjoints_.size(), 1), 0); }
  /// Adjoint i = 0.
  void clear_adjoint(index_t i) {
    executor_.fill(matrix<adjoint_type>(adjoint(i).data(), size_.memory, 1), 0);
  }
  /// Adjoint i *= alpha.
  void scale_adjoint(double alpha, index_t i) { executor_.scale(alpha, adjoint(i).data(), size_.memory); }
  /// Adds alpha times adjoint i to adjoint `to`.
  void add_adjoint(double alpha, index_t i, index_t to) {
    executor_.axpy(alpha, adjoint(i).data(), adjoint(to).data(), size_.memory);
  }
  /// WRITES its norm to `out`, at the executor's place.
  void norm_of_adjoint(index_t i, loss_type* out) { executor_.norm(adjoint(i).data(), size_.memory, out); }
  index_t slots() const { return graphs_.size(); }  ///< graphs that it has room for
  /// The segment whose graph is in a slot, or none.
  index_t owner(index_t slot) const { return graphs_[slot].segment; }
  /// The first segment of the batch that was written with the graph in this slot.
  index_t first_of_batch(index_t slot) const { return graphs_[slot].first; }
  const replay_counts& counts() const { return counts_; }
  std::size_t bytes() const {
    return memories_.bytes() + adjoints_.bytes() + tapes_.bytes() + work_.bytes() + past_.bytes() +
           dpast_.bytes() + graphs_.bytes() + answer_.bytes();
  }

  /// Shows what save and resume need, see core/visit.hpp. `read`: segments whose losses are known.
  template <class V>
  void visit(V&& v, index_t read) {
    visit_integer(v, "written", written_, std::max<index_t>(0, read - 1), std::min(read, past_.size() - 1));
    visit_graphs(v);
    visit_counts(v);
    visit_block(v, "memories", executor_, memories_, written_ * size_.memory);
    visit_block(v, "adjoints", executor_, adjoints_, adjoints_.size());
    visit_block(v, "tapes", executor_, tapes_, live_ > 0 ? tapes_.size() : 0);
  }

  /// The addresses of the adjoints of m_0 .. m_{t-1}, all null until the caller sets them; one set at a time.
  std::span<adjoint_type*> targets(index_t t) {
    std::fill_n(dpast_.data(), t, nullptr);
    return {dpast_.data(), std::size_t(t)};
  }

  /// Writes the memories of the next segments, from s = written() on, with their graphs in as many slots from
  /// `slot` on or without. Throws unroll::error on more than batch() of them; then, and where the model
  /// throws, they do not count as written.
  void write(const M& model, segments xs, params<const T> theta, index_t slot = none) {
    encode(model, xs, written_, theta, slot);
    counts_.writes += std::int64_t(xs.size());
    written_ += index_t(xs.size());
  }
  /// Whether the memories of the segments s .. s + n - 1 are finite.
  bool finite(index_t s, index_t n) { return finite(memory(s), n * size_.memory); }
  /// Of n numbers at the executor's place.
  template <class U>
  bool finite(const U* x, index_t n) {
    executor_.all_finite(x, n, 1, answer_.data());
    return exec::value(executor_, answer_.data()) != 0;
  }
  /// Only the first n memories count as written; graphs of others are gone.
  void keep_first(index_t n) {
    for (index_t slot = 0; slot < slots(); ++slot)
      if (owner(slot) >= n) release(slot);
    written_ = n;
  }
  /// Writes memories once more, to have their graphs.
  void rewrite(const M& model, segments xs, index_t s, params<const T> theta, index_t slot) {
    encode(model, xs, s, theta, slot);
    counts_.rewrites += std::int64_t(xs.size());
  }
  /// Sends dm back through the graphs of one batch, the first of which is in `slot`; the slots are free
  /// afterwards. Throws unroll::error where xs is not the batch that was written.
  void write_vjp(const M& model, segments xs, params<const T> theta, index_t slot,
                 view<const adjoint_type> dm, std::span<adjoint_type* const> dpast, dparams<T> g) {
    const index_t n = index_t(xs.size()), s = owner(slot);
    if (size_of_batch(slot) != n)
      fail("memory_bank::write_vjp", "xs",
           "are " + std::to_string(n) + " segments, the graph is that of " +
               std::to_string(size_of_batch(slot)));
    model.write_vjp(xs, s, theta, seen_by_write(model, s), view<const activation>(tape(slot, n)), dm, dpast,
                    g, work_of_write());
    counts_.write_vjps += n;
    release(slot);
  }
  void read(const M& model, segments xs, index_t t, params<const T> theta, loss_type* losses) {
    check_batch("memory_bank::read", xs);
    counts_.reads += std::int64_t(xs.size());
    model.read(xs, t, theta, past(t + index_t(xs.size()) - 1), losses, work());
  }
  void read_vjp(const M& model, segments xs, index_t t, params<const T> theta,
                std::span<adjoint_type* const> dpast, loss_type* losses, dparams<T> g) {
    check_batch("memory_bank::read_vjp", xs);
    counts_.reads += std::int64_t(xs.size());
    counts_.read_vjps += std::int64_t(xs.size());
    model.read_vjp(xs, t, theta, past(t + index_t(xs.size()) - 1), dpast, losses, g, work());
  }

 private:
  // Slots of one batch lie side by side and have the same `first`.
  struct graph {
    std::int32_t segment = none, first = none;
  };

  template <class V>
  void visit_graphs(V&& v) {
    live_ = 0;
    for (index_t slot = 0; slot < slots(); ++slot) {
      const std::string name = "slot" + std::to_string(slot);
      graph& g = graphs_[slot];
      visit_integer(v, name, g.segment, none, written_ - 1);
      visit_integer(v, name + ".first", g.first, none, g.segment);
      const index_t before = g.segment - g.first;
      const bool empty = g.segment == none;
      if (shared() && !empty) fail("visit", name, "holds a graph, which this estimator keeps in no stream");
      // what release() and write_vjp() rely on
      if (empty != (g.first == none) || before >= batch_ || before > slot ||
          (before > 0 &&
           (graphs_[slot - 1].segment != g.segment - 1 || graphs_[slot - 1].first != g.first)) ||
          (!empty && before == 0 && slot > 0 && graphs_[slot - 1].first == g.first))
        fail("visit", name,
             "holds the graph of segment " + std::to_string(g.segment) + " of a batch from " +
                 std::to_string(g.first) + " on, which does not fit the slots in front of it");
      live_ += empty ? 0 : 1;
    }
  }
  template <class V>
  void visit_counts(V&& v) {
    visit_integer(v, "writes", counts_.writes);
    visit_integer(v, "rewrites", counts_.rewrites);
    visit_integer(v, "write_vjps", counts_.write_vjps);
    visit_integer(v, "reads", counts_.reads);
    visit_integer(v, "read_vjps", counts_.read_vjps);
    visit_integer(v, "live_graphs", counts_.live_graphs);
  }
  void check_batch(std::string_view function, segments xs) const {
    if (index_t(xs.size()) > batch_)
      fail(function, "xs",
           "are " + std::to_string(xs.size()) + " segments, there is room for batches of " +
               std::to_string(batch_));
  }
  void encode(const M& model, segments xs, index_t s, params<const T> theta, index_t slot) {
    const index_t n = index_t(xs.size());
    check_batch("memory_bank::write", xs);
    // first: where the model throws, nobody owns what the tapes then hold
    for (index_t i = 0; slot != none && i < n; ++i) release(slot + i);
    model.write(xs, s, theta, seen_by_write(model, s), {memory(s), n * size_.memory},
                slot == none ? view<activation>{} : tape(slot, n), work_of_write());
    if (slot == none) return;
    for (index_t i = 0; i < n; ++i) graphs_[slot + i] = {std::int32_t(s + i), std::int32_t(s)};
    counts_.live_graphs = std::max(counts_.live_graphs, live_ += n);
  }
  index_t size_of_batch(index_t slot) const {
    index_t n = 0;
    for (const index_t first = graphs_[slot].first;
         slot + n < slots() && first != none && graphs_[slot + n].first == first;)
      ++n;
    return n;
  }
  // The graphs of a batch are one piece: they go together.
  void release(index_t slot) {
    if (slot == none || owner(slot) == none) return;
    const index_t first = slot - (owner(slot) - graphs_[slot].first), n = size_of_batch(first);
    std::fill_n(graphs_.data() + first, n, graph{});
    live_ -= n;
  }
  // The part of the workspace that writes need, where the model tells it.
  static index_t write_workspace(const M& model, index_t earlier, index_t batch) {
    if constexpr (requires { model.write_workspace(earlier, batch); })
      return arena<activation>::rounded(model.write_workspace(earlier, batch));
    else
      return none;
  }
  bool shared() const { return write_work_ != none; }
  view<activation> work() {
    for (index_t slot = 0; shared() && slot < slots(); ++slot) release(slot);
    return {work_.data(), work_.size()};
  }
  view<activation> work_of_write() { return {work_.data(), shared() ? write_work_ : work_.size()}; }
  view<activation> tape(index_t slot, index_t n) {
    return {(shared() ? work_.data() + write_work_ : tapes_.data()) + slot * size_.tape, n * size_.tape};
  }
  // Made for each call: a bank that was copied points to its own memories.
  std::span<const memory_type* const> past(index_t t) {
    for (index_t s = 0; s < t; ++s) past_[s] = memory(s);
    return {past_.data(), std::size_t(t)};
  }
  std::span<const memory_type* const> seen_by_write(const M& model, index_t s) {
    return past(model.independent() ? 0 : s);
  }

  template <class U>
  using place_block = typename executor_type::template block<U>;

  executor_type executor_;
  memory_dims size_;
  index_t batch_, write_work_;
  place_block<memory_type> memories_;
  place_block<adjoint_type> adjoints_;
  place_block<activation> tapes_, work_;
  place_block<loss_type> answer_;  // what is asked for and brought to the host
  block<const memory_type*> past_;
  block<adjoint_type*> dpast_;
  block<graph> graphs_;
  index_t written_ = 0, live_ = 0;
  replay_counts counts_;
};

}  // namespace unroll
