#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "unroll/core/arena.hpp"
#include "unroll/exec/mirror.hpp"
#include "unroll/exec/range.hpp"
#include "unroll/exec/visit_block.hpp"
#include "unroll/memory/graph_slots.hpp"
#include "unroll/memory/kept_vectors.hpp"
#include "unroll/memory/model_traits.hpp"
#include "unroll/memory/replay_counts.hpp"

namespace unroll {

/// What a memory_bank has memory for.
struct memory_bank_sizes {
  index_t segments = 1;  ///< of a sequence. Nobody reads the memory of the last one: it is never written
  index_t adjoints = 0;  ///< accumulators for adjoints of memories
  index_t graphs = 0;    ///< graphs of writes that are alive at once
  index_t batch = 1;     ///< most segments of one call of the model
  /// Whether no graph is needed any more when a segment is read. Where the model says how much of the
  /// workspace writes need (write_workspace), graphs then lie in the rest of it, and every read overwrites
  /// them; they are not saved.
  bool graphs_end_with_reads = false;
};

/// How many adjoints a bank that keeps them on the host has room for at the place of the executor.
constexpr index_t adjoints_together(index_t batch) { return batch < 2 ? 2 : batch; }

/// The numbers of one sequence of segments: memories, accumulators for their adjoints, and the graphs (tapes)
/// of some writes. Calls the model with them, and counts the calls. Everything is allocated at construction,
/// at the place of the model's executor: (segments - 1) memories, as many adjoints and tapes as asked for,
/// and the workspace of one call. Memories and adjoints are in memory of the host where the model says so
/// (memories_on_host), with room for `batch` of them, of adjoints for two at least, at the place. Only
/// finite() waits for the executor, and nothing does once its answers are put off.
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
  using segments = std::span<const input>;            ///< consecutive inputs
  using gradients = memory_gradients<numbers_of<M>>;  ///< what a vjp adds to
  static constexpr index_t none = graph_slots::none;

  memory_bank(const M& model, const memory_bank_sizes& sizes)
      : executor_(executor_of(model)),
        size_(model.size()),
        batch_(sizes.batch),
        write_workspace_(sizes.graphs_end_with_reads ? workspace_of_writes(model, sizes) : none),
        memories_(executor_, sizes.segments - 1, size_.memory, batch_, memories_on_host(model)),
        adjoints_(executor_, sizes.adjoints, size_.memory, adjoints_together(batch_),
                  memories_on_host(model)),
        tapes_(executor_.template allocate<activation>(shared() ? 0 : sizes.graphs * size_.tape)),
        workspace_(executor_.template allocate<activation>(
            std::max(model.workspace(sizes.segments - 1, batch_),
                     shared() ? write_workspace_ + sizes.graphs * size_.tape : 0))),
        answer_(executor_.template allocate<loss_type>(1)),
        past_(sizes.segments),
        dpast_(sizes.segments),
        graphs_(sizes.graphs) {
    clear();
  }

  /// A new sequence: no memory, no graph, zero adjoints.
  void clear() {
    clear_adjoints();
    graphs_.clear();
    asked_.clear();
    written_ = 0;
    counts_ = {};
  }

  const executor_type& executor() const { return executor_; }
  index_t batch() const { return batch_; }               ///< most segments of a call
  index_t written() const { return written_; }           ///< memories so far
  const graph_slots& graphs() const { return graphs_; }  ///< whose graphs are alive
  const replay_counts& counts() const { return counts_; }
  /// Where memory s is kept.
  memory_type* memory(index_t s) { return memories_.at(s); }
  std::size_t bytes() const {
    return memories_.bytes() + adjoints_.bytes() + tapes_.bytes() + workspace_.bytes() + past_.bytes() +
           dpast_.bytes() + graphs_.bytes() + answer_.bytes() + answers_.bytes();
  }

  /// Where n adjoints are kept, one after another.
  view<adjoint_type> adjoint(index_t i, index_t n = 1) { return {adjoints_.at(i), n * size_.memory}; }
  /// All of them 0.
  void clear_adjoints() { clear_adjoint(0, adjoints_.size()); }
  /// n adjoints from i on = 0.
  void clear_adjoint(index_t i, index_t n = 1) {
    adjoints_.for_pieces(i, n, [&](index_t first, index_t count) {
      adjoints_.write(adjoints_.at(first), count, [&](view<adjoint_type> a) {
        executor_.fill(matrix<adjoint_type>(a.data(), a.size(), 1), 0);
      });
    });
  }
  /// Adjoint i *= alpha.
  void scale_adjoint(double alpha, index_t i) {
    adjoints_.update(adjoints_.at(i), 1,
                     [&](view<adjoint_type> a) { executor_.scale(alpha, a.data(), a.size()); });
  }
  /// Adds alpha times adjoint i to adjoint `to`.
  void add_adjoint(double alpha, index_t i, index_t to) {
    adjoints_.read(
        adjoints_.at(i), 1,
        [&](view<adjoint_type> a) {
          adjoints_.update(adjoints_.at(to), 1, [&](view<adjoint_type> sum) {
            executor_.axpy(alpha, a.data(), sum.data(), a.size());
          });
        },
        1);
  }
  /// WRITES its norm to *out, at the executor's place.
  void norm_of_adjoint(index_t i, loss_type* out) {
    adjoints_.read(adjoints_.at(i), 1,
                   [&](view<adjoint_type> a) { executor_.norm(a.data(), a.size(), out); });
  }

  /// The argument dpast of a call of the model behind t memories: t addresses to which it adds their
  /// adjoints, all null until the caller sets them. It is one list, which the next call of this clears.
  std::span<adjoint_type*> null_dpast(index_t t) {
    std::fill_n(dpast_.data(), t, nullptr);
    return {dpast_.data(), std::size_t(t)};
  }

  /// Writes the memories of the next segments, from s = written() on, with their graphs in as many slots from
  /// `slot` on, or without. Throws unroll::error on more than batch() of them; then, and where the model
  /// throws, they do not count as written.
  void write(const M& model, segments xs, params<const T> theta, index_t slot = none) {
    encode(model, xs, written_, theta, slot);
    counts_.writes += std::int64_t(xs.size());
    written_ += index_t(xs.size());
  }
  /// Writes the memories from s on once more, to have their graphs.
  void rewrite(const M& model, segments xs, index_t s, params<const T> theta, index_t slot) {
    encode(model, xs, s, theta, slot);
    counts_.rewrites += std::int64_t(xs.size());
  }
  /// Only the first n memories count as written; graphs of others are gone.
  void keep_first(index_t n) {
    graphs_.release_from(n);
    written_ = n;
  }
  /// Sends dm, one adjoint() a segment, back through the graphs of one batch, the first of which is in
  /// `slot`; the slots are empty afterwards. Throws unroll::error where xs is not the batch that was written.
  void write_vjp(const M& model, segments xs, params<const T> theta, index_t slot, view<adjoint_type> dm,
                 gradients to) {
    const index_t n = index_t(xs.size()), s = graphs_.owner(slot), written = graphs_.size_of_batch(slot);
    if (written != n)
      fail("memory_bank::write_vjp", "xs",
           "are " + std::to_string(n) + " segments, the graph is that of " + std::to_string(written));
    const exec::range named(executor_, "write_vjp", s, n);
    adjoints_.read(dm.data(), n, [&](view<const adjoint_type> at_place) {
      model.write_vjp(xs, s, theta, seen_by_write(model, s), {.tape = tape(slot, n), .dm = at_place}, to,
                      workspace_of_write());
    });
    counts_.write_vjps += n;
    graphs_.release(slot);
  }
  /// WRITES the losses of the segments from t on, one each, at the executor's place.
  void read(const M& model, segments xs, index_t t, params<const T> theta, loss_type* losses) {
    begin_read("memory_bank::read", xs);
    const exec::range named(executor_, "read", t, index_t(xs.size()));
    model.read(xs, t, theta, past(t + index_t(xs.size()) - 1), losses, workspace());
  }
  /// The same, and ADDS their adjoints of the t + xs.size() - 1 memories and their gradient of theta.
  void read_vjp(const M& model, segments xs, index_t t, params<const T> theta, loss_type* losses,
                gradients to) {
    begin_read("memory_bank::read_vjp", xs);
    const exec::range named(executor_, "read_vjp", t, index_t(xs.size()));
    counts_.read_vjps += std::int64_t(xs.size());
    model.read_vjp(xs, t, theta, past(t + index_t(xs.size()) - 1), losses, to, workspace());
  }

  /// Whether the memories of the segments s .. s + n - 1 are finite.
  bool finite(index_t s, index_t n) {
    bool all = true;
    memories_.for_pieces(s, n, [&](index_t first, index_t count) {
      memories_.read(memory(first), count, [&](view<memory_type> m) {
        if (!puts_off()) {
          all = all && finite(m.data(), m.size());
          return;
        }
        for (index_t i = 0; i < count; ++i) ask(m.data() + i * size_.memory, size_.memory, first + i + 1);
      });
    });
    return all;
  }
  /// Of the n numbers x at the executor's place.
  template <class U>
  bool finite(const U* x, index_t n) {
    executor_.all_finite(x, n, 1, answer_.data());
    return exec::value(executor_, answer_.data()) != 0;
  }

  /// From now on answers are put off: finite() of memories says yes and leaves its answers at the place, as
  /// ask() does, until first_not_finite() looks at all of them. Allocates room for two a segment.
  void put_off() {
    answers_ = exec::mirror<executor_type, loss_type>(executor_, 2 * past_.size() + 2);
    asked_.reserve(std::size_t(answers_.size()));
  }
  bool puts_off() const { return answers_.size() > 0; }  ///< whether answers are put off
  /// Asks whether the n numbers x are finite; where they are not, segment t is at fault.
  template <class U>
  void ask(const U* x, index_t n, index_t t) {
    const index_t i = index_t(asked_.size());
    if (i == answers_.size())
      fail("memory_bank", "answers", "have room for " + std::to_string(i) + " until somebody looks at them");
    executor_.all_finite(x, n, 1, answers_.data() + i);
    asked_.push_back(t);
  }
  /// The first segment at fault by the answers since the last call, or none. Waits for the executor.
  index_t first_not_finite() {
    const view<const loss_type> answers = answers_.fetch(executor_, index_t(asked_.size()));
    index_t first = none;
    for (index_t i = 0; i < answers.size(); ++i) {
      const index_t t = asked_[std::size_t(i)];
      if (answers[i] == 0 && (first == none || t < first)) first = t;
    }
    asked_.clear();
    return first;
  }

  /// Shows what save and resume need, see core/visit.hpp. `read`: segments whose losses are known.
  template <class V>
  void visit(V&& v, index_t read) {
    visit_integer(v, "written", written_, std::max<index_t>(0, read - 1), std::min(read, past_.size() - 1));
    if (shared()) graphs_.clear();  // whoever needs one writes it again
    graphs_.visit(v, written_, batch_);
    if (shared() && graphs_.live() > 0)
      fail("visit", "slots", "hold graphs, which this estimator keeps in no stream");
    counts_.visit(v);
    memories_.visit(v, "memories", written_);
    adjoints_.visit(v, "adjoints", adjoints_.size());
    visit_block(v, "tapes", executor_, tapes_, graphs_.live() > 0 ? tapes_.size() : 0);
  }

 private:
  void check_batch(std::string_view function, segments xs) const {
    if (index_t(xs.size()) > batch_)
      fail(function, "xs",
           "are " + std::to_string(xs.size()) + " segments, there is room for batches of " +
               std::to_string(batch_));
  }
  void encode(const M& model, segments xs, index_t s, params<const T> theta, index_t slot) {
    const index_t n = index_t(xs.size());
    check_batch("memory_bank::write", xs);
    const exec::range named(executor_, s < written_ ? "rewrite" : "write", s, n);
    const bool graph = slot != none;
    // first: where the model throws, nobody owns what the tapes then hold
    for (index_t i = 0; graph && i < n; ++i) graphs_.release(slot + i);
    memories_.write(memory(s), n, [&](view<memory_type> m) {
      model.write(xs, s, theta, seen_by_write(model, s), m, graph ? tape(slot, n) : view<activation>{},
                  workspace_of_write());
    });
    if (!graph) return;
    graphs_.fill(slot, s, n);
    counts_.live_graphs = std::max(counts_.live_graphs, graphs_.live());
  }
  void begin_read(std::string_view function, segments xs) {
    check_batch(function, xs);
    counts_.reads += std::int64_t(xs.size());
    if (shared()) graphs_.clear();
  }

  // The part of the workspace that writes need, where the model tells it.
  static index_t workspace_of_writes(const M& model, const memory_bank_sizes& sizes) {
    if constexpr (requires { model.write_workspace(sizes.segments, sizes.batch); })
      return arena<activation>::rounded(model.write_workspace(sizes.segments - 1, sizes.batch));
    else
      return none;
  }
  // Whether graphs lie in the workspace, behind what writes need.
  bool shared() const { return write_workspace_ != none; }
  view<activation> workspace() { return {workspace_.data(), workspace_.size()}; }
  view<activation> workspace_of_write() {
    return {workspace_.data(), shared() ? write_workspace_ : workspace_.size()};
  }
  view<activation> tape(index_t slot, index_t n) {
    activation* const tapes = shared() ? workspace_.data() + write_workspace_ : tapes_.data();
    return {tapes + slot * size_.tape, n * size_.tape};
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
  index_t batch_, write_workspace_;
  kept_vectors<executor_type, memory_type> memories_;
  kept_vectors<executor_type, adjoint_type> adjoints_;
  place_block<activation> tapes_, workspace_;
  place_block<loss_type> answer_;                   // what is asked for and brought to the host
  exec::mirror<executor_type, loss_type> answers_;  // that are put off; none: they are not
  std::vector<index_t> asked_;                      // who is at fault, answer by answer
  block<const memory_type*> past_;
  block<adjoint_type*> dpast_;
  graph_slots graphs_;
  index_t written_ = 0;
  replay_counts counts_;
};

}  // namespace unroll
