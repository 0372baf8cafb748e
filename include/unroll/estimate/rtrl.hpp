#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/dense.hpp"

namespace unroll {

struct rtrl_options {
  index_t columns = 128;  ///< parameter columns of the influence that are worked on while they are in cache
};

/// Real-time recurrent learning, the exact gradient without looking back:
///
///   M_t = J_t M_{t-1} + F_t,    g += q_t M_t + direct = dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta
///
/// M = ds/dtheta is kept whole, state/lanes x params a lane (influence/dense.hpp). Bias 0, variance 0, exact
/// at every step for any horizon. With n = state/lanes, per step and lane: n^2 params multiply-adds, one
/// step, one vjp, and without the jacobian hook `state` more vjps (2n with lane_vjp and more than one lane).
/// Memory, to leading order: state params scalars, twice that without the hook. Needs: vjp. Williams & Zipser
/// 1989. See docs/math/rtrl.md.
template <class F>
class rtrl final {
  static_assert(require_vjp<F>() && influence::influence_of<influence::dense<F>, F>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"williams1989rtrl", "masse2020convergence"};

  explicit rtrl(F system, rtrl_options options = {})
      : system_(std::move(system)),
        guard_("rtrl", system_),
        memory_(system_, 1, 1),
        influence_(system_, checked(options).columns),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    memory_.reset(system_, s0);
    influence_.reset();
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = run_steps(system_, theta, xs, memory_, delta_, g, [&](const auto& e, report& spent) {
      spent.vjps += influence_.propagate(system_, memory_.x(0), e, delta_, g);
    });
    r.bytes = bytes();
    return r;
  }

  /// Nothing is ever in flight.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r;
    r.bytes = bytes();
    return guard_.close(r);
  }

  /// ds/dtheta after the last step: lanes blocks of state/lanes x params, column-major.
  view<const scalar> influence() const& { return influence_.values(); }
  void influence() && = delete;
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "", system_);
    memory_.visit(v, {.room = 1});
    influence_.visit(v);
  }
  const F& system() const { return system_; }

 private:
  static rtrl_options checked(rtrl_options o) {
    check_at_least("rtrl", "columns", o.columns, 1);
    return o;
  }
  std::size_t bytes() const { return memory_.bytes() + influence_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  window_buffer<F> memory_;
  influence::dense<F> influence_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
