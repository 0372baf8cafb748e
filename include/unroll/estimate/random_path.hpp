#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/random_paths.hpp"

namespace unroll {

struct random_path_options {
  double p = 0.25;  ///< probability of an entry of the Jacobian, in (0, 1]
};

/// Real-time recurrent learning along random paths: a sensitivity passes through each entry of the Jacobian
/// with probability p, and is divided by p where it does.
///
///   M <- (J o B / p) M + F,    g += dl/ds M + dl/dtheta        B_ij = 1 with probability p, else 0
///
/// All B_ij of all steps are independent, those of lanes, too. Unbiased at fixed theta for every horizon,
/// since a path from theta to a loss takes one entry a step; without 1 / p, as it was published, a path of
/// lag l counts p^l. The variance stays bounded as sequences grow where C -> J C J' + (1 / p - 1) diag(J
/// diag(C) J') contracts, and otherwise grows exponentially. p = 1 is rtrl.
///
/// M is kept whole (influence/random_paths.hpp). Per step and lane, n = state / lanes, m entries of J that
/// are not zero, P weights in matrices: p m P multiply-adds, m draws, and n P for F and dl/ds M, where rtrl
/// takes n^2 params; one step, one vjp. Memory, to leading order: state P scalars. Needs: vjp, jacobian,
/// factors. Merin 2026. See docs/math/random_path.md.
template <class F, class C = philox_chooser>
class random_path final : public forward_learner<F, influence::random_paths<F>, C> {
  static_assert(require_vjp<F>() && require_factors<F>() && chooser<C>);
  static_assert(has_jacobian<F>, "this estimator needs jacobian() and immediate(), see has_jacobian");

 public:
  static constexpr bool unbiased = true;
  static constexpr std::array references{"merin2026redundancy", "williams1989rtrl"};

  explicit random_path(F system, random_path_options options = {}, C chooser = C{})  // options: p
      : random_path::forward_learner(
            "random_path", std::move(system), "p " + number_text(options.p),
            [&](const F& f) { return influence::random_paths<F>(f, checked(f, options).p); },
            std::move(chooser)) {}

 private:
  static random_path_options checked(const F& f, random_path_options o) {
    if (!(o.p > 0 && o.p <= 1)) fail("random_path", "p", "is " + number_text(o.p) + ", must lie in (0, 1]");
    if (!supports(f, hook::jacobian) || !supports(f, hook::factors))
      fail("random_path", "system", "has no jacobian, or no weight_matrices and factors");
    return o;
  }
};

}  // namespace unroll
