#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/input_list.hpp"
#include "unroll/estimate/parts/particles.hpp"

namespace unroll {

struct pes_a_options {
  double sigma = 0.1;  ///< standard deviation of the perturbation of one window; above the rounding of theta
  index_t pairs = 1;   ///< antithetic pairs
  index_t window = 1;  ///< steps with the same perturbation
};

/// Persistent evolution strategies with analytic gradients inside a window: what a window's loss owes to its
/// own perturbation is differentiated, and what it owes to earlier ones is credited as pes does, with a
/// control variate. For every copy, at theta + e_w in window w with e_w = +- sigma z^w and its own state,
///
///   g += p_w(theta + e_w) + xi_{w-1} (L_w - e_w . p_w(theta)) / sigma^2,    xi_w = e_1 + .. + e_w
///
/// averaged over the 2 N copies, where p_w is dL_w/dtheta within the window from the copy's state in front of
/// it, at theta + e_w where the copy runs, or at theta, beside it. e_w . p_w(theta) has the mean 0 given the
/// past, for p_w(theta) does not know e_w, and takes from L_w what is linear in e_w. Unbiased for the
/// gradient of E L(theta + sigma z^1, ..., theta + sigma z^W), as pes; with p_w(theta + e_w) in the control
/// variate it would not be, nor with p_w(theta) as the first term unless every L_w is quadratic in its e_w.
///
/// Per step 4 N steps and 4 N vjps, in the first window half of them. Memory: a window of states and tapes,
/// 4 N states, 2 N + 3 times params. Lanes share the perturbation. The reported loss is the mean over the 2 N
/// copies. Needs: vjp. Vicol, Metz & Sohl-Dickstein 2021. See docs/math/pes_a.md.
template <class F, class C = philox_chooser>
class pes_a final {
  static_assert(require_vjp<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::independently_smoothed;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"vicol2021pes"};

  explicit pes_a(F system, pes_a_options options = {}, C chooser = C{})  // options: sigma, pairs, window
      : system_(std::move(system)),
        guard_("pes_a", system_),
        options_(checked(options)),
        sizes_(system_.size()),
        chooser_(std::move(chooser)),
        inputs_(options_.window),
        copies_(2 * options_.pairs * sizes_.state),
        next_(copies_.size()),
        states_((options_.window + 1) * sizes_.state),
        tape_(options_.window * sizes_.tape),
        loss_(options_.window),
        workspace_(window_workspace(system_, options_.window)),
        delta_(sizes_.state),
        moved_(sizes_.params),
        direct_(sizes_.params),
        at_theta_(sizes_.params),
        noise_(options_.pairs * sizes_.params),
        xi_(noise_.size()),
        credit_(options_.pairs) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    inputs_.clear();
    for (index_t c = 0; c < 2 * options_.pairs; ++c)
      start_state(system_, state<scalar>(copy(copies_, c)), s0);
    xi_.zero();
    origin_ = 0;
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    if (linalg::all_finite(theta.data(), theta.size())) check_above_rounding("pes_a", options_.sigma, theta);
    waiting memory{*this};
    const auto full = [this] { return inputs_.size() == options_.window; };
    report r = run_groups(system_, theta, xs, memory, full, [&](report&) { emit(g); });
    r.bytes = bytes();
    return r;
  }

  /// The last, incomplete window.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    waiting memory{*this};
    report r = run_rest(system_, theta, memory);
    r.bytes = bytes();
    if (r.code != status::ok) return r;
    if (inputs_.size() > 0) emit(g);
    return guard_.close(r);
  }

  /// The state behind the last input consumed, of the first copy, which runs at theta + sigma z; valid until
  /// the next call.
  state<const scalar> last_state(params<const scalar> theta) {
    const index_t n = inputs_.size();
    if (n == 0) return copy(copies_, 0);
    inputs_.check_held();
    check_size("last_state", "theta", theta.size(), sizes_.params);
    draw();
    perturb(theta, 0, 1);
    window_forward(system_, inputs_.part(0, n), from(0, moved_));
    return {states_.data() + n * sizes_.state, sizes_.state};
  }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 "sigma " + number_text(options_.sigma) + ", pairs " + std::to_string(options_.pairs) +
                     ", window " + std::to_string(options_.window),
                 system_);
    visit_part(v, "chooser", chooser_);
    inputs_.visit(v, options_.window - 1);
    visit_integer(v, "origin", origin_);
    v("copies", view<scalar, state_space>(copies_));
    v("xi", view<scalar>(xi_));
  }
  index_t held() const { return inputs_.size(); }
  void hold(std::span<const input> xs) { inputs_.hold(xs); }
  const F& system() const { return system_; }
  const pes_a_options& options() const { return options_; }
  perturbation smoothing() const { return {options_.sigma, options_.window}; }
  C& chooser() { return chooser_; }

 private:
  // The inputs of a window that is not full, as run_groups sees them.
  struct waiting {
    pes_a& e;
    void push(const input& x) { e.inputs_.push(x); }
    void drop(index_t n) { e.inputs_.drop_last(n); }
    index_t pending() const { return e.inputs_.size(); }
    std::int64_t end() const { return e.origin_ + e.inputs_.size(); }
    void check_held() const { e.inputs_.check_held(); }
    index_t forward(const F&, params<const scalar> theta, report& r) { return e.run(theta, r); }
  };

  static pes_a_options checked(pes_a_options o) {
    check_at_least("pes_a", "pairs", o.pairs, 1);
    check_at_least("pes_a", "window", o.window, 1);
    check_sigma<scalar>("pes_a", o.sigma);
    return o;
  }

  // Runs the window of all copies without changing them: their states behind it to next_, the sum of their p
  // to direct_, and what xi is multiplied by to credit_. Returns the first step that is not finite, or -1.
  index_t run(params<const scalar> theta, report& r) {
    draw();
    direct_.zero();
    credit_.zero();
    report all;
    index_t bad = -1;
    for (index_t j = 0; j < options_.pairs; ++j)
      for (const index_t side : {0, 1}) {
        const index_t c = 2 * j + side;
        const double sign = side == 0 ? 1 : -1;
        perturb(theta, j, scalar(sign));
        bad = earlier(bad, walk(c, moved_, direct_, all));
        double loss = 0;
        for (index_t i = 0; i < inputs_.size(); ++i) loss += double(loss_[i]);
        all.loss += loss / double(2 * options_.pairs);
        std::copy_n(states_.data() + inputs_.size() * sizes_.state, sizes_.state, copy(next_, c).data());
        if (origin_ == 0) continue;  // xi is zero
        at_theta_.zero();
        bad = earlier(bad, walk(c, theta, at_theta_, all));
        credit_[j] += sign * loss - options_.sigma * double(linalg::dot(noise_.data() + j * sizes_.params,
                                                                        at_theta_.data(), sizes_.params));
      }
    r.steps += all.steps;
    r.vjps += all.vjps;
    if (bad >= 0) return bad;
    r.loss += all.loss;
    for (const input& x : inputs_.part(0, inputs_.size())) r.losses += scored_losses(system_, x);
    return -1;
  }

  // Copy c through the window and back; ADDS its gradient. Returns the first step that is not finite, or -1.
  index_t walk(index_t c, params<const scalar> theta, dparams<scalar> gradient, report& r) {
    const auto xs = inputs_.part(0, inputs_.size());
    const window<scalar> w = from(c, theta);
    window_forward(system_, xs, w);
    r.steps += w.steps;
    if (const index_t bad = first_non_finite(system_, w); bad >= 0) return bad;
    delta_.zero();
    window_backward(system_, xs, w, {}, delta_, gradient);
    r.vjps += w.steps;
    return -1;
  }
  static index_t earlier(index_t a, index_t b) { return a < 0 || (b >= 0 && b < a) ? b : a; }

  window<scalar> from(index_t c, params<const scalar> theta) {
    std::copy_n(copy(copies_, c).data(), sizes_.state, states_.data());
    return {theta, inputs_.size(), states_.data(), tape_.data(), loss_.data(), workspace_, origin_};
  }
  void draw() { chooser_.normals(origin_ / options_.window, view<scalar>(noise_)); }
  void perturb(params<const scalar> theta, index_t j, scalar sign) {
    const scalar* z = noise_.data() + j * sizes_.params;
    for (index_t p = 0; p < sizes_.params; ++p) moved_[p] = theta[p] + sign * scalar(options_.sigma) * z[p];
  }
  // The window that was run is over.
  void emit(dparams<scalar> g) {
    const double copies = 2 * double(options_.pairs);
    linalg::axpy(scalar(1 / copies), direct_.data(), g.data(), sizes_.params);
    for (index_t j = 0; j < options_.pairs; ++j)
      linalg::axpy(scalar(credit_[j] / (copies * options_.sigma)), xi_.data() + j * sizes_.params, g.data(),
                   sizes_.params);
    linalg::axpy(scalar(1), noise_.data(), xi_.data(), xi_.size());
    std::swap(copies_, next_);
    origin_ += inputs_.size();
    inputs_.clear();
  }
  state<scalar> copy(block<scalar, state_space>& states, index_t c) const {
    return {states.data() + c * sizes_.state, sizes_.state};
  }
  std::size_t bytes() const {
    return inputs_.bytes() + copies_.bytes() + next_.bytes() + states_.bytes() + tape_.bytes() +
           loss_.bytes() + workspace_.bytes() + delta_.bytes() + moved_.bytes() + direct_.bytes() +
           at_theta_.bytes() + noise_.bytes() + xi_.bytes() + credit_.bytes();
  }

  F system_;
  sequence_guard<F> guard_;
  pes_a_options options_;
  dims sizes_;
  C chooser_;
  input_list<input> inputs_;
  block<scalar, state_space> copies_, next_;  // state x 2 pairs: in front of the window, and behind it
  block<scalar, state_space> states_;         // of one copy in the window
  block<scalar, tape_space> tape_;
  buffer<scalar> loss_, workspace_;
  block<scalar, state_cotangent_space> delta_;
  parameters<scalar> moved_;            // theta + e of one copy
  gradient<scalar> direct_, at_theta_;  // sum of p(theta + e), and p(theta) of one copy
  buffer<scalar> noise_, xi_;           // z of the window, and the sum of those before: params x pairs
  buffer<double> credit_;               // of each pair: L+ - L- - sigma z . (p+(theta) + p-(theta))
  std::int64_t origin_ = 0;             // steps in front of the window
};

}  // namespace unroll
