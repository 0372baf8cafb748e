#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
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
class rflo final : public forward_learner<F, influence::diagonal<F>> {
  static_assert(require_vjp<F>() && require_diag_jacobian<F>());

 public:
  static constexpr bool unbiased = false;
  static constexpr std::array references{"murray2019local"};

  explicit rflo(F system, rflo_options options = {})  // options: leak
      : rflo::forward_learner(
            "rflo", std::move(system), "leak " + number_text(options.leak), [&](const F& f) {
              return influence::diagonal<F>("rflo", f, {.decay = 1 - checked(f, options).leak});
            }) {}

  index_t kept() const { return this->kept_influence().kept(); }  ///< traces of one lane

 private:
  static rflo_options checked(const F& f, rflo_options o) {
    if (!(o.leak > 0 && o.leak <= 1))
      fail("rflo", "leak", "is " + number_text(o.leak) + ", must be in (0, 1]");
    if (!supports(f, hook::diag_jacobian)) fail("rflo", "system", "has no diag_jacobian");
    return o;
  }
};

}  // namespace unroll
