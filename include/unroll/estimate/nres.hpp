#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/particles.hpp"

namespace unroll {

struct nres_options {
  double sigma = 0.1;  ///< standard deviation of the perturbation; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
  index_t window = 1;  ///< steps between two contributions to the gradient
};

/// Noise-reuse evolution strategies (the same estimator as ES-Single): evolution strategies with one
/// perturbation a sequence whose gradient comes window by window.
///
///   g += 1 / (2 sigma N) sum_j z_j (L_w(theta + sigma z_j) - L_w(theta - sigma z_j))   after window w
///
/// Unbiased for the gradient of E L(theta + sigma z), the sum over the windows as well as each window; the
/// sum does not depend on the window, and is that of evolution strategies. Per step 2 N steps of F; memory
/// 4 N states and N + 1 times params. Lanes share the perturbation. The reported loss is the mean over the
/// 2 N copies. Li, Harrison, Sohl-Dickstein, Smith & Metz 2023; Vicol, Kolter & Swersky 2023. See
/// docs/math/nres.md.
template <class F, class C = philox_chooser>
class nres final {
  static_assert(require_recurrent<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::jointly_smoothed;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"li2023nres", "vicol2023essingle"};

  /// A window that never ends: the gradient comes with finish().
  static constexpr index_t endless = std::numeric_limits<index_t>::max();

  /// name: in messages and saved streams, a literal.
  explicit nres(  // options: sigma, pairs, window
      F system, nres_options options = {}, C chooser = C{}, std::string_view name = "nres")
      : system_(std::move(system)),
        guard_(name, system_),
        options_(options),
        chooser_(std::move(chooser)),
        particles_(system_, guard_.estimator(), options.pairs, options.sigma) {
    check_at_least(name, "window", options_.window, 1);
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    particles_.reset(system_, s0);
    chooser_.normals(0, particles_.noise());
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = particles_.advance(
        system_, theta, xs, options_.window, [](std::int64_t) {},
        [&](std::int64_t) { particles_.emit(particles_.noise(), g); });
    r.bytes = particles_.bytes();
    return r;
  }

  /// The last, incomplete window.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    particles_.emit(particles_.noise(), g);
    return guard_.close({.bytes = particles_.bytes()});
  }

  /// The state behind the last input consumed, of the first copy, which runs at theta + sigma z; valid until
  /// the next call.
  state<const scalar> last_state(params<const scalar>) const { return particles_.last_state(); }
  template <class V>
  void visit(V&& v) {
    std::string text = "sigma " + number_text(options_.sigma) + ", pairs " + std::to_string(options_.pairs);
    if (options_.window != endless) text += ", window " + std::to_string(options_.window);
    guard_.visit(v, text, system_);
    visit_part(v, "chooser", chooser_);
    visit_part(v, "particles", particles_);
  }
  const F& system() const { return system_; }
  const nres_options& options() const { return options_; }
  perturbation smoothing() const { return {options_.sigma}; }
  C& chooser() { return chooser_; }

 private:
  F system_;
  sequence_guard<F> guard_;
  nres_options options_;
  C chooser_;
  particles<F> particles_;
};

}  // namespace unroll
