#pragma once

#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/parts/special_case.hpp"

namespace unroll {

struct es_single_options {
  double sigma = 0.1;  ///< standard deviation of the perturbation; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
  index_t window = 1;  ///< steps between two contributions to the gradient
};

/// ES-Single: every particle is perturbed once a sequence, runs on from window to window, and each window's
/// loss is credited to that one perturbation. It is nres whose copies all begin together (the test compares
/// it with the published loop): the same numbers, under the name of its paper.
///
///   g += 1 / (2 sigma N) sum_j z_j (L_w(theta + sigma z_j) - L_w(theta - sigma z_j))   after window w
///
/// Unbiased for the gradient of E L(theta + sigma z), cost and memory as nres. Vicol, Kolter & Swersky 2023.
/// See docs/math/es_single.md.
template <class F, class C = philox_chooser>
class es_single final : public special_case<nres<F, C>, es_single_options> {
  static_assert(require_recurrent<F>() && unroll::chooser<C>);

 public:
  static constexpr std::array references{"vicol2023essingle", "li2023nres"};

  explicit es_single(  // options: sigma, pairs, window
      F system, es_single_options options = {}, C chooser = C{})
      : es_single::special_case(
            nres(std::move(system),
                 {.sigma = options.sigma, .pairs = options.pairs, .window = options.window},
                 std::move(chooser), "es_single"),
            options) {}
};

}  // namespace unroll
