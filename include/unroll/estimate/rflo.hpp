#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/diagonal.hpp"

namespace unroll {

struct rflo_options {
  double leak = 0.5;  ///< alpha = dt / tau of the units: what a trace loses in a step; 1: no traces
};

/// Random-feedback local online learning, with the feedback of the vjp (Murray 2019): of the influence M =
/// ds/dtheta of a leaky network s' = (1 - alpha) s + alpha tanh(W a), only what a weight does to its own unit
/// by the leak alone is kept,
///
///   M_rj <- (1 - alpha) M_rj + d_r a_j,    g += q M + direct = dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta
///
/// with d_r = ds'_r/dz_r (influence/diagonal.hpp). Biased: what goes through W, of the unit itself too, is
/// left out at every lag beyond the newest step, which is exact. `leak` has to be that of the cell, as
/// `leaky` has it in alpha(). Without W_h to the past it is exact. Variance 0. Per step and lane: m^2 + 2m
/// multiply-adds a parameter for units of m numbers, one step, one vjp. Memory, to leading order: m params
/// scalars a lane. Needs: vjp, diag_jacobian. See docs/math/rflo.md.
template <class F>
class rflo final {
  static_assert(require_vjp<F>() && require_diag_jacobian<F>());
  static_assert(influence::influence_of<influence::diagonal<F>, F>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"murray2019local"};

  explicit rflo(F system, rflo_options options = {})
      : system_(std::move(system)),
        guard_("rflo", system_),
        leak_(checked(system_, options).leak),
        memory_(system_, 1, 1),
        traces_("rflo", system_, {.decay = 1 - leak_}),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    memory_.reset(system_, s0);
    traces_.reset();
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = run_steps(system_, theta, xs, memory_, delta_, g, [&](const auto& e, report& spent) {
      spent.vjps += traces_.propagate(system_, memory_.x(0), e, delta_, g);
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

  index_t kept() const { return traces_.kept(); }  ///< traces of one lane
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "leak " + number_text(leak_), system_);
    memory_.visit(v, {.room = 1});
    traces_.visit(v);
  }
  const F& system() const { return system_; }

 private:
  static rflo_options checked(const F& f, rflo_options o) {
    if (!(o.leak > 0 && o.leak <= 1))
      fail("rflo", "leak", "is " + number_text(o.leak) + ", must be in (0, 1]");
    if (!supports(f, hook::diag_jacobian)) fail("rflo", "system", "has no diag_jacobian");
    return o;
  }
  std::size_t bytes() const { return memory_.bytes() + traces_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  double leak_;
  window_buffer<F> memory_;
  influence::diagonal<F> traces_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
