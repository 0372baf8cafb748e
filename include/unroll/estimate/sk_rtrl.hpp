#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/sketch.hpp"

namespace unroll {

struct sk_rtrl_options {
  index_t rank = 4;  ///< r, directions that are kept beside the units' own traces; 0: none
};

/// Sketched real-time recurrent learning: the influence M = ds/dtheta as what a parameter does to its own
/// unit, S, and the r largest directions of the rest, L R' (influence/sketch.hpp):
///
///   g += q (S + L R') + direct = dl_t/ds_{t-1} . (S + L R') + dl_t/dtheta
///   L R' <- the best r of J L R' + J^ S,    S <- diag(J) S + F          J^ = J without its units' blocks
///
/// Biased by what is dropped, and it says by how much at most: certificate() bounds the norm of g minus the
/// exact gradient. Where a weight moves its own unit only, exact at r = n and snap of reach 1 at r = 0.
/// Variance 0. Per step and lane, n = state / lanes: about (r^2 + 3 r + 2) params + n^2 (r + n) + 20 n^3
/// multiply-adds, one step, one vjp. Memory, to leading order: (r + m) params scalars a lane and as many
/// once, for units of m numbers. Needs: vjp, jacobian, factors, diag_jacobian. See docs/math/sk_rtrl.md.
template <class F>
class sk_rtrl final : public forward_learner<F, influence::sketch<F>> {
  static_assert(require_vjp<F>() && require_factors<F>() && require_diag_jacobian<F>());
  static_assert(has_jacobian<F>, "this estimator needs jacobian() and immediate(), see has_jacobian");

 public:
  static constexpr bool unbiased = false;
  static constexpr std::array references{"sonaradarcn2026sketched"};

  explicit sk_rtrl(F system, sk_rtrl_options options = {})  // options: rank
      : sk_rtrl::forward_learner(
            "sk_rtrl", std::move(system), "rank " + std::to_string(options.rank),
            [&](const F& f) { return influence::sketch<F>(f, checked(f, options).rank); }) {}

  index_t rank() const { return this->kept_influence().rank(); }  ///< r, at most n
  /// At least the distance in the Frobenius norm of what is kept of ds/dtheta from it, in the lane, after the
  /// last step.
  double influence_error(index_t lane = 0) const { return this->kept_influence().error(lane); }
  /// At least the norm of what was added to g since reset, minus the exact gradient; up to rounding.
  double certificate() const { return this->kept_influence().certificate(); }

 private:
  static sk_rtrl_options checked(const F& f, sk_rtrl_options o) {
    check_at_least("sk_rtrl", "rank", o.rank, 0);
    for (const hook needed : {hook::jacobian, hook::factors, hook::diag_jacobian})
      if (!supports(f, needed)) fail("sk_rtrl", "system", "has no jacobian, factors or diag_jacobian");
    return o;
  }
};

}  // namespace unroll
