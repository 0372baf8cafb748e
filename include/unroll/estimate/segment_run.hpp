#pragma once

#include <cmath>
#include <string>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/feed.hpp"
#include "unroll/estimate/input_list.hpp"
#include "unroll/memory/bank.hpp"

namespace unroll {

/// What the estimators over memory models share: the segments of a sequence, their bank, and the loop that
/// writes each memory when the next segment arrives and reads that segment.
template <class M>
class segment_run {
 public:
  using T = typename M::scalar;
  using input = typename M::input;

  segment_run(const M& model, index_t segments, index_t adjoints, index_t graphs)
      : most_(checked(segments)),
        segments_(segments),
        bank_(model, segments, adjoints, graphs),
        direct_(reads_params(model) ? model.size().params : 0) {}

  void reset() {
    segments_.clear();
    bank_.clear();
  }

  index_t size() const { return segments_.size(); }
  const input& segment(index_t s) const { return segments_.part(s, 1).front(); }
  memory_bank<M>& bank() { return bank_; }
  const memory_bank<M>& bank() const { return bank_; }

  /// Takes the segments one by one.
  ///   graph(s)        slot for the graph of the write of segment s, or none
  ///   targets(t, dm)  sets dm[s], the address to which the adjoint of m_s by J_t is added; null: nowhere
  ///   taken(t)        J_t is finite
  ///   refused(t)      it is not: what was added to the targets must be taken away again
  /// Throws when there are more segments than there is room for.
  template <class Graph, class Targets, class Taken, class Refused>
  report feed(std::string_view function, const M& model, params<const T> theta, std::span<const input> xs,
              dparams<T> g, Graph&& graph, Targets&& targets, Taken&& taken, Refused&& refused) {
    if (size() + index_t(xs.size()) > most_)
      fail(function, "xs",
           "makes " + std::to_string(size() + index_t(xs.size())) + " segments, options.segments is " +
               std::to_string(most_));
    const replay_counts before = bank_.counts();
    report r;
    const auto stop = [&] {
      r.code = status::non_finite;
      r.at = size();
      return charge(r, before);
    };
    if (!linalg::all_finite(theta.data(), theta.size())) return stop();
    for (const auto& x : xs) {
      const index_t t = size();
      if (!finite_input(model, x)) return stop();
      if (t > bank_.written() && !bank_.write(model, segment(t - 1), theta, graph(t - 1))) return stop();
      const std::span<T*> dm = bank_.targets(t);
      T loss;
      if (t == 0 && direct_.size() == 0) {
        loss = bank_.read(model, x, t, theta);
      } else {
        targets(t, dm);
        direct_.zero();
        loss = bank_.read_vjp(model, x, t, theta, dm, direct_);
      }
      if (!std::isfinite(loss)) {
        refused(t);
        return stop();
      }
      linalg::axpy(T(1), direct_.data(), g.data(), direct_.size());
      segments_.push(x);
      r.loss += double(loss);
      r.losses += scored_losses(model, x);
      ++r.consumed;
      taken(t);
    }
    return charge(r, before);
  }

  /// The same where every memory has its adjoint, adjoint(s): all of what the losses send is added up.
  template <class Graph>
  report accumulate(std::string_view function, const M& model, params<const T> theta,
                    std::span<const input> xs, dparams<T> g, Graph&& graph) {
    return feed(
        function, model, theta, xs, g, graph, [&](index_t t, std::span<T*> dm) { aim(t, dm); },
        [](index_t) {}, [&](index_t t) { accumulate_again(model, theta, t); });
  }
  /// Sets dm to the adjoints of m_0 .. m_{t-1}.
  void aim(index_t t, std::span<T*> dm) {
    for (index_t s = 0; s < t; ++s) dm[std::size_t(s)] = bank_.adjoint(s).data();
  }

  /// The first report of finish(): not ok where theta is not finite.
  report check_finish(params<const T> theta) const {
    report r;
    if (linalg::all_finite(theta.data(), theta.size())) return r;
    r.code = status::non_finite;
    r.at = size();
    return r;
  }

  /// Enters the work done since `before`, and the memory held.
  report charge(report r, const replay_counts& before) const {
    const replay_counts& now = bank_.counts();
    r.steps += now.writes + now.rewrites + now.reads - before.writes - before.rewrites - before.reads;
    r.vjps += now.write_vjps + now.read_vjps - before.write_vjps - before.read_vjps;
    r.bytes = segments_.bytes() + bank_.bytes() + direct_.bytes();
    return r;
  }

 private:
  // The adjoints by the losses in front of segment t, added in the same order as before.
  void accumulate_again(const M& model, params<const T> theta, index_t t) {
    for (index_t s = 0; s < t; ++s) std::fill(bank_.adjoint(s).begin(), bank_.adjoint(s).end(), T(0));
    for (index_t u = 1; u < t; ++u) {
      const std::span<T*> dm = bank_.targets(u);
      aim(u, dm);
      bank_.read_vjp(model, segment(u), u, theta, dm, direct_);
    }
  }
  static index_t checked(index_t segments) {
    check_at_least("segment_run", "segments", segments, 1);
    return segments;
  }

  index_t most_;
  input_list<input> segments_;
  memory_bank<M> bank_;
  gradient<T> direct_;  // what J_t owes to theta directly, added to g when J_t is known to be finite
};

/// Throws unless there is no s0: the first segment of a memory model has nothing in front of it.
template <class T>
void check_no_start(std::string_view function, state<const T> s0) {
  if (!s0.empty()) fail(function, "s0", "is given, but a memory model begins without memories");
}

/// Throws where writes read earlier memories.
template <class M>
void check_independent(std::string_view function, const M& model) {
  if (!model.independent())
    fail(function, "model",
         "writes memories that depend on earlier ones; take rematerialise or incremental_tbptt");
}

}  // namespace unroll
