#pragma once

#include "unroll/estimate/parts/segment_run.hpp"

namespace unroll {

/// The segments whose graphs are alive, in slots, each with the adjoint it has collected. What
/// incremental_tbptt and reservoir_tbptt share: they differ in who stays and in the factor on what is new.
template <class M>
class graph_window {
 public:
  using T = typename M::scalar;
  using input = typename M::input;
  using adjoint_type = typename memory_bank<M>::adjoint_type;

  graph_window(const M& model, index_t segments, index_t size)
      : size_(size), run_(model, segments, 2 * size, size) {}

  void reset() { run_.reset(); }

  /// slot(s): the slot for the graph of segment s, whose holder is sent back and leaves, or none.
  /// factor(t): what the adjoints by J_t are multiplied with before they are added.
  /// Graphs leave when the next segment arrives, also where that segment is then refused.
  template <class Slot, class Factor>
  report advance(std::string_view function, const M& model, params<const T> theta, std::span<const input> xs,
                 dparams<T> g, Slot&& slot, Factor&& factor) {
    memory_bank<M>& bank = run_.bank();
    const auto make_room = [&](index_t s) {
      const index_t i = slot(s);
      if (i >= 0 && bank.owner(i) >= 0) send_back(model, theta, i, g);
      return i;
    };
    const auto targets = [&](index_t, std::span<adjoint_type*> dm) {
      for (index_t i = 0; i < size_; ++i)
        if (bank.owner(i) >= 0) dm[std::size_t(bank.owner(i))] = fresh(i).data();
    };
    return run_.feed(
        function, model, theta, xs, g, make_room, targets, [&](index_t t) { collect(T(factor(t))); },
        [&](index_t) { collect(T(0)); });
  }

  /// Sends back what is still alive, the newest first, so that writes that read pass on what they owe.
  report finish(const M& model, params<const T> theta, dparams<T> g) {
    const replay_counts before = counts();
    const report r = run_.check_finish(theta);
    if (r.code != status::ok) return run_.charge(r, before);
    for (index_t newest = 0; newest >= 0;) {
      newest = memory_bank<M>::none;
      for (index_t i = 0; i < size_; ++i)
        if (run_.bank().owner(i) >= 0 && (newest < 0 || run_.bank().owner(i) > run_.bank().owner(newest)))
          newest = i;
      if (newest >= 0) send_back(model, theta, newest, g);
    }
    return run_.charge(r, before);
  }

  const replay_counts& counts() const { return run_.bank().counts(); }
  index_t size() const { return size_; }
  template <class V>
  void visit(V&& v) {
    run_.visit(v);
  }
  index_t held() const { return run_.held(); }
  void hold(std::span<const input> xs) { run_.hold(xs); }

 private:
  view<adjoint_type> collected(index_t slot) { return run_.bank().adjoint(slot); }
  view<adjoint_type> fresh(index_t slot) { return run_.bank().adjoint(size_ + slot); }  // by the newest loss

  // Adds factor times what is fresh; a factor of 0 forgets it, even where it is not finite.
  void collect(T factor) {
    for (index_t i = 0; i < size_; ++i) {
      if (run_.bank().owner(i) < 0) continue;
      if (factor != T(0)) run_.bank().add_adjoint(double(factor), size_ + i, i);
      run_.bank().clear_adjoint(size_ + i);
    }
  }
  // An adjoint for a memory whose graph is gone has nowhere to go.
  void send_back(const M& model, params<const T> theta, index_t slot, dparams<T> g) {
    memory_bank<M>& bank = run_.bank();
    const index_t s = bank.owner(slot), earlier = model.independent() ? 0 : s;
    const std::span<adjoint_type*> dm = bank.targets(earlier);
    for (index_t i = 0; i < size_; ++i)
      if (bank.owner(i) >= 0 && bank.owner(i) < earlier) dm[std::size_t(bank.owner(i))] = collected(i).data();
    bank.write_vjp(model, run_.segments(s), theta, slot, collected(slot), dm, g);
    bank.clear_adjoint(slot);
  }

  index_t size_;
  segment_run<M> run_;
};

}  // namespace unroll
