#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/diagonal.hpp"

namespace unroll {

/// Real-time recurrent learning of a layer whose units do not listen to each other, exact:
///
///   M_rj <- J_u M_rj + d_r a_j,    g += q M + direct = dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta
///
/// A parameter then moves one unit only, of m numbers of the state, so that M = ds/dtheta is m numbers a
/// parameter (influence/diagonal.hpp). Bias 0, variance 0, any horizon. A system whose units listen to each
/// other is refused, and so is any stack of such layers, where a lower layer moves the states above it:
/// learning every layer by the traces of its own, which is what "layerwise" names, is an approximation there,
/// and another estimator. Per step and lane: m^2 + 2m multiply-adds a parameter, one step, one vjp. Memory,
/// to leading order: m params scalars a lane. Needs: vjp, diag_jacobian with units apart. Mozer 1989; Zucchet
/// et al. 2023. See docs/math/diagonal_rtrl.md.
template <class F>
class diagonal_rtrl final {
  static_assert(require_vjp<F>() && require_diag_jacobian<F>());
  static_assert(influence::influence_of<influence::diagonal<F>, F>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"mozer1989focused", "zucchet2023online"};

  explicit diagonal_rtrl(F system)
      : system_(std::move(system)),
        guard_("diagonal_rtrl", system_),
        memory_(system_, 1, 1),
        influence_("diagonal_rtrl", checked(system_)),
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
  static const F& checked(const F& f) {
    if (!supports(f, hook::diag_jacobian)) fail("diagonal_rtrl", "system", "has no diag_jacobian");
    if (!f.units_apart())
      fail("diagonal_rtrl", "system", "has units that listen to each other: traces of a unit are not exact");
    return f;
  }
  std::size_t bytes() const { return memory_.bytes() + influence_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  window_buffer<F> memory_;
  influence::diagonal<F> influence_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
