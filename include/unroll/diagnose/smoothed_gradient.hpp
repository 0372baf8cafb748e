#pragma once

#include <cmath>

#include "unroll/core/linalg.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/system/window.hpp"

namespace unroll {

/// What to differentiate; sigma = 0 is the gradient at frozen theta.
struct smoothed_gradient_options {
  index_t max_steps = 0;  ///< longest sequence
  double sigma = 0;       ///< standard deviation of the perturbation of each parameter
  index_t window = 0;     ///< steps that share a perturbation; 0: the whole sequence
};

/// The reference for estimators of a smoothed gradient: the mean over draws of
///
///   1/2 (d/dtheta L(theta + eps_1, ..., theta + eps_W) + d/dtheta L(theta - eps_1, ..., theta - eps_W))
///
/// by back-propagation through the whole sequence, where window i runs at theta +- eps_i, eps_i ~ N(0,
/// sigma^2 I). One window is the jointly smoothed gradient, W windows of `window` steps the independently
/// smoothed one. Unbiased for either where derivative and expectation commute: L absolutely continuous along
/// every line and of moderate growth. Biased where L jumps, since vjp does not see what a jump contributes;
/// the antithetic pair removes the part of the variance that is linear in eps. With sigma = 0 a draw is the
/// exact gradient of the loss and nothing is random.
///
/// Memory: all states and tapes of the sequence. Needs vjp.
template <class F>
class smoothed_gradient final {
  static_assert(require_vjp<F>());

 public:
  using scalar = typename F::scalar;
  using input = typename F::input;

  smoothed_gradient(F system, smoothed_gradient_options options)
      : system_(std::move(system)),
        options_(options),
        window_(options.window > 0 ? options.window : options.max_steps),
        states_((options.max_steps + 1) * system_.size().state),
        tape_(options.max_steps * system_.size().tape),
        loss_(options.max_steps),
        theta_(system_.size().params),
        noise_(options.sigma != 0 ? system_.size().params : 0),
        g_(system_.size().params),
        ds_(system_.size().state),
        workspace_(window_workspace(system_, std::min(window_, options.max_steps))) {
    check_at_least("smoothed_gradient", "max_steps", options.max_steps, 0);
    check_at_least("smoothed_gradient", "window", options.window, 0);
    if (!(options.sigma >= 0 && std::isfinite(options.sigma)))
      fail("smoothed_gradient", "sigma", "is " + number_text(options.sigma) + ", must be at least 0");
  }

  /// ADDS one draw to g. The report's loss is that of the draw (the mean of the pair).
  report operator()(key k, params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    check_size("smoothed_gradient", "theta", theta.size(), theta_.size());
    check_size("smoothed_gradient", "g", g.size(), theta_.size());
    if (index_t(xs.size()) > loss_.size())
      fail("smoothed_gradient", "xs",
           "has " + std::to_string(xs.size()) + " steps, max_steps is " + std::to_string(loss_.size()));
    report r;
    r.bytes = states_.bytes() + tape_.bytes() + loss_.bytes() + theta_.bytes() + noise_.bytes() + g_.bytes() +
              ds_.bytes() + workspace_.bytes();
    g_.zero();
    const bool pair = options_.sigma != 0;
    for (int sign = pair ? -1 : 1; sign <= 1; sign += 2) one_path(k, scalar(sign), theta, xs, r);
    if (r.code == status::ok && !linalg::all_finite(g_.data(), g_.size())) {
      r.code = status::non_finite;
      r.at = 0;
    }
    const double weight = pair ? 0.5 : 1.0;
    r.loss *= weight;
    if (r.code != status::ok) return r;
    r.consumed = std::int64_t(xs.size());
    for (const auto& x : xs) r.losses += scored_losses(system_, x);
    linalg::axpy(scalar(weight), g_.data(), g.data(), g.size());
    return r;
  }

 private:
  void one_path(key k, scalar sign, params<const scalar> theta, std::span<const input> xs, report& r) {
    const auto steps = index_t(xs.size());
    start_state(system_, {states_.data(), system_.size().state});
    for (index_t t = 0; t < steps; t += window_) {
      const auto w = window_at(k, sign, theta, t, steps);
      window_forward(system_, xs.subspan(std::size_t(t), std::size_t(w.steps)), w);
      r.steps += w.steps;
    }
    for (index_t t = 0; t < steps; ++t) {
      r.loss += double(loss_[t]);
      if (!std::isfinite(loss_[t]) && r.code == status::ok) {
        r.code = status::non_finite;
        r.at = t;
      }
    }
    ds_.zero();
    for (index_t t = steps == 0 ? -1 : (steps - 1) / window_ * window_; t >= 0; t -= window_) {
      const auto w = window_at(k, sign, theta, t, steps);
      window_backward(system_, xs.subspan(std::size_t(t), std::size_t(w.steps)), w, injection<scalar>{},
                      dstate<scalar>{ds_.data(), ds_.size()}, dparams<scalar>(g_));
      r.vjps += w.steps;
    }
  }

  // The window that begins at step t, with its perturbation, which is drawn again instead of stored.
  window<scalar> window_at(key k, scalar sign, params<const scalar> theta, index_t t, index_t steps) {
    if (noise_.size() > 0) draw_normals(k, t / window_, view<scalar>(noise_));
    for (index_t j = 0; j < theta.size(); ++j)
      theta_[j] = noise_.size() > 0 ? theta[j] + sign * scalar(options_.sigma) * noise_[j] : theta[j];
    window<scalar> w;
    w.theta = theta_;
    w.steps = std::min(window_, steps - t);
    w.states = states_.data() + t * system_.size().state;
    w.tape = tape_.data() + t * system_.size().tape;
    w.loss = loss_.data() + t;
    w.workspace = workspace_;
    w.t = t;
    return w;
  }

  F system_;
  smoothed_gradient_options options_;
  index_t window_;
  buffer<scalar> states_, tape_, loss_;
  parameters<scalar> theta_;
  buffer<scalar> noise_;
  gradient<scalar> g_;
  buffer<scalar> ds_, workspace_;
};

}  // namespace unroll
