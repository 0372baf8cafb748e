#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/layerwise.hpp"

namespace unroll {

/// Real-time recurrent learning of every layer of a stack by the traces of its own units, which do not listen
/// to each other:
///
///   M_k <- J_kk M_k + F_k,    g_k += q_k M_k + direct_k = dl_t/ds_{k,t-1} . M_k,t-1 + dl_t/dtheta_k
///
/// with dl_t/ds_{k,t-1} through the layers above at step t (influence/layerwise.hpp). Exact for the last
/// layer, and where there is one alone (diagonal_rtrl). Biased below: what theta_k did to the states of the
/// layers above in earlier steps, which they remember, is left out at every lag; the newest step is exact.
/// Equal to back-propagation with the recurrence of the layers above cut for theta_k. Variance 0. Per step
/// and lane: m^2 + 2m multiply-adds a parameter, one step, one vjp. Memory, to leading order: m params
/// scalars a lane. Needs: vjp, unit_layers with units apart. Zucchet et al. 2023. See
/// docs/math/layerwise_rtrl.md.
template <class F>
class layerwise_rtrl final : public forward_learner<F, influence::layerwise<F>> {
  static_assert(require_vjp<F>() && require_unit_layers<F>());

 public:
  static constexpr bool unbiased = false;
  static constexpr std::array references{"zucchet2023online"};

  explicit layerwise_rtrl(F system)
      : layerwise_rtrl::forward_learner("layerwise_rtrl", std::move(system), "", [](const F& f) {
          return influence::layerwise<F>("layerwise_rtrl", checked(f));
        }) {}

  index_t kept() const { return this->kept_influence().kept(); }  ///< traces of one lane

 private:
  static const F& checked(const F& f) {
    if (!supports(f, hook::unit_layers))
      fail("layerwise_rtrl", "system", "has no unit_layers: it is not a stack of layers of units");
    for (const unit_layer& l : f.unit_layers())
      if (!l.apart) fail("layerwise_rtrl", "system", "has a layer whose units listen to each other");
    return f;
  }
};

}  // namespace unroll
