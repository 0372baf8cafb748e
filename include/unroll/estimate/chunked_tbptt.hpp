#pragma once

#include "unroll/estimate/tbptt.hpp"

namespace unroll {

struct chunked_tbptt_options {
  index_t window = 16;  ///< steps of a chunk
};

/// Backpropagation inside chunks, with the state passed on and its gradient cut at every boundary: what most
/// training code calls truncated BPTT ("detach the hidden state"). It is tbptt with k1 = k2 = window = K.
///
///   g = sum over chunks (c, c + K]  sum_{c < s <= t <= c + K}  q_t J_{t:s} F_s
///
/// The mean weight of lag l is max(0, 1 - l / K): even lag 1 loses 1 / K of its weight, and the first losses
/// of a chunk see almost nothing of the past. A shorter last chunk is not weighted differently.
///
/// Biased. Variance 0. Memory: K states and tapes. Time per step: one step, one vjp. Needs: vjp.
///
/// Williams & Peng 1990; docs/math/chunked_tbptt.md.
template <class F>
class chunked_tbptt final {
  static_assert(require_vjp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"williams1990bptt"};

  explicit chunked_tbptt(F system, chunked_tbptt_options options = {})  // options: window
      : tbptt_(std::move(system), {.k1 = checked(options).window, .k2 = options.window}) {}

  void reset(key k, state<const scalar> s0 = {}) { tbptt_.reset(k, s0); }
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return tbptt_.advance(theta, xs, g);
  }
  report finish(params<const scalar> theta, dparams<scalar> g) { return tbptt_.finish(theta, g); }
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return tbptt_.last_state(theta); }
  template <class V>
  void visit(V&& v) {
    tbptt_.visit(v);
  }
  index_t held() const { return tbptt_.held(); }
  void hold(std::span<const input> xs) { tbptt_.hold(xs); }
  const F& system() const { return tbptt_.system(); }

 private:
  static chunked_tbptt_options checked(chunked_tbptt_options o) {
    check_at_least("chunked_tbptt", "window", o.window, 1);
    return o;
  }

  tbptt<F> tbptt_;
};

}  // namespace unroll
