#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/kronecker.hpp"

namespace unroll {

struct kf_rtrl_options {
  double epsilon = 1e-7;  ///< added to the scales; never biases, 0 is allowed
};

/// Kronecker-factored real-time recurrent learning, for systems that read theta as matrices, z_b = W_b a_b,
/// so that the immediate derivative is F_b = D_b (x) a_b' with D_b = ds'/dz_b. The influence is one random
/// product of the same form for each matrix (influence/kronecker.hpp):
///
///   g += (dl/ds B) (x) u + dl/dtheta
///   B <- J B / p1 + c D / p2,    u <- p1 u + c p2 a          c = -1 or +1, with equal probability
///   p1 = sqrt(|J B| / (|u| + eps)) + eps,  p2 = sqrt(|D| / (|a| + eps)) + eps
///
/// One sign a step and lane, shared by its matrices. Unbiased at fixed theta for every horizon. To the
/// variance of the influence of each matrix a step adds at least 2 (|u| |a| |J B| |D| + <u, a> <J B, D>), and
/// just that at eps = 0. Per step and lane, n = state / lanes: n^2 rows multiply-adds, with `rows` those of
/// all matrices together, one step, one vjp. Memory, to leading order: (2 lanes + 1) n rows scalars, for
/// elman with one lane the size of three Jacobians. Needs: vjp, jacobian, factors. Mujika, Meier & Steger
/// 2018. See docs/math/kf_rtrl.md.
template <class F, class C = philox_chooser>
class kf_rtrl final {
  static_assert(require_vjp<F>() && require_factors<F>() && chooser<C>);
  static_assert(has_jacobian<F>, "this estimator needs jacobian() and immediate(), see has_jacobian");

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"mujika2018kronecker"};

  explicit kf_rtrl(F system, kf_rtrl_options options = {}, C chooser = C{})
      : system_(std::move(system)),
        guard_("kf_rtrl", system_),
        epsilon_(checked(system_, options).epsilon),
        chooser_(std::move(chooser)),
        memory_(system_, 1, 1),
        influence_(system_, epsilon_),
        signs_(system_.size().lanes),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    memory_.reset(system_, s0);
    influence_.reset();
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = run_steps(system_, theta, xs, memory_, delta_, g, [&](const auto& e, report&) {
      chooser_.signs(memory_.end() - 1, view<scalar>(signs_));
      influence_.propagate(system_, memory_.x(0), e, delta_, g, signs_);
    });
    r.bytes = bytes();
    return r;
  }

  /// Nothing is ever in flight.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r;
    r.bytes = bytes();
    return guard_.close(r);
  }

  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "epsilon " + number_text(epsilon_), system_);
    visit_part(v, "chooser", chooser_);
    memory_.visit(v, {.room = 1});
    visit_part(v, "influence", influence_);
  }
  const F& system() const { return system_; }
  C& chooser() { return chooser_; }

 private:
  static kf_rtrl_options checked(const F& f, kf_rtrl_options o) {
    if (!(o.epsilon >= 0))
      fail("kf_rtrl", "epsilon", "is " + number_text(o.epsilon) + ", must be at least 0");
    if (!supports(f, hook::jacobian) || !supports(f, hook::factors))
      fail("kf_rtrl", "system", "has no jacobian, or no weight_matrices and factors");
    return o;
  }
  std::size_t bytes() const { return memory_.bytes() + influence_.bytes() + signs_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  double epsilon_;
  C chooser_;
  window_buffer<F> memory_;
  influence::kronecker<F> influence_;
  buffer<scalar> signs_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
