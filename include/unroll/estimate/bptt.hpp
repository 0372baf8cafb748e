#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"

namespace unroll {

struct bptt_options {
  index_t max_steps = 1024;  ///< longest sequence; its states and tapes are allocated at construction
  index_t block = 128;       ///< steps of one forward or backward pass
};

/// Backpropagation through time, the exact gradient.
///
///   delta_T = q_T,   delta_t = q_t + delta_{t+1} J_{t+1},   g = sum_t delta_t F_t
///
/// Assumes that s_0 does not depend on theta. Forward in advance(), backward in finish(). The blocks are
/// aligned at the start of the sequence, so that how the inputs arrive changes nothing. theta must not change
/// between reset and finish.
///
/// Bias 0, variance 0. Memory: max_steps states and tapes. Time per step: one step, one vjp. Needs: vjp.
///
/// Rumelhart, Hinton & Williams 1986; Werbos 1990; docs/math/bptt.md.
template <class F>
class bptt final {
  static_assert(require_vjp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"rumelhart1986backprop", "werbos1990bptt", "williams1990bptt"};

  explicit bptt(F system, bptt_options options = {})  // options: max_steps, block
      : system_(std::move(system)),
        guard_("bptt", system_),
        options_(checked(options)),
        memory_(system_, options_.max_steps, options_.block),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    memory_.reset(system_, s0);
  }

  /// Runs the inputs forward; g is not touched. Throws when the sequence grows longer than max_steps.
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    if (const index_t steps = index_t(memory_.end()) + index_t(xs.size()); steps > options_.max_steps)
      fail("bptt::advance", "xs",
           "makes a sequence of " + std::to_string(steps) + " steps, max_steps is " +
               std::to_string(options_.max_steps) + " (see checkpointed_bptt for long sequences)");
    const auto full = [this] { return memory_.pending() == options_.block; };
    report r = run_groups(system_, theta, xs, memory_, full, [](report&) {});
    r.bytes = bytes();
    return r;
  }

  /// The backward sweep.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r = run_rest(system_, theta, memory_);
    r.bytes = bytes();
    if (r.code != status::ok) return r;
    const index_t steps = memory_.size(), block = options_.block;
    delta_.zero();
    for (index_t first = (steps - 1) / block * block; first >= 0 && steps > 0; first -= block)
      memory_.backward(system_, theta, first, std::min(block, steps - first), {}, delta_, g, r);
    return guard_.close(r);
  }

  /// After finish: the gradient with respect to the state in front of the first step.
  dstate<const scalar> start_gradient() const { return delta_; }
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "block " + std::to_string(options_.block), system_);
    memory_.visit(v, {.kept = options_.max_steps, .pending = options_.block - 1});
    v("start_gradient", view<scalar, state_cotangent_space>(delta_));
  }
  index_t held() const { return memory_.held(); }
  void hold(std::span<const input> xs) { memory_.hold(xs); }
  const F& system() const { return system_; }

 private:
  static bptt_options checked(bptt_options o) {
    check_at_least("bptt", "max_steps", o.max_steps, 1);
    check_at_least("bptt", "block", o.block, 1);
    o.block = std::min(o.block, o.max_steps);
    return o;
  }
  std::size_t bytes() const { return memory_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  bptt_options options_;
  window_buffer<F> memory_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
