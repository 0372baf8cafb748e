#pragma once

#include "unroll/core/block.hpp"
#include "unroll/estimate/feed.hpp"
#include "unroll/estimate/input_list.hpp"

namespace unroll {

/// The steps of one block of a sequence, for the estimators that run a block, use it and forget all of it
/// before the next: inputs, states, tapes and losses of up to `capacity` steps. Can be fed by feed().
template <class F>
class block_memory {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  block_memory(const F& f, index_t capacity)
      : sizes_(f.size()),
        capacity_(capacity),
        inputs_(capacity),
        states_((capacity + 1) * sizes_.state),
        tape_(capacity * sizes_.tape),
        loss_(capacity),
        scratch_(window_scratch(f, capacity)) {}

  /// An empty sequence that starts from s0, or from the system's own start when s0 is empty.
  void reset(const F& f, state<const T> s0) {
    inputs_.clear();
    origin_ = 0;
    const state<T> first(states_.data(), sizes_.state);
    if (s0.empty())
      start_state(f, first);
    else
      std::copy(s0.begin(), s0.end(), first.begin());
  }

  index_t pending() const { return inputs_.size(); }
  bool full() const { return pending() == capacity_; }
  std::int64_t end() const { return origin_ + pending(); }
  std::size_t bytes() const {
    return inputs_.bytes() + states_.bytes() + tape_.bytes() + loss_.bytes() + scratch_.bytes();
  }

  void push(const input& x) { inputs_.push(x); }
  void drop(index_t n) { inputs_.drop_last(n); }

  /// Runs the block; see feed().
  index_t forward(const F& f, params<const T> theta, report& r) {
    return run_window(f, inputs_.part(0, pending()), all(theta), r);
  }
  /// Walks the block, which has been run, backwards with a weight of one for every loss.
  void backward(const F& f, params<const T> theta, dstate<T> ds, dparams<T> g, report& r) {
    window_backward(f, inputs_.part(0, pending()), all(theta), {}, ds, g);
    r.vjps += pending();
  }
  const input& x(index_t i) const { return inputs_.part(i, 1).front(); }
  unroll::edge<T> edge(const F& f, params<const T> theta, index_t i) { return edge_of(f, all(theta), i); }

  /// Forgets the block: its last state is the first of the next one.
  void forget() {
    std::copy_n(states_.data() + pending() * sizes_.state, sizes_.state, states_.data());
    origin_ += pending();
    inputs_.clear();
  }

 private:
  window<T> all(params<const T> theta) {
    return {theta, pending(), states_.data(), tape_.data(), loss_.data(), scratch_, origin_};
  }

  dims sizes_;
  index_t capacity_;
  input_list<input> inputs_;
  block<T, state_space> states_;
  block<T, tape_space> tape_;
  buffer<T> loss_, scratch_;
  std::int64_t origin_ = 0;  // index since reset of the first step of the block
};

}  // namespace unroll
