#pragma once

#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/parts/special_case.hpp"

namespace unroll {

struct es_options {
  double sigma = 0.1;  ///< standard deviation of the perturbation; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
};

/// Evolution strategies: one perturbation a sequence, one number back from it. It is nres with a window that
/// never ends.
///
///   g += 1 / (2 sigma N) sum_j z_j (L(theta + sigma z_j) - L(theta - sigma z_j)),   z_j ~ N(0, 1)^params
///
/// Unbiased for the gradient of E L(theta + sigma z), where that exists around theta; for a linear loss the
/// covariance has trace (params + 1) |grad L|^2 / N. The gradient comes with finish(). theta must not change
/// between reset and finish. No derivative is taken and no tape kept, so F may be anything. Per step 2 N
/// steps of F; memory 4 N states and N + 1 times params. Lanes share the perturbation. The reported loss is
/// the mean over the 2 N copies. Rechenberg 1973; Salimans et al. 2017. See docs/math/es.md.
template <class F, class C = philox_chooser>
class es final : public special_case<nres<F, C>, es_options> {
  static_assert(require_recurrent<F>() && unroll::chooser<C>);

 public:
  static constexpr std::array references{"rechenberg1973evolution", "nesterov2017gradientfree",
                                         "salimans2017evolution"};

  explicit es(F system, es_options options = {}, C chooser = C{})  // options: sigma, pairs
      : es::special_case(nres(std::move(system),
                              {.sigma = options.sigma, .pairs = options.pairs, .window = nres<F, C>::endless},
                              std::move(chooser), "es"),
                         options) {}
};

}  // namespace unroll
