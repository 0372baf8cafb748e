#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
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
class eprop final : public forward_learner<F, influence::diagonal<F>> {
  static_assert(require_vjp<F>() && require_diag_jacobian<F>());

 public:
  static constexpr bool unbiased = false;
  static constexpr std::array references{"bellec2020eprop"};

  explicit eprop(F system, eprop_options options = {})  // options: filter
      : eprop::forward_learner(
            "eprop", std::move(system), "filter " + number_text(options.filter), [&](const F& f) {
              return influence::diagonal<F>("eprop", f, {.filter = checked(f, options).filter});
            }) {}

  index_t kept() const { return this->kept_influence().kept(); }  ///< traces of one lane

 private:
  static eprop_options checked(const F& f, eprop_options o) {
    if (!(o.filter >= 0 && o.filter < 1))
      fail("eprop", "filter", "is " + number_text(o.filter) + ", must be in [0, 1)");
    if (!supports(f, hook::diag_jacobian)) fail("eprop", "system", "has no diag_jacobian");
    return o;
  }
};

}  // namespace unroll
