#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/checkpointed_run.hpp"

namespace unroll {

struct checkpointed_bptt_options {
  index_t slots = 16;     ///< states to keep, with the one in front of the first step
  std::size_t bytes = 0;  ///< if not 0: as many slots as fit into these bytes, instead of `slots`
  index_t steps = 0;      ///< length of the sequence where it is known (fewest replays); 0: any length
  index_t block = 1;      ///< steps that are run, recorded and walked backwards together
};

/// Backpropagation through time in little memory: some states are kept, the others are computed again.
///
///   delta_T = q_T,   delta_t = q_t + delta_{t+1} J_{t+1},   g = sum_t delta_t F_t
///
/// With N = ceil(T / block) blocks and s slots it takes N + P(N, s) block evaluations where `steps` is known,
/// the least possible; where it is not, as many for N <= (s + 1)(s + 2) / 2 and at most 30 % more up to
/// N = 4000, s = 30. The gradient has the same bits as that of bptt with the same block. theta must not
/// change between reset and finish.
///
/// Bias 0, variance 0. Memory: s states, the states and tapes of one block, and the inputs, whose list is
/// reserved for `steps` and grows beyond. Time per step: 1 + P(N, s) / N steps, one vjp. Needs: vjp.
///
/// Griewank & Walther 2000; Wang, Moin & Iaccarino 2009; docs/math/checkpointed_bptt.md.
template <class F>
class checkpointed_bptt final {
  static_assert(require_vjp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"williams1990bptt", "griewank2000revolve", "wang2009minimal"};

  explicit checkpointed_bptt(  // options: slots, bytes, steps, block
      F system, checkpointed_bptt_options options = {})
      : system_(std::move(system)),
        guard_("checkpointed_bptt", system_),
        steps_(options.steps),
        run_(system_, slots(system_, options), options.block, options.steps, options.steps) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    run_.reset(system_, s0);
  }

  /// Runs the inputs forward; g is not touched. Throws when the sequence grows longer than a given `steps`.
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    if (const index_t steps = run_.size() + index_t(xs.size()); steps_ > 0 && steps > steps_)
      fail("checkpointed_bptt::advance", "xs",
           "makes a sequence of " + std::to_string(steps) + " steps, announced were " +
               std::to_string(steps_));
    report r = run_groups(
        system_, theta, xs, run_, [this] { return run_.full(); }, [](report&) {});
    r.bytes = run_.bytes();
    return r;
  }

  /// The backward sweep.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r = run_rest(system_, theta, run_);
    r.bytes = run_.bytes();
    if (r.code != status::ok) return r;
    run_.backward(system_, theta, nullptr, g, r);
    return guard_.close(r);
  }

  /// After finish: the gradient with respect to the state in front of the first step.
  dstate<const scalar> start_gradient() const { return run_.start_gradient(); }
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return run_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "steps " + std::to_string(steps_) + ", " + run_.text(), system_);
    run_.visit(v, guard_.finished());
  }
  index_t held() const { return run_.held(); }
  void hold(std::span<const input> xs) { run_.hold(xs); }
  const F& system() const { return system_; }

 private:
  static index_t slots(const F& f, const checkpointed_bptt_options& o) {
    check_at_least("checkpointed_bptt", "steps", o.steps, 0);
    check_at_least("checkpointed_bptt", "block", o.block, 1);
    check_at_least("checkpointed_bptt", "slots", o.slots, 1);
    if (o.bytes == 0) return o.slots;
    const std::size_t one = std::max<std::size_t>(1, std::size_t(f.size().state) * sizeof(scalar));
    if (o.bytes < one)
      fail("checkpointed_bptt", "bytes",
           "is " + std::to_string(o.bytes) + ", one state has " + std::to_string(one));
    return index_t(o.bytes / one);
  }

  F system_;
  sequence_guard<F> guard_;
  index_t steps_;
  checkpointed_run<F> run_;
};

}  // namespace unroll
