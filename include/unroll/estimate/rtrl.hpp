#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/dense.hpp"

namespace unroll {

struct rtrl_options {
  index_t columns = 128;  ///< parameter columns of the influence that are worked on while they are in cache
};

/// Real-time recurrent learning, the exact gradient without looking back:
///
///   M_t = J_t M_{t-1} + F_t,    g += q_t M_t + direct = dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta
///
/// M = ds/dtheta is kept whole, state/lanes x params a lane (influence/dense.hpp). Bias 0, variance 0, exact
/// at every step for any horizon. With n = state/lanes, per step and lane: n^2 params multiply-adds, one
/// step, one vjp, and without the jacobian hook `state` more vjps (2n with lane_vjp and more than one lane).
/// Memory, to leading order: state params scalars, twice that without the hook. Needs: vjp. Williams & Zipser
/// 1989. See docs/math/rtrl.md.
template <class F>
class rtrl final : public forward_learner<F, influence::dense<F>> {
  static_assert(require_vjp<F>());

 public:
  static constexpr bool unbiased = true;
  static constexpr std::array references{"williams1989rtrl", "masse2020convergence"};

  explicit rtrl(F system, rtrl_options options = {})  // options: columns
      : rtrl::forward_learner("rtrl", std::move(system), "",
                              [&](const F& f) { return influence::dense<F>(f, checked(options).columns); }) {}

  /// ds/dtheta after the last step: lanes blocks of state/lanes x params, column-major.
  view<const typename F::scalar> influence() const& { return this->kept_influence().values(); }
  void influence() && = delete;

 private:
  static rtrl_options checked(rtrl_options o) {
    check_at_least("rtrl", "columns", o.columns, 1);
    return o;
  }
};

}  // namespace unroll
