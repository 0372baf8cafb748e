#pragma once

#include <algorithm>

#include "unroll/core/block.hpp"
#include "unroll/estimate/parts/input_list.hpp"
#include "unroll/estimate/parts/run_groups.hpp"

namespace unroll {

/// The last steps of a sequence side by side in memory: their inputs, states, tapes and losses, so that any
/// consecutive ones among them can be walked backwards as one window. Inputs that wait to be run come last.
///
///     | forgotten | run: size() steps | pending |          room for `capacity` steps in all
template <class F>
class window_buffer {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// Room for `capacity` steps, and a workspace for passes over at most `longest` of them.
  window_buffer(const F& f, index_t capacity, index_t longest)
      : sizes_(f.size()),
        capacity_(capacity),
        inputs_(capacity),
        states_((capacity + 1) * sizes_.state),
        tape_(capacity * sizes_.tape),
        loss_(capacity),
        workspace_(window_workspace(f, longest)) {}

  /// An empty sequence that starts from s0, or from the system's own start when s0 is empty.
  void reset(const F& f, state<const T> s0) {
    inputs_.clear();
    forgotten_ = run_ = 0;
    origin_ = 0;
    start_state(f, state<T>(states_.data(), sizes_.state), s0);
  }

  index_t size() const { return run_ - forgotten_; }
  index_t pending() const { return inputs_.size() - run_; }  ///< inputs that wait for their window
  std::int64_t end() const { return origin_ + inputs_.size(); }
  std::size_t bytes() const {
    return states_.bytes() + tape_.bytes() + loss_.bytes() + workspace_.bytes() + inputs_.bytes();
  }

  void push(const input& x) { inputs_.push(x); }  ///< takes an input
  void drop(index_t n) { inputs_.drop_last(n); }  ///< gives the newest n inputs up

  /// Runs the pending inputs; see run_groups().
  index_t forward(const F& f, params<const T> theta, report& r) {
    const index_t n = pending();
    const index_t bad = run_window(f, inputs_.part(run_, n), at(theta, run_, n), r);
    if (bad < 0) run_ += n;
    return bad;
  }

  /// Walks backwards over `count` steps that were run, from the `first`-th remembered one on. ds: a state;
  /// enters as the cotangent of the last state and leaves as that of the first. ADDS to g.
  void backward(const F& f, params<const T> theta, index_t first, index_t count, const injection<T>& in,
                dstate<T> ds, dparams<T> g, report& r) {
    window_backward(f, inputs_.part(forgotten_ + first, count), at(theta, forgotten_ + first, count), in, ds,
                    g);
    r.vjps += count;
  }

  /// Input and edge of the `i`-th remembered step.
  const input& x(index_t i) const { return inputs_.part(forgotten_ + i, 1).front(); }
  unroll::edge<T> edge(const F& f, params<const T> theta, index_t i) {
    return edge_of(f, at(theta, forgotten_, size()), i);
  }

  /// Forgets all but the last `n` steps that were run. Moves these to the front of the memory where fewer
  /// than `room` steps fit behind them. Only when nothing is pending.
  void keep_last(index_t n, index_t room) {
    forgotten_ = run_ - std::min(n, size());
    if (run_ + room <= capacity_) return;
    const index_t kept = size();
    std::copy_n(states_.data() + forgotten_ * sizes_.state, (kept + 1) * sizes_.state, states_.data());
    std::copy_n(tape_.data() + forgotten_ * sizes_.tape, kept * sizes_.tape, tape_.data());
    std::copy_n(loss_.data() + forgotten_, kept, loss_.data());
    inputs_.drop_first(forgotten_);
    origin_ += forgotten_;
    run_ = kept;
    forgotten_ = 0;
  }

  /// The state behind the last input. Pending inputs are run for it, and later once more by forward(). Valid
  /// until the next call.
  state<const T> last_state(const F& f, params<const T> theta) {
    if (const index_t n = pending(); n > 0) {
      inputs_.check_held();
      check_size("last_state", "theta", theta.size(), sizes_.params);
      window_forward(f, inputs_.part(run_, n), at(theta, run_, n));
    }
    return {states_.data() + inputs_.size() * sizes_.state, sizes_.state};
  }

  /// What bounds the counters between two calls of an estimator.
  struct limits {
    index_t kept = 0;     ///< steps that are remembered, at most; where none, no tape is saved
    index_t pending = 0;  ///< inputs that wait, at most; where none and nothing is kept, no input is saved
    index_t room = 0;     ///< steps that must fit behind those that were run
  };
  template <class V>
  void visit(V&& v, const limits& most) {
    if (most.kept + most.pending > 0) {
      inputs_.visit(v, capacity_);
      const index_t n = inputs_.size();
      visit_integer(v, "run", run_, n - std::min(n, most.pending), std::min(n, capacity_ - most.room));
      if (most.kept > 0)
        visit_integer(v, "forgotten", forgotten_, run_ - std::min(run_, most.kept), run_);
      else
        forgotten_ = run_;
    }
    visit_integer(v, "origin", origin_);
    v("states", view<T, state_space>(states_));
    if (most.kept > 0) v("tape", view<T, tape_space>(tape_));
  }
  index_t held() const { return inputs_.size(); }
  void hold(std::span<const input> xs) { inputs_.hold(xs); }
  void check_held() const { inputs_.check_held(); }  ///< throws unless resumed inputs were given back

 private:
  window<T> at(params<const T> theta, index_t first, index_t count) {
    return {theta,
            count,
            states_.data() + first * sizes_.state,
            tape_.data() + first * sizes_.tape,
            loss_.data() + first,
            workspace_,
            origin_ + first};
  }

  dims sizes_;
  index_t capacity_;
  input_list<input> inputs_;
  block<T, state_space> states_;     // capacity + 1 states
  block<T, tape_space> tape_;        // capacity tapes
  buffer<T> loss_, workspace_;       // capacity losses
  index_t forgotten_ = 0, run_ = 0;  // in steps from the front of the memory
  std::int64_t origin_ = 0;          // index since reset of the step at the front
};

/// advance() of an estimator that looks forward one step at a time: runs each of xs in `memory`, a window of
/// one, ADDS what its loss owes to theta directly to g, WRITES dl/ds of the state in front of it to q, and
/// calls step(edge, report). Where dz is not empty, what is owed to weight_matrices() is left there instead
/// (has_factored_vjp).
template <class F, class Step>
report run_steps(const F& f, params<const typename F::scalar> theta, std::span<const typename F::input> xs,
                 window_buffer<F>& memory, dstate<typename F::scalar> q, dparams<typename F::scalar> g,
                 Step&& step, view<typename F::scalar> dz = {}) {
  using T = typename F::scalar;
  const auto full = [&] { return memory.pending() == 1; };
  return run_groups(f, theta, xs, memory, full, [&](report& spent) {
    std::fill(q.begin(), q.end(), T(0));
    const const_edge<T> e = memory.edge(f, theta, 0);
    if (dz.empty()) {
      memory.backward(f, theta, 0, 1, {}, q, g, spent);
    } else if constexpr (has_factored_vjp<F>) {
      f.factored_vjp(memory.x(0), e, {}, T(1), q, g, dz);
      ++spent.vjps;
    }
    step(e, spent);
    memory.keep_last(0, 1);
  });
}

}  // namespace unroll
