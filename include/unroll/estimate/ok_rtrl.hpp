#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/kronecker_sum.hpp"

namespace unroll {

struct ok_rtrl_options {
  index_t terms = 4;  ///< r, products that are kept for each weight matrix
};

/// The optimal Kronecker-sum approximation of real-time recurrent learning, OK(r), for systems that read
/// theta as matrices, z_b = W_b a_b, so that the immediate derivative is F_b = D_b (x) a_b' with D_b =
/// ds'/dz_b. The influence is a random sum of r products for each matrix (influence/kronecker_sum.hpp):
///
///   g += sum_i (dl/ds B_i) (x) u_i + dl/dtheta
///   (B_i, u_i) <- a draw of r products from the r + 1 of  sum_i J B_i (x) u_i' + D (x) a'
///
/// whose mean is that sum and whose variance is the least that r products can have. Unbiased at fixed theta
/// for every horizon, with less noise than kf_rtrl from r = 1 on. A sum of as many terms as M has, n rows or
/// columns of a matrix, is exact. The draws of an antithetic pair, which negate all signs of a step, are the
/// same. Per step and lane, n = state / lanes: r n^2 rows + about 3 (r + 1)^2 (n rows + columns)
/// multiply-adds, with `rows` and `columns` those of all matrices together, one step, one vjp. Memory, to
/// leading order: lanes (r + 1) n rows scalars, and once r + 1 times n rows of the largest matrix. Needs:
/// vjp, jacobian, factors. Benzing et al. 2019. See docs/math/ok_rtrl.md.
template <class F, class C = philox_chooser>
class ok_rtrl final : public forward_learner<F, influence::kronecker_sum<F>, C> {
  static_assert(require_vjp<F>() && require_factors<F>() && chooser<C>);
  static_assert(has_jacobian<F>, "this estimator needs jacobian() and immediate(), see has_jacobian");

 public:
  static constexpr bool unbiased = true;
  static constexpr std::array references{"benzing2019optimal"};

  explicit ok_rtrl(F system, ok_rtrl_options options = {}, C chooser = C{})  // options: terms
      : ok_rtrl::forward_learner(
            "ok_rtrl", std::move(system), "terms " + std::to_string(options.terms),
            [&](const F& f) { return influence::kronecker_sum<F>(f, checked(f, options).terms); },
            std::move(chooser)) {}

 private:
  static ok_rtrl_options checked(const F& f, ok_rtrl_options o) {
    check_at_least("ok_rtrl", "terms", o.terms, 1);
    if (!supports(f, hook::jacobian) || !supports(f, hook::factors))
      fail("ok_rtrl", "system", "has no jacobian, or no weight_matrices and factors");
    return o;
  }
};

}  // namespace unroll
