#pragma once

#include "unroll/estimate/nres.hpp"

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
/// steps of F; memory 4 N states and N + 2 times params. Lanes share the perturbation. The reported loss is
/// the mean over the 2 N copies. Rechenberg 1973; Salimans et al. 2017. See docs/math/es.md.
template <class F, class C = philox_chooser>
class es final {
  static_assert(require_recurrent<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::jointly_smoothed;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"rechenberg1973evolution", "nesterov2017gradientfree",
                                         "salimans2017evolution"};

  explicit es(F system, es_options options = {}, C chooser = C{})
      : nres_(std::move(system),
              {.sigma = options.sigma, .pairs = options.pairs, .window = nres<F, C>::endless},
              std::move(chooser), "es") {}

  void reset(key k, state<const scalar> s0 = {}) { nres_.reset(k, s0); }
  void mirror(bool on) { nres_.mirror(on); }
  /// Runs the copies; g is not touched.
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return nres_.advance(theta, xs, g);
  }
  /// The gradient.
  report finish(params<const scalar> theta, dparams<scalar> g) { return nres_.finish(theta, g); }

  /// The state behind the last input consumed, of the first copy, which runs at theta + sigma z; valid until
  /// the next call.
  state<const scalar> last_state(params<const scalar> theta) const { return nres_.last_state(theta); }
  template <class V>
  void visit(V&& v) {
    nres_.visit(v);
  }
  const F& system() const { return nres_.system(); }
  es_options options() const { return {.sigma = nres_.options().sigma, .pairs = nres_.options().pairs}; }
  perturbation smoothing() const { return nres_.smoothing(); }
  C& chooser() { return nres_.chooser(); }

 private:
  nres<F, C> nres_;
};

}  // namespace unroll
