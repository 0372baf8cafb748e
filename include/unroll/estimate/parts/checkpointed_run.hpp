#pragma once

#include "unroll/core/block.hpp"
#include "unroll/estimate/parts/checkpoint_schedule.hpp"
#include "unroll/estimate/parts/input_list.hpp"
#include "unroll/estimate/parts/run_groups.hpp"

namespace unroll {

/// A run of steps, of any length, that can be walked backwards once in the memory of a few states and of the
/// tapes of one block. The steps of the checkpoint_schedule are the blocks of the run, counted from its first
/// step: walking backwards, each is run again from the nearest snapshot in front of it. All inputs are kept,
/// in a list that grows where a run is longer than what was reserved.
template <class F>
class checkpointed_run {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// slots: snapshots. block: steps. steps: the length of the run where it is known, else 0. reserve: inputs
  /// to make room for.
  checkpointed_run(const F& f, index_t slots, index_t block, index_t steps, index_t reserve)
      : sizes_(f.size()),
        block_(block),
        schedule_(slots, (steps + block - 1) / block),
        inputs_(reserve),
        snapshots_(slots * sizes_.state),
        states_((block + 1) * sizes_.state),
        tape_(block * sizes_.tape),
        loss_(block),
        workspace_(window_workspace(f, block)),
        carry_(block),
        last_(sizes_.state),
        delta_(sizes_.state) {}

  /// An empty run, the first of a sequence.
  void reset(const F& f, state<const T> s0) {
    start_ = 0;
    begin();
    start_state(f, last_, s0);
    std::copy(last_.begin(), last_.end(), states_.begin());
  }
  /// An empty run from the last state of this one.
  void next() {
    start_ = end();
    begin();
    std::copy(last_.begin(), last_.end(), states_.begin());
  }

  index_t size() const { return inputs_.size(); }
  index_t pending() const { return inputs_.size() - run_; }  ///< inputs that wait for their block
  bool full() const { return pending() == block_; }          ///< the block can be run
  std::int64_t end() const { return start_ + inputs_.size(); }
  std::size_t bytes() const {
    return inputs_.bytes() + snapshots_.bytes() + states_.bytes() + tape_.bytes() + loss_.bytes() +
           workspace_.bytes() + carry_.bytes() + last_.bytes() + delta_.bytes();
  }

  void push(const input& x) { inputs_.push(x); }  ///< takes an input
  void drop(index_t n) { inputs_.drop_last(n); }  ///< gives the newest n inputs up

  /// Runs the pending inputs, a full block or the end of the run; see run_groups().
  index_t forward(const F& f, params<const T> theta, report& r) {
    const index_t b = open_block(), n = pending();
    const index_t bad = run_window(f, inputs_.part(run_, n), at(theta, b, n), r);
    if (bad < 0) {
      run_ += n;
      recorded_ = b;
      std::copy_n(states_.data() + n * sizes_.state, sizes_.state, last_.data());
    }
    return bad;
  }

  /// Adds the gradient of the whole run to g. `carry`, unless nullptr, is called with k = 1, 2, ... and gives
  /// the factor of the adjoint that passes backwards between the k-th and the (k + 1)-th step.
  template <class Carry>
  void backward(const F& f, params<const T> theta, const Carry& carry, dparams<T> g, report& r) {
    delta_.zero();
    for (index_t b = (run_ + block_ - 1) / block_ - 1; b >= 0; --b) {
      const index_t first = b * block_, n = std::min(block_, run_ - first);
      if (recorded_ != b) replay(f, theta, b, n, r);
      injection<T> in;
      if constexpr (!std::is_null_pointer_v<Carry>) {
        for (index_t i = 0; i < n; ++i) carry_[i] = T(carry(first + i + 1));
        in.carry = carry_.data();
      }
      window_backward(f, inputs_.part(first, n), at(theta, b, n), in, delta_, g);
      r.vjps += n;
      schedule_.discard(b);
    }
  }

  /// The state behind the last input: pending ones are run for it, and again by forward(). Valid until the
  /// next call.
  state<const T> last_state(const F& f, params<const T> theta) {
    const index_t n = pending();
    if (n == 0) return last_;
    check_held();
    check_size("last_state", "theta", theta.size(), sizes_.params);
    window_forward(f, inputs_.part(run_, n), at(theta, open_block(), n));
    return {states_.data() + n * sizes_.state, sizes_.state};
  }

  /// Between two calls of an estimator. reversed: backward() has been called.
  template <class V>
  void visit(V&& v, bool reversed) {
    inputs_.visit(v);
    const index_t n = inputs_.size();
    visit_integer(v, "run", run_, n - std::min(n, block_ - 1), n);
    visit_integer(v, "in_front", in_front_, run_ == 0 ? 0 : (run_ - 1) / block_, run_ / block_);
    visit_integer(v, "recorded", recorded_, run_ > 0 && in_front_ == 0 ? 0 : -1, in_front_);
    visit_integer(v, "start", start_);
    schedule_.visit(
        [&](std::string_view name, auto shown) { v(std::string("schedule ").append(name), shown); },
        in_front_, reversed);
    v("snapshots", view<T, state_space>(snapshots_));
    v("states", view<T, state_space>(states_));
    v("tape", view<T, tape_space>(tape_));
    v("last", view<T, state_space>(last_));
    v("start_gradient", view<T, state_cotangent_space>(delta_));
  }
  index_t held() const { return inputs_.size(); }
  void hold(std::span<const input> xs) { inputs_.hold(xs); }
  void check_held() const { inputs_.check_held(); }  ///< throws unless resumed inputs were given back
  /// What distinguishes runs over the same system, for visit_identity.
  std::string text() const {
    return "slots " + std::to_string(schedule_.slots()) + ", block " + std::to_string(block_);
  }

  /// After backward(): the gradient with respect to the state in front of the run.
  dstate<const T> start_gradient() const { return delta_; }

 private:
  void begin() {
    inputs_.clear();
    schedule_.reset();
    run_ = in_front_ = 0;
    recorded_ = -1;
  }

  // Puts the state in front of the pending inputs' block into states_[0]; returns the index of that block.
  index_t open_block() {
    const index_t b = run_ / block_;
    if (in_front_ < b) {
      if (const index_t slot = schedule_.pass(in_front_); slot >= 0) save(slot);
      in_front_ = b;
      std::copy(last_.begin(), last_.end(), states_.begin());
    }
    recorded_ = -1;
    return b;
  }

  // Runs block b again, n steps, from the last snapshot in front of it.
  void replay(const F& f, params<const T> theta, index_t b, index_t n, report& r) {
    std::copy_n(snapshots_.data() + schedule_.resume().slot * sizes_.state, sizes_.state, states_.data());
    for (index_t i = schedule_.resume().step; i < b;) {
      for (const index_t stop = schedule_.stop(b); i < stop; ++i) {
        again(f, theta, i, block_, r);
        std::copy_n(states_.data() + block_ * sizes_.state, sizes_.state, states_.data());
      }
      if (i < b) save(schedule_.store(i));
    }
    again(f, theta, b, n, r);
  }
  void again(const F& f, params<const T> theta, index_t b, index_t n, report& r) {
    window_forward(f, inputs_.part(b * block_, n), at(theta, b, n));
    r.steps += n;
  }
  void save(index_t slot) {
    std::copy_n(states_.data(), sizes_.state, snapshots_.data() + slot * sizes_.state);
  }
  window<T> at(params<const T> theta, index_t b, index_t n) {
    return {theta, n, states_.data(), tape_.data(), loss_.data(), workspace_, start_ + b * block_};
  }

  dims sizes_;
  index_t block_;
  checkpoint_schedule schedule_;
  input_list<input> inputs_;
  block<T, state_space> snapshots_;  // one state a slot
  block<T, state_space> states_;     // block + 1: those of one block, as tape_, loss_ and carry_
  block<T, tape_space> tape_;
  buffer<T> loss_, workspace_, carry_;
  block<T, state_space> last_;  // the state behind the steps that were run
  block<T, state_cotangent_space> delta_;
  std::int64_t start_ = 0;  // index since reset of the first step
  index_t run_ = 0;         // steps of the run that were run
  index_t in_front_ = 0;    // the block whose front state is states_[0] in the first sweep
  index_t recorded_ = -1;   // the block that states_ and tape_ hold, if any
};

}  // namespace unroll
