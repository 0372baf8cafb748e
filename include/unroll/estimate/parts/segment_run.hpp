#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/input_list.hpp"
#include "unroll/estimate/parts/run_groups.hpp"
#include "unroll/memory/bank.hpp"

namespace unroll {

/// visit_identity().
template <class V, class M>
void visit_memory_identity(V&& v, const std::string& estimator, const M& model) {
  visit_identity(v, estimator, model);
}

/// What the estimators over memory models share: the segments of a sequence, their bank, and the loops that
/// write each memory when the next segment arrives and read that segment.
template <class M>
class segment_run {
 public:
  using T = typename M::scalar;
  using input = typename M::input;
  using adjoint_type = typename memory_bank<M>::adjoint_type;
  using loss_type = typename memory_bank<M>::loss_type;

  /// The arguments of memory_bank.
  segment_run(const M& model, index_t segments, index_t adjoints, index_t graphs, index_t batch = 1,
              bool graphs_end_with_reads = false)
      : most_(checked(segments)),
        segments_(segments),
        bank_(model, segments, adjoints, graphs, batch, graphs_end_with_reads),
        losses_(bank_.executor().template allocate<loss_type>(segments)),
        seen_(segments),
        before_(bank_.executor().template allocate<T>(reads_params(model) ? model.size().params : 0)) {}

  void reset() {
    segments_.clear();
    bank_.clear();
  }

  index_t size() const { return segments_.size(); }
  /// Inputs from s on.
  std::span<const input> segments(index_t s, index_t n = 1) const { return segments_.part(s, n); }
  memory_bank<M>& bank() { return bank_; }
  const memory_bank<M>& bank() const { return bank_; }

  template <class V>
  void visit(V&& v) {
    segments_.visit(v, most_);
    bank_.visit(v, held());
  }
  index_t held() const { return size(); }
  void hold(std::span<const input> xs) { segments_.hold(xs); }

  /// Takes the segments one by one and looks at each loss.
  ///   graph(s)        slot for the graph of the write of segment s, or none
  ///   targets(t, dm)  sets dm[s], the address to which the adjoint of m_s by J_t is added; null: nowhere
  ///   taken(t)        J_t is finite
  ///   refused(t)      it is not: what was added to the targets must be taken away again
  /// Throws when there are more segments than there is room for.
  template <class Graph, class Targets, class Taken, class Refused>
  report feed(std::string_view function, const M& model, params<const T> theta, std::span<const input> xs,
              dparams<T> g, Graph&& graph, Targets&& targets, Taken&& taken, Refused&& refused) {
    const replay_counts before = bank_.counts();
    report r = start(function, theta, xs);
    if (r.code == status::ok) one_by_one(r, model, theta, xs, g, graph, targets, taken, refused);
    return charge(r, before);
  }

  /// Takes the segments in batches, where every memory has its adjoint, adjoint(s), and all of what the
  /// losses send is added up. The losses are looked at when all segments have been read; where one of them,
  /// or a memory, is not finite, or the model has thrown, the sequence goes back to where it was and takes
  /// the same segments one by one, which stops at the right one.
  ///   graph(s)        slot for the graphs of the batch whose first segment is s, or none
  template <class Graph>
  report accumulate(std::string_view function, const M& model, params<const T> theta,
                    std::span<const input> xs, dparams<T> g, Graph&& graph) {
    const replay_counts before = bank_.counts();
    report r = start(function, theta, xs);
    if (r.code != status::ok) return charge(r, before);
    const std::span<const input> good = xs.first(usable(model, xs));
    const index_t t0 = size(), written = bank_.written();
    remember(g);
    if (!good.empty() && batches(model, theta, good, g, graph)) {
      enter(r, model, t0);
      xs = xs.subspan(good.size());
    } else if (!good.empty()) {
      restore(g);
      segments_.drop_last(size() - t0);
      bank_.keep_first(written);
      accumulate_again(model, theta, t0);
    }
    one_by_one(
        r, model, theta, xs, g, graph, [&](index_t t, std::span<adjoint_type*> dm) { aim(t, dm); },
        [](index_t) {}, [&](index_t t) { accumulate_again(model, theta, t); });
    return charge(r, before);
  }
  /// Sets dm to the adjoints of m_0 .. m_{t-1}.
  void aim(index_t t, std::span<adjoint_type*> dm) {
    for (index_t s = 0; s < t; ++s) dm[std::size_t(s)] = bank_.adjoint(s).data();
  }
  /// The first segment of the batch that ends with s: segments of two batches have different s / batch().
  index_t batch_start(index_t s) const { return s - s % bank_.batch(); }

  /// Sends the adjoints of the segments s .. s + n - 1, a batch, back through their graphs in the slots from
  /// `slot` on; where they are not there, writes the segments once more.
  void send_back(const M& model, params<const T> theta, index_t s, index_t n, index_t slot, dparams<T> g) {
    if (bank_.owner(slot) != s) bank_.rewrite(model, segments(s, n), s, theta, slot);
    const index_t earlier = model.independent() ? 0 : s;
    const std::span<adjoint_type*> dm = bank_.targets(earlier);
    aim(earlier, dm);
    bank_.write_vjp(model, segments(s, n), theta, slot, bank_.adjoint(s, n), dm, g);
  }

  /// WRITES the norms of the first adjoints, in finish(): the losses are no more looked at. A norm is 0 of
  /// zero only; where squares vanish it is taken of a multiple.
  void norms(view<double> out) {
    const auto all = [&] {
      for (index_t i = 0; i < out.size(); ++i) bank_.norm_of_adjoint(i, losses_.data() + i);
      look(0, out.size());
    };
    all();
    const int power = std::numeric_limits<adjoint_type>::max_exponent / 4 * 3;
    for (index_t i = 0; i < out.size(); ++i) {
      out[i] = double(seen_[i]);
      if (out[i] == 0) bank_.scale_adjoint(std::ldexp(1., power), i);
    }
    if (std::find(out.begin(), out.end(), 0.) == out.end()) return;
    all();
    for (index_t i = 0; i < out.size(); ++i) {
      if (out[i] != 0) continue;
      out[i] = std::ldexp(double(seen_[i]), -power);
      bank_.scale_adjoint(std::ldexp(1., -power), i);
    }
  }

  /// The first report of finish(): not ok where theta is not finite.
  report check_finish(params<const T> theta) {
    segments_.check_held();
    report r;
    if (bank_.finite(theta.data(), theta.size())) return r;
    r.code = status::non_finite;
    r.at = size();
    return r;
  }

  /// Enters the work done since `before`, and the memory held.
  report charge(report r, const replay_counts& before) const {
    const replay_counts& now = bank_.counts();
    r.steps += now.writes + now.rewrites + now.reads - before.writes - before.rewrites - before.reads;
    r.vjps += now.write_vjps + now.read_vjps - before.write_vjps - before.read_vjps;
    r.bytes = segments_.bytes() + bank_.bytes() + losses_.bytes() + seen_.bytes() + before_.bytes();
    return r;
  }

 private:
  report start(std::string_view function, params<const T> theta, std::span<const input> xs) {
    segments_.check_held();
    if (size() + index_t(xs.size()) > most_)
      fail(function, "xs",
           "makes " + std::to_string(size() + index_t(xs.size())) + " segments, options.segments is " +
               std::to_string(most_));
    return check_finish(theta);
  }
  template <class Graph, class Targets, class Taken, class Refused>
  void one_by_one(report& r, const M& model, params<const T> theta, std::span<const input> xs, dparams<T> g,
                  Graph&& graph, Targets&& targets, Taken&& taken, Refused&& refused) {
    const auto stop = [&] {
      r.code = status::non_finite;
      r.at = size();
    };
    for (const auto& x : xs) {
      const index_t t = size();
      if (!finite_input(model, x)) return stop();
      if (const index_t s = t - 1; t > bank_.written()) {
        bank_.write(model, segments(s), theta, graph(s));
        if (!bank_.finite(s, 1)) {
          bank_.keep_first(s);
          return stop();
        }
      }
      remember(g);
      read(model, {&x, 1}, t, theta, g, targets);
      if (!look(t, 1)) {
        restore(g);
        refused(t);
        return stop();
      }
      segments_.push(x);
      enter(r, model, t);
      taken(t);
    }
  }
  // Takes all segments; false where something is not finite, or the model throws.
  template <class Graph>
  bool batches(const M& model, params<const T> theta, std::span<const input> xs, dparams<T> g,
               Graph&& graph) {
    const index_t t0 = size(), written = bank_.written();
    for (const auto& x : xs) segments_.push(x);
    try {
      for (index_t t = t0, n = 0; t < size(); t += n) {
        // the memories in front of segments t .. t + n - 1 belong to one batch of writes
        n = t == 0 ? 1 : std::min(size() - t, batch_start(t - 1) + bank_.batch() - (t - 1));
        if (const index_t w = bank_.written(), end = t + n - 1; w < end)
          bank_.write(model, segments(w, end - w), theta, graph(w));
        read(model, segments(t, n), t, theta, g,
             [&](index_t end, std::span<adjoint_type*> dm) { aim(end, dm); });
      }
    } catch (...) {
      return false;
    }
    return bank_.finite(written, bank_.written() - written) && look(t0, size() - t0);
  }
  // Brings n losses to the host; whether they are finite.
  bool look(index_t t, index_t n) {
    bank_.executor().download(losses_.data() + t, n, seen_.data() + t);
    bank_.executor().synchronise();
    return std::all_of(seen_.data() + t, seen_.data() + t + n,
                       [](loss_type loss) { return std::isfinite(loss); });
  }
  template <class Targets>
  void read(const M& model, std::span<const input> xs, index_t t, params<const T> theta, dparams<T> g,
            Targets&& targets) {
    loss_type* const losses = losses_.data() + t;
    if (t == 0 && before_.size() == 0) return bank_.read(model, xs, t, theta, losses);
    const index_t end = t + index_t(xs.size()) - 1;
    const std::span<adjoint_type*> dm = bank_.targets(end);
    targets(end, dm);
    bank_.read_vjp(model, xs, t, theta, dm, losses, before_.size() == 0 ? dparams<T>{} : g);
  }
  // The segments from t on are in the sequence.
  void enter(report& r, const M& model, index_t t) {
    for (; t < size(); ++t) {
      r.loss += double(seen_[t]);
      r.losses += scored_losses(model, segments(t).front());
      ++r.consumed;
    }
  }
  static std::size_t usable(const M& model, std::span<const input> xs) {
    std::size_t n = 0;
    try {
      while (n < xs.size() && finite_input(model, xs[n])) ++n;
    } catch (const error&) {
    }
    return n;
  }
  // What a loss owes to theta directly is in g before the loss is known to be finite.
  void remember(dparams<T> g) { copy(g.data(), before_.data()); }
  void restore(dparams<T> g) { copy(before_.data(), g.data()); }
  void copy(const T* from, T* to) {
    const index_t n = before_.size();
    bank_.executor().copy(matrix<const T>(from, n, 1), matrix<T>(to, n, 1));
  }

  // The adjoints by the losses in front of segment t, added in the same order as before.
  void accumulate_again(const M& model, params<const T> theta, index_t t) {
    bank_.clear_adjoints();
    for (index_t u = 1, n = 0; u < t; u += n) {
      n = std::min(t - u, bank_.batch());
      const std::span<adjoint_type*> dm = bank_.targets(u + n - 1);
      aim(u + n - 1, dm);
      bank_.read_vjp(model, segments(u, n), u, theta, dm, losses_.data() + u, {});
    }
  }
  static index_t checked(index_t segments) {
    check_at_least("segment_run", "segments", segments, 1);
    return segments;
  }

  index_t most_;
  input_list<input> segments_;
  memory_bank<M> bank_;
  typename memory_bank<M>::executor_type::template block<loss_type> losses_;
  block<loss_type> seen_;  // the losses, on the host
  typename memory_bank<M>::executor_type::template block<T>
      before_;  // g in front of the segments whose losses have not been looked at
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

/// The batch that `segments` segments, one of which is written by nobody, can make use of. Throws
/// unroll::error where there is none, and where writes read earlier memories and can only be made one by one.
template <class M>
index_t batch_of(std::string_view function, const M& model, index_t segments, index_t batch) {
  check_at_least(function, "batch", batch, 1);
  if (batch > 1 && !model.independent())
    fail(function, "batch",
         "is " + std::to_string(batch) + ", the model's writes read earlier memories: their batch is 1");
  return std::min(batch, std::max<index_t>(1, segments - 1));
}
/// n graphs, rounded up to whole batches.
inline index_t whole_batches(index_t n, index_t batch) { return (n + batch - 1) / batch * batch; }

}  // namespace unroll
