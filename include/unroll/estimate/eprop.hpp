#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/diagonal.hpp"

namespace unroll {

struct eprop_options {
  double filter = 0;  ///< kappa, from 0 to below 1: the leak of a readout outside of the system, see eprop
};

/// Eligibility propagation (Bellec et al. 2020), with the feedback of the vjp: of the influence M = ds/dtheta
/// only what a parameter does to its own unit through that unit alone is kept,
///
///   M_rj <- J_u M_rj + d_r a_j,    M~ <- kappa M~ + M
///   g += q M~ + direct = dl_t/ds_{t-1} . M~_{t-1} + dl_t/dtheta
///
/// with J_u the block of unit u in ds'/ds, its recurrent weight to itself included, and d_r = ds'_u/dz_r
/// (influence/diagonal.hpp). kappa = 0 is SnAp-1 of such a cell, without masks. A kappa stands for a readout
/// y_t = kappa y_{t-1} + W_y s_t that the system does not hold: the filter acts on the trace, not on q. It is
/// the paper's where the loss of a step reads the state in front of it. Where it reads s', as that of our
/// cells does, the newest step has J M~ + F in place of kappa M~ + M, which is no such readout's. Biased:
/// what goes through other units is left out at every lag beyond the newest step, which is exact. None where
/// units stand apart and kappa = 0, as in diagonal_rtrl. Variance 0. Per step and lane: m^2 + 2m
/// multiply-adds a parameter for units of m numbers, one step, one vjp. Memory, to leading order: m params
/// scalars a lane, twice that with a filter. Needs: vjp, diag_jacobian. See docs/math/eprop.md.
template <class F>
class eprop final {
  static_assert(require_vjp<F>() && require_diag_jacobian<F>());
  static_assert(influence::influence_of<influence::diagonal<F>, F>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"bellec2020eprop"};

  explicit eprop(F system, eprop_options options = {})
      : system_(std::move(system)),
        guard_("eprop", system_),
        filter_(checked(system_, options).filter),
        memory_(system_, 1, 1),
        traces_("eprop", system_, {.filter = filter_}),
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
    guard_.visit(v, "filter " + number_text(filter_), system_);
    memory_.visit(v, {.room = 1});
    traces_.visit(v);
  }
  const F& system() const { return system_; }

 private:
  static eprop_options checked(const F& f, eprop_options o) {
    if (!(o.filter >= 0 && o.filter < 1))
      fail("eprop", "filter", "is " + number_text(o.filter) + ", must be in [0, 1)");
    if (!supports(f, hook::diag_jacobian)) fail("eprop", "system", "has no diag_jacobian");
    return o;
  }
  std::size_t bytes() const { return memory_.bytes() + traces_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  double filter_;
  window_buffer<F> memory_;
  influence::diagonal<F> traces_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
