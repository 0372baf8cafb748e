#pragma once

#include "unroll/estimate/gpes.hpp"

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
/// step 2 N steps of F; memory 4 N states and 2 N + 2 times params. Lanes share the perturbation. The
/// reported loss is the mean over the 2 N copies. Vicol, Metz & Sohl-Dickstein 2021. See docs/math/pes.md.
template <class F, class C = philox_chooser>
class pes final {
  static_assert(require_recurrent<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::independently_smoothed;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"vicol2021pes"};

  explicit pes(F system, pes_options options = {}, C chooser = C{})
      : gpes_(std::move(system),
              {.sigma = options.sigma, .pairs = options.pairs, .window = options.window, .reuse = 1},
              std::move(chooser), "pes") {}

  void reset(key k, state<const scalar> s0 = {}) { gpes_.reset(k, s0); }
  void mirror(bool on) { gpes_.mirror(on); }
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return gpes_.advance(theta, xs, g);
  }
  /// The last, incomplete window.
  report finish(params<const scalar> theta, dparams<scalar> g) { return gpes_.finish(theta, g); }

  /// The state behind the last input consumed, of the first copy, which runs at theta + sigma z; valid until
  /// the next call.
  state<const scalar> last_state(params<const scalar> theta) const { return gpes_.last_state(theta); }
  template <class V>
  void visit(V&& v) {
    gpes_.visit(v);
  }
  const F& system() const { return gpes_.system(); }
  pes_options options() const {
    const gpes_options& o = gpes_.options();
    return {.sigma = o.sigma, .pairs = o.pairs, .window = o.window};
  }
  perturbation smoothing() const { return gpes_.smoothing(); }
  C& chooser() { return gpes_.chooser(); }

 private:
  gpes<F, C> gpes_;
};

}  // namespace unroll
