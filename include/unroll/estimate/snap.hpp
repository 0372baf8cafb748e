#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/masked.hpp"

namespace unroll {

struct snap_options {
  index_t reach = 1;  ///< the n of SnAp-n: steps in which a parameter reaches the entries that are kept
};

/// The sparse n-step approximation SnAp-n of real-time recurrent learning: of the influence M = ds/dtheta
/// only the entries are kept that theta reaches within n = `reach` steps, by what is connected with what
/// (influence/masked.hpp):
///
///   M <- 1_S (J M + F),    g += q M + direct = dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta
///
/// Biased, in general in every direction: what a parameter does through units farther away is left out, at
/// every lag. The newest step is exact, since the loss reads its state. Exact altogether, rtrl in less
/// memory, where S is closed under J: exact() tells. That is so for units that do not listen to each other at
/// reach 1, and for any network from the longest way through it on, which for a dense one is 2. Variance 0.
///
/// Per step and lane: sum over the parameters of (kept entries)^2 multiply-adds, one step, 1 + probes vjps;
/// with several lanes 1 + 2 probes where there is a lane_vjp hook and no jacobian hook, and 1 + lanes probes
/// where there is no lane_vjp hook. With the jacobian hook, probes is 1 for elman and 2 for lstm. Memory, to
/// leading order: kept entries + probes params scalars a lane, and once 8 bytes a kept entry and 8 a
/// parameter. Needs: vjp, masks. Menick et al. 2021. See docs/math/snap.md.
template <class F>
class snap final {
  static_assert(require_vjp<F>() && require_masks<F>());
  static_assert(influence::influence_of<influence::masked<F>, F>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = false;
  static constexpr std::array references{"menick2021snap"};

  explicit snap(F system, snap_options options = {})
      : system_(std::move(system)),
        guard_("snap", system_),
        reach_(checked(system_, options).reach),
        memory_(system_, 1, 1),
        influence_(system_, reach_),
        delta_(system_.size().state) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    memory_.reset(system_, s0);
    influence_.reset();
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = run_steps(system_, theta, xs, memory_, delta_, g, [&](const auto& e, report& spent) {
      spent.vjps += influence_.propagate(system_, memory_.x(0), e, delta_, g);
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

  index_t kept() const { return influence_.kept(); }  ///< entries of ds/dtheta that are kept, of one lane
  bool exact() const { return influence_.exact(); }   ///< whether those are all that theta ever reaches
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "reach " + std::to_string(reach_), system_);
    memory_.visit(v, {.room = 1});
    influence_.visit(v);
  }
  const F& system() const { return system_; }

 private:
  static snap_options checked(const F& f, snap_options o) {
    check_at_least("snap", "reach", o.reach, 1);
    if (!supports(f, hook::masks)) fail("snap", "system", "has no jacobian_mask and immediate_mask");
    return o;
  }
  std::size_t bytes() const { return memory_.bytes() + influence_.bytes() + delta_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  index_t reach_;
  window_buffer<F> memory_;
  influence::masked<F> influence_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
