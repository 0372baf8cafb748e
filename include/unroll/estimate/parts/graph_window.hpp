#pragma once

#include "unroll/estimate/parts/segment_run.hpp"

namespace unroll {

/// The graphs that are alive in the slots of a run's bank, each with two adjoints of its memory: adjoint
/// `slot` is the sum over the losses so far, adjoint graphs + `slot` the newest loss's part, until that loss
/// is known to be finite. What incremental_tbptt and reservoir_tbptt share; theta is the same throughout.
template <class M>
class graph_window {
 public:
  using T = typename M::scalar;
  using adjoint_type = typename memory_bank<M>::adjoint_type;

  /// The bank that a window of `size` graphs needs.
  static memory_bank_sizes sizes(index_t segments, index_t size) {
    const index_t graphs = std::min(size, std::max<index_t>(1, segments - 1));
    return {.segments = segments, .adjoints = 2 * graphs, .graphs = graphs};
  }

  graph_window(segment_run<M>& run, const M& model, params<const T> theta)
      : run_(run), bank_(run.bank()), model_(model), theta_(theta) {}

  /// Takes xs one after another into the run; each loss of segment t adds what it owes, times weight(t), to
  /// the memories whose graphs are alive. The graph of segment s goes to slot(s), which is emptied before, or
  /// to none. False: one of xs, its loss or a memory in front of it is not finite.
  template <class Slot, class Weight>
  bool take_all(std::span<const typename M::input> xs, dparams<T> g, report& r, Slot&& slot,
                Weight&& weight) {
    for (const auto& x : xs) {
      if (!finite_input(model_, x)) return false;
      const index_t t = run_.size();  // x is segment t, and reads m_0 .. m_{t-1}
      if (bank_.written() < t) {
        const index_t into = slot(t - 1);
        send_back(into, g);
        if (!run_.write(model_, theta_, into)) return false;
      }
      if (!run_.read(model_, theta_, x, route_adjoints(t), g, r)) return false;
      collect(weight(t));
    }
    return true;
  }

  /// The addresses to which the loss of segment t adds its adjoints of the t memories in front of it; null
  /// for a memory whose graph is gone.
  std::span<adjoint_type*> route_adjoints(index_t t) {
    const std::span<adjoint_type*> dpast = bank_.null_dpast(t);
    for (index_t slot = 0; slot < size(); ++slot) {
      if (!alive(slot)) continue;
      bank_.clear_adjoint(newest(slot));
      dpast[std::size_t(owner(slot))] = bank_.adjoint(newest(slot)).data();
    }
    return dpast;
  }
  /// Adds what the newest loss has sent, times a factor, to what the losses before it have.
  void collect(double factor) {
    for (index_t slot = 0; slot < size(); ++slot)
      if (alive(slot)) bank_.add_adjoint(double(T(factor)), newest(slot), slot);
  }

  /// Sends what has been collected back through the graph in a slot, which is empty afterwards. Nothing to do
  /// where the slot is none or empty.
  void send_back(index_t slot, dparams<T> g) {
    if (slot == memory_bank<M>::none || !alive(slot)) return;
    const index_t s = owner(slot), earlier = model_.independent() ? 0 : s;
    const std::span<adjoint_type*> dpast = bank_.null_dpast(earlier);
    for (index_t i = 0; i < size(); ++i)
      if (alive(i) && owner(i) < earlier) dpast[std::size_t(owner(i))] = bank_.adjoint(i).data();
    bank_.write_vjp(model_, run_.segments(s), theta_, slot, bank_.adjoint(slot),
                    {.dpast = dpast, .dtheta = g});
    bank_.clear_adjoint(slot);
  }
  /// Of all graphs, the newest first, so that writes that read pass on what they owe.
  void send_all_back(dparams<T> g) {
    for (index_t slot = newest_alive(); slot != memory_bank<M>::none; slot = newest_alive())
      send_back(slot, g);
  }

 private:
  index_t size() const { return bank_.graphs().size(); }
  index_t owner(index_t slot) const { return bank_.graphs().owner(slot); }
  bool alive(index_t slot) const { return owner(slot) != memory_bank<M>::none; }
  index_t newest(index_t slot) const { return size() + slot; }
  index_t newest_alive() const {
    index_t newest = memory_bank<M>::none;
    for (index_t slot = 0; slot < size(); ++slot)
      if (alive(slot) && (newest == memory_bank<M>::none || owner(slot) > owner(newest))) newest = slot;
    return newest;
  }

  segment_run<M>& run_;
  memory_bank<M>& bank_;
  const M& model_;
  params<const T> theta_;
};

}  // namespace unroll
