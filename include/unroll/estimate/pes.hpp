#pragma once

#include "unroll/estimate/gpes.hpp"
#include "unroll/estimate/parts/special_case.hpp"

namespace unroll {

struct pes_options {
  double sigma = 0.1;  ///< standard deviation of the perturbation of one window; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
  index_t window = 1;  ///< steps with the same perturbation
};

/// Persistent evolution strategies: the perturbation is drawn anew in every window, and each loss is credited
/// to all perturbations so far. It is gpes whose windows share no perturbation.
///
///   xi_j <- xi_j + z_j^w,   g += 1 / (2 sigma N) sum_j xi_j (L_w^+ - L_w^-)   after window w
///
/// where copy j runs at theta +- sigma z_j^w. Unbiased for the gradient of E L(theta + sigma z^1, ...,
/// theta + sigma z^W), one z a window, where that exists around theta; it may be nearer to the gradient
/// itself than the estimand of es, or farther. |xi| grows like the square root of the number of windows. Per
/// step 2 N steps of F; memory 4 N states and 2 N + 1 times params. Lanes share the perturbation. The
/// reported loss is the mean over the 2 N copies. Vicol, Metz & Sohl-Dickstein 2021. See docs/math/pes.md.
template <class F, class C = philox_chooser>
class pes final : public special_case<gpes<F, C>, pes_options> {
  static_assert(require_recurrent<F>() && unroll::chooser<C>);

 public:
  static constexpr std::array references{"vicol2021pes"};

  explicit pes(F system, pes_options options = {}, C chooser = C{})  // options: sigma, pairs, window
      : pes::special_case(
            gpes(std::move(system),
                 {.sigma = options.sigma, .pairs = options.pairs, .window = options.window, .reuse = 1},
                 std::move(chooser), "pes"),
            options) {}
};

}  // namespace unroll
