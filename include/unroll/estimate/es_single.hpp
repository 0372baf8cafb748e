#pragma once

#include "unroll/estimate/nres.hpp"

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
class es_single final {
  static_assert(require_recurrent<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::jointly_smoothed;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"vicol2023essingle", "li2023nres"};

  explicit es_single(F system, es_single_options options = {}, C chooser = C{})
      : nres_(std::move(system), {.sigma = options.sigma, .pairs = options.pairs, .window = options.window},
              std::move(chooser), "es_single") {}

  void reset(key k, state<const scalar> s0 = {}) { nres_.reset(k, s0); }
  void mirror(bool on) { nres_.mirror(on); }
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return nres_.advance(theta, xs, g);
  }
  /// The last, incomplete window.
  report finish(params<const scalar> theta, dparams<scalar> g) { return nres_.finish(theta, g); }

  /// The state behind the last input consumed, of the first copy, which runs at theta + sigma z; valid until
  /// the next call.
  state<const scalar> last_state(params<const scalar> theta) const { return nres_.last_state(theta); }
  template <class V>
  void visit(V&& v) {
    nres_.visit(v);
  }
  const F& system() const { return nres_.system(); }
  es_single_options options() const {
    const nres_options& o = nres_.options();
    return {.sigma = o.sigma, .pairs = o.pairs, .window = o.window};
  }
  perturbation smoothing() const { return nres_.smoothing(); }
  C& chooser() { return nres_.chooser(); }

 private:
  nres<F, C> nres_;
};

}  // namespace unroll
