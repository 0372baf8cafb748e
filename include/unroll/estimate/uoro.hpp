#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/balance.hpp"
#include "unroll/influence/rank_one.hpp"
#include "unroll/system/lane_vjp.hpp"

namespace unroll {

struct uoro_options {
  index_t block = 1;      ///< steps of exact backpropagation between two draws
  double epsilon = 1e-7;  ///< added to the scales of the paper; never biases, 0 is allowed
  bool balance = true;    ///< false: rho0 = rho1 = 1, unbiased with a larger variance
};

/// Unbiased online recurrent optimization: the influence ds/dtheta as one random outer product s~ theta~'.
/// With J and F the derivatives of the block's last state with respect to its first state and to theta,
///
///   g      += (dL/ds . s~) theta~ + dL/dtheta                 L: losses of the block, exact inside it
///   s~     <- rho0 J s~ + rho1 nu                             nu uniform on {-1, +1}^n
///   theta~ <- theta~ / rho0 + nu F / rho1
///   rho0 = sqrt(|theta~| / (|J s~| + eps)) + eps,  rho1 = sqrt(|nu F| / (|nu| + eps)) + eps
///
/// which for blocks of one step is the algorithm of the paper. Every lane has its own nu, s~ and
/// theta~. Direct terms of the loss (readout) carry no sign. Unbiased at fixed theta for every horizon; how
/// the variance depends on the state and on the block is a matter of the network (Cooijmans & Martens 2019),
/// and a longer block may have more of it. Per block of K steps with one lane: K steps, 2K vjps, K jvps; the
/// last, incomplete block is run by finish(), without a draw. With more lanes the nu vjps are 2K - 1 through
/// the lane_vjp hook, else lanes K. Memory, to leading order: K + 1 states, K tapes, 2 lanes params. Needs:
/// vjp, jvp. Tallec & Ollivier 2018. See docs/math/uoro.md.
template <class F, class C = philox_chooser>
class uoro final {
  static_assert(require_vjp<F>() && require_jvp<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"tallec2018uoro", "cooijmans2019variance"};

  explicit uoro(F system, uoro_options options = {}, C chooser = C{})  // options: block, epsilon, balance
      : system_(std::move(system)),
        guard_("uoro", system_),
        options_(checked(options)),
        chooser_(std::move(chooser)),
        memory_(system_, options_.block, options_.block),
        influence_(system_.size()),
        nu_(system_.size().state),
        delta_(system_.size().state),
        before_(system_.size().state),
        zeros_(system_.size().state) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    memory_.reset(system_, s0);
    influence_.reset();
    zeros_.zero();
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const auto full = [this] { return memory_.pending() == options_.block; };
    report r = run_groups(system_, theta, xs, memory_, full, [&](report& spent) {
      backpropagate(theta, g, spent);
      carry(theta, spent);
      influence_.accumulate(g);
      memory_.keep_last(0, options_.block);
    });
    r.bytes = bytes();
    return r;
  }

  /// Runs the last, incomplete block.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r = run_rest(system_, theta, memory_);
    r.bytes = bytes();
    if (r.code != status::ok) return r;
    if (memory_.size() > 0) {
      backpropagate(theta, g, r);
      for (index_t l = 0; l < influence_.lanes(); ++l) influence_.mix(l, 1, 0);
      influence_.accumulate(g);
    }
    return guard_.close(r);
  }

  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v,
                 "block " + std::to_string(options_.block) + ", epsilon " + number_text(options_.epsilon) +
                     (options_.balance ? "" : ", not balanced"),
                 system_);
    visit_part(v, "chooser", chooser_);
    memory_.visit(v, {.kept = guard_.finished() ? options_.block - 1 : 0,
                      .pending = options_.block - 1,
                      .room = guard_.finished() ? 0 : options_.block});
    visit_part(v, "influence", influence_);
  }
  index_t held() const { return memory_.held(); }
  void hold(std::span<const input> xs) { memory_.hold(xs); }
  const F& system() const { return system_; }
  C& chooser() { return chooser_; }

 private:
  static uoro_options checked(uoro_options o) {
    check_at_least("uoro", "block", o.block, 1);
    if (!(o.epsilon >= 0)) fail("uoro", "epsilon", "is " + number_text(o.epsilon) + ", must be at least 0");
    return o;
  }
  std::size_t bytes() const {
    return memory_.bytes() + influence_.bytes() + nu_.bytes() + delta_.bytes() + before_.bytes() +
           zeros_.bytes();
  }

  // What the losses of the block owe to theta inside the block, exactly, and through the state in front of
  // it, by the influence.
  void backpropagate(params<const scalar> theta, dparams<scalar> g, report& r) {
    delta_.zero();
    memory_.backward(system_, theta, 0, memory_.size(), {}, delta_, g, r);
    influence_.project(delta_);
  }

  // The influence at the end of the block.
  void carry(params<const scalar> theta, report& r) {
    const index_t steps = memory_.size(), n = nu_.size() / influence_.lanes();
    for (index_t i = 0; i < steps; ++i)
      influence_.propagate(system_, memory_.x(i), memory_.edge(system_, theta, i));
    r.jvps += steps;

    // named by the block, so that a mirrored stream differs in every second draw whatever the block
    chooser_.signs(memory_.end() / options_.block - 1, view<scalar>(nu_));
    std::copy(nu_.begin(), nu_.end(), delta_.begin());
    for (index_t i = steps - 1; i >= 0; --i) {
      before_.zero();
      const dstate<scalar> ds = i > 0 ? dstate<scalar>(before_) : dstate<scalar>();
      r.vjps += lane_vjp(system_, memory_.x(i), memory_.edge(system_, theta, i), delta_, ds,
                         influence_.theta_added(), zeros_);
      std::swap(delta_, before_);
    }
    for (index_t l = 0; l < influence_.lanes(); ++l) {
      influence::rescaling rho0, rho1;
      if (options_.balance) {
        rho0 = influence::balance_norms(influence_.s_norm(l), influence_.theta_norm(l), options_.epsilon);
        rho1 = influence::balance_norms(std::sqrt(double(n)), influence_.added_norm(l), options_.epsilon);
      }
      const auto s = influence_.s(l);
      for (index_t i = 0; i < n; ++i) s[i] = scalar(rho0.by) * s[i] + scalar(rho1.by) * nu_[l * n + i];
      influence_.mix(l, rho0.over, rho1.over);
    }
  }

  F system_;
  sequence_guard<F> guard_;
  uoro_options options_;
  C chooser_;
  window_buffer<F> memory_;
  influence::rank_one<scalar> influence_;
  buffer<scalar> nu_;
  block<scalar, state_cotangent_space> delta_, before_, zeros_;
};

}  // namespace unroll
