#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/kronecker.hpp"

namespace unroll {

struct kf_rtrl_options {
  double epsilon = 1e-7;  ///< added to the scales; never biases, 0 is allowed
};

/// Kronecker-factored real-time recurrent learning, for systems that read theta as matrices, z_b = W_b a_b,
/// so that the immediate derivative is F_b = D_b (x) a_b' with D_b = ds'/dz_b. The influence is one random
/// product of the same form for each matrix (influence/kronecker.hpp):
///
///   g += (dl/ds B) (x) u + dl/dtheta
///   B <- J B / p1 + c D / p2,    u <- p1 u + c p2 a          c = -1 or +1, with equal probability
///   p1 = sqrt(|J B| / (|u| + eps)) + eps,  p2 = sqrt(|D| / (|a| + eps)) + eps
///
/// One sign a step and lane, shared by its matrices. Unbiased at fixed theta for every horizon. To the
/// variance of the influence of each matrix a step adds at least 2 (|u| |a| |J B| |D| + <u, a> <J B, D>), and
/// just that at eps = 0. Per step and lane, n = state / lanes: n^2 rows multiply-adds, with `rows` those of
/// all matrices together, one step, one vjp. Memory, to leading order: (2 lanes + 1) n rows scalars, for
/// elman with one lane the size of three Jacobians. Needs: vjp, jacobian, factors. Mujika, Meier & Steger
/// 2018. See docs/math/kf_rtrl.md.
template <class F, class C = philox_chooser>
class kf_rtrl final : public forward_learner<F, influence::kronecker<F>, C> {
  static_assert(require_vjp<F>() && require_factors<F>() && chooser<C>);
  static_assert(has_jacobian<F>, "this estimator needs jacobian() and immediate(), see has_jacobian");

 public:
  static constexpr bool unbiased = true;
  static constexpr std::array references{"mujika2018kronecker"};

  explicit kf_rtrl(F system, kf_rtrl_options options = {}, C chooser = C{})  // options: epsilon
      : kf_rtrl::forward_learner(
            "kf_rtrl", std::move(system), "epsilon " + number_text(options.epsilon),
            [&](const F& f) { return influence::kronecker<F>(f, checked(f, options).epsilon); },
            std::move(chooser)) {}

 private:
  static kf_rtrl_options checked(const F& f, kf_rtrl_options o) {
    if (!(o.epsilon >= 0))
      fail("kf_rtrl", "epsilon", "is " + number_text(o.epsilon) + ", must be at least 0");
    if (!supports(f, hook::jacobian) || !supports(f, hook::factors))
      fail("kf_rtrl", "system", "has no jacobian, or no weight_matrices and factors");
    return o;
  }
};

}  // namespace unroll
