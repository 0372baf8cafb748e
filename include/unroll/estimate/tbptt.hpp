#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"

namespace unroll {

struct tbptt_options {
  index_t k1 = 1;   ///< steps between two backward passes; each injects the losses of these steps only
  index_t k2 = 16;  ///< steps a backward pass walks back, at least k1
};

/// Truncated backpropagation through time in the sense of Williams and Peng, BPTT(h; h') with h = k2, h' =
/// k1: at every multiple e of k1, the losses of the last k1 steps go back through the last k2 steps.
///
///   g = sum_e  sum_{e - k1 < t <= e}  sum_{e - k2 < s <= t}  q_t J_{t:s} F_s
///
/// Every pair (t, s) is used at most once: loss t reaches theta at step s with weight 1 where
/// s > ceil(t / k1) k1 - k2, else 0. Over the phases of t the mean weight of lag l = t - s is
///
///   1 for l <= k2 - k1,   (k2 - l) / k1 for k2 - k1 < l < k2,   0 for l >= k2,
///
/// so k1 = 1 gives the indicator l < k2 and k1 = k2 is chunked_tbptt. In a last, shorter group a loss reaches
/// as far back as in a whole one. What a loss owes to theta directly is exact.
///
/// Biased unless J_{t:s} vanishes beyond lag k2 - k1; the bias may point the wrong way (influence balancing).
/// Variance 0. Memory: 2 k2 - k1 states and tapes. Time per step: one step, k2 / k1 vjps. Needs: vjp.
///
/// Williams & Peng 1990; docs/math/tbptt.md.
template <class F>
class tbptt final {
  static_assert(require_vjp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"williams1990bptt", "aicher2019adaptive"};

  explicit tbptt(F system, tbptt_options options = {})  // options: k1, k2
      : system_(std::move(system)),
        guard_("tbptt", system_),
        k1_(options.k1),
        k2_(checked(options).k2),
        memory_(system_, 2 * k2_ - k1_, k2_),
        loss_weight_(k2_),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    memory_.reset(system_, s0);
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const auto full = [this] { return memory_.pending() == k1_; };
    report r =
        run_groups(system_, theta, xs, memory_, full, [&](report& now) { inject(theta, k1_, g, now); });
    r.bytes = bytes();
    return r;
  }

  /// Sends back the losses of the last, incomplete group.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    const index_t rest = memory_.pending();
    report r = run_rest(system_, theta, memory_);
    r.bytes = bytes();
    if (r.code != status::ok) return r;
    if (rest > 0) inject(theta, rest, g, r);
    return guard_.close(r);
  }

  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "k1 " + std::to_string(k1_) + ", k2 " + std::to_string(k2_), system_);
    memory_.visit(v, {.kept = k2_ - k1_, .pending = k1_ - 1, .room = k1_});
  }
  index_t held() const { return memory_.held(); }
  void hold(std::span<const input> xs) { memory_.hold(xs); }
  const F& system() const { return system_; }

 private:
  static tbptt_options checked(tbptt_options o) {
    check_at_least("tbptt", "k1", o.k1, 1);
    check_at_least("tbptt", "k2", o.k2, o.k1);
    return o;
  }

  // Sends the losses of the last `count` steps back through all steps that are remembered: these, and up to
  // k2 - k1 in front of them.
  void inject(params<const scalar> theta, index_t count, dparams<scalar> g, report& r) {
    const index_t reach = memory_.size();
    std::fill_n(loss_weight_.begin(), reach - count, scalar(0));
    std::fill_n(loss_weight_.begin() + (reach - count), count, scalar(1));
    delta_.zero();
    memory_.backward(system_, theta, 0, reach, {loss_weight_.data(), nullptr}, delta_, g, r);
    memory_.keep_last(k2_ - k1_, k1_);
  }
  std::size_t bytes() const { return memory_.bytes() + loss_weight_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  index_t k1_, k2_;
  window_buffer<F> memory_;
  buffer<scalar> loss_weight_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
