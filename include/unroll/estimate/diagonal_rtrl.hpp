#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
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
/// to leading order: m params scalars a lane, params of them where units are complex (`lru`). Needs: vjp,
/// diag_jacobian with units apart. Mozer 1989; Zucchet et al. 2023. See docs/math/diagonal_rtrl.md.
template <class F>
class diagonal_rtrl final : public forward_learner<F, influence::diagonal<F>> {
  static_assert(require_vjp<F>() && require_diag_jacobian<F>());

 public:
  static constexpr bool unbiased = true;
  static constexpr std::array references{"mozer1989focused", "zucchet2023online"};

  explicit diagonal_rtrl(F system)
      : diagonal_rtrl::forward_learner("diagonal_rtrl", std::move(system), "", [](const F& f) {
          return influence::diagonal<F>("diagonal_rtrl", checked(f));
        }) {}

 private:
  static const F& checked(const F& f) {
    if (!supports(f, hook::diag_jacobian)) fail("diagonal_rtrl", "system", "has no diag_jacobian");
    if (!f.units_apart())
      fail("diagonal_rtrl", "system", "has units that listen to each other: traces of a unit are not exact");
    return f;
  }
};

}  // namespace unroll
