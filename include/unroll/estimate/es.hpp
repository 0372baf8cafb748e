#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/particles.hpp"

namespace unroll {

struct es_options {
  double sigma = 0.1;  ///< standard deviation of the perturbation; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
};

/// Evolution strategies: one perturbation a sequence, one number back from it.
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
      : system_(std::move(system)),
        guard_("es", system_),
        options_(options),
        chooser_(std::move(chooser)),
        particles_(system_, guard_.estimator(), options.pairs, options.sigma) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    particles_.reset(system_, s0);
    chooser_.normals(0, particles_.noise());
  }
  void mirror(bool on) { chooser_.mirror(on); }

  /// Runs the copies; g is not touched.
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    constexpr auto endless = std::numeric_limits<std::int64_t>::max();
    report r = particles_.advance(
        system_, theta, xs, endless, [](std::int64_t) {}, [](std::int64_t) {});
    r.bytes = bytes();
    return r;
  }

  /// The gradient.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    particles_.emit(particles_.noise(), g);
    return guard_.close({.bytes = bytes()});
  }

  /// The state behind the last input consumed, of the first copy, which runs at theta + sigma z; valid until
  /// the next call.
  state<const scalar> last_state(params<const scalar>) const { return particles_.last_state(); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "sigma " + number_text(options_.sigma) + ", pairs " + std::to_string(options_.pairs),
                 system_);
    visit_part(v, "chooser", chooser_);
    visit_part(v, "particles", particles_);
  }
  const F& system() const { return system_; }
  const es_options& options() const { return options_; }
  perturbation smoothing() const { return {options_.sigma}; }
  C& chooser() { return chooser_; }

 private:
  std::size_t bytes() const { return particles_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  es_options options_;
  C chooser_;
  particles<F> particles_;
};

}  // namespace unroll
