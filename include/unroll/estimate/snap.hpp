#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/masked.hpp"

namespace unroll {

struct snap_options {
  index_t reach = 1;  ///< the n of SnAp-n: steps in which a parameter reaches the entries that are kept
};

/// The sparse n-step approximation SnAp-n of real-time recurrent learning: of the influence M = ds/dtheta
/// only the entries are kept that theta reaches within n = `reach` steps, by what is connected with what
/// (influence/masked.hpp):
///
///   M <- 1_S (J M + F),    g += q M + direct = dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta
///
/// Biased, in general in every direction: what a parameter does through units farther away is left out, at
/// every lag. The newest step is exact, since the loss reads its state. Exact altogether, rtrl in less
/// memory, where S is closed under J: exact() tells. That is so for units that do not listen to each other at
/// reach 1, and for any network from the longest way through it on, which for a dense one is 2. Variance 0.
///
/// Where every parameter keeps its own unit and no other, at reach 1 in elman, gru and lstm, and the system
/// has diag_jacobian: per step and lane (m^2 + 2 m) params multiply-adds for units of m numbers, one step,
/// one vjp; memory m params scalars a lane. Otherwise sum over the parameters of (kept entries)^2, one step,
/// 1 + probes vjps; with several lanes 1 + 2 probes where there is a lane_vjp hook and no jacobian hook, and
/// 1 + lanes probes where there is no lane_vjp hook; probes: sums of rows that share no column, 1 where every
/// parameter moves one entry. Memory, to leading order: kept entries + probes params scalars a lane, and once
/// 8 bytes a parameter. Needs: vjp, masks. Menick et al. 2021. See docs/math/snap.md.
template <class F>
class snap final : public forward_learner<F, influence::masked<F>> {
  static_assert(require_vjp<F>() && require_masks<F>());

 public:
  static constexpr bool unbiased = false;
  static constexpr std::array references{"menick2021snap"};

  explicit snap(F system, snap_options options = {})  // options: reach
      : snap::forward_learner(
            "snap", std::move(system), "reach " + std::to_string(options.reach),
            [&](const F& f) { return influence::masked<F>(f, checked(f, options).reach); }) {}

  index_t kept() const {
    return this->kept_influence().kept();
  }  ///< entries of ds/dtheta that are kept, of one lane
  bool exact() const {
    return this->kept_influence().exact();
  }  ///< whether those are all that theta ever reaches

 private:
  static snap_options checked(const F& f, snap_options o) {
    check_at_least("snap", "reach", o.reach, 1);
    if (!supports(f, hook::masks)) fail("snap", "system", "has no jacobian_mask and immediate_mask");
    return o;
  }
};

}  // namespace unroll
