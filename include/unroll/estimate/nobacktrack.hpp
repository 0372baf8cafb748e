#pragma once

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/balance.hpp"
#include "unroll/influence/rank_one.hpp"
#include "unroll/system/lane_vjp.hpp"

namespace unroll {

struct nobacktrack_options {
  double epsilon = 1e-7;  ///< added to the scales; never biases, 0 is allowed
};

/// NoBackTrack: the influence ds/dtheta as one random outer product s~ theta~', with a scale for every unit.
/// With F_i the row i of the immediate derivative ds'/dtheta,
///
///   g      += (dl/ds . s~) theta~ + dl/dtheta
///   s~     <- rho0 J s~ + sum_i rho_i nu_i e_i               nu uniform on {-1, +1}^n
///   theta~ <- theta~ / rho0 + sum_i (nu_i / rho_i) F_i
///   rho0 = sqrt(|theta~| / (|J s~| + eps)) + eps,  rho_i = sqrt(|F_i| / (1 + eps)) + eps
///
/// Every lane has its own nu, s~ and theta~. Unbiased at fixed theta for every horizon; the variance is close
/// to that of uoro, which needs no row norms. Per step one step, one jvp and with one lane 2 vjps; with more
/// lanes 2 through the lane_vjp hook, else 1 + lanes. Without the row_norms hook as many vjps more as there
/// are state entries. Memory, to leading order: one tape, 2 lanes params. Needs: vjp, jvp. Ollivier, Tallec &
/// Charpiat 2015. See docs/math/nobacktrack.md.
template <class F, class C = philox_chooser>
class nobacktrack final {
  static_assert(require_vjp<F>() && require_jvp<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"ollivier2015nobacktrack"};

  explicit nobacktrack(F system, nobacktrack_options options = {}, C chooser = C{})  // options: epsilon
      : system_(std::move(system)),
        guard_("nobacktrack", system_),
        options_(options),
        chooser_(std::move(chooser)),
        hooked_(supports(system_, hook::row_norms)),
        memory_(system_, 1, 1),
        influence_(system_.size()),
        nu_(system_.size().state),
        norms_(system_.size().state),
        row_(hooked_ ? 0 : system_.size().params),
        delta_(system_.size().state),
        unit_(system_.size().state) {
    if (!(options_.epsilon >= 0))
      fail("nobacktrack", "epsilon", "is " + std::to_string(options_.epsilon) + ", must be at least 0");
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    memory_.reset(system_, s0);
    influence_.reset();
    unit_.zero();
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = run_steps(system_, theta, xs, memory_, delta_, g, [&](const auto& e, report& spent) {
      influence_.project(delta_);
      carry(e, spent);
      influence_.accumulate(g);
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
    guard_.visit(v, "epsilon " + number_text(options_.epsilon), system_);
    visit_part(v, "chooser", chooser_);
    memory_.visit(v, {.room = 1});
    visit_part(v, "influence", influence_);
  }
  const F& system() const { return system_; }
  C& chooser() { return chooser_; }

 private:
  std::size_t bytes() const {
    return memory_.bytes() + influence_.bytes() + nu_.bytes() + norms_.bytes() + row_.bytes() +
           delta_.bytes() + unit_.bytes();
  }

  void carry(const const_edge<scalar>& e, report& r) {
    influence_.propagate(system_, memory_.x(0), e);
    ++r.jvps;
    r.vjps += measure_rows(e);
    chooser_.signs(memory_.end() - 1, view<scalar>(nu_));
    const index_t n = nu_.size() / influence_.lanes();
    for (index_t l = 0; l < influence_.lanes(); ++l) {
      const auto rho0 =
          influence::balance_norms(influence_.s_norm(l), influence_.theta_norm(l), options_.epsilon);
      const auto s = influence_.s(l);
      for (index_t i = 0, k = l * n; i < n; ++i, ++k) {
        const auto rho = influence::balance_norms(1, double(norms_[k]), options_.epsilon);
        s[i] = scalar(rho0.by) * s[i] + scalar(rho.by) * nu_[k];
        delta_[k] = scalar(rho.over) * nu_[k];
      }
      influence_.mix(l, rho0.over, 1);
    }
    r.vjps += lane_vjp<F>(system_, memory_.x(0), e, delta_, {}, influence_.theta_added(), unit_);
  }

  // |F_i| of every state entry, by the hook or by one vjp an entry. Returns the vjps.
  index_t measure_rows(const const_edge<scalar>& e) {
    if constexpr (has_row_norms<F>)
      if (hooked_) {
        system_.row_norms(memory_.x(0), e, norms_);
        return 0;
      }
    for (index_t i = 0; i < norms_.size(); ++i) {
      row_.zero();
      unit_[i] = 1;
      system_.vjp(memory_.x(0), e, unit_, scalar(0), {}, row_);
      unit_[i] = 0;
      norms_[i] = linalg::norm(row_.data(), row_.size());
    }
    return norms_.size();
  }

  F system_;
  sequence_guard<F> guard_;
  nobacktrack_options options_;
  C chooser_;
  bool hooked_;
  window_buffer<F> memory_;
  influence::rank_one<scalar> influence_;
  buffer<scalar> nu_, norms_;
  gradient<scalar> row_;
  block<scalar, state_cotangent_space> delta_;
  block<scalar, state_cotangent_space> unit_;  // zero, but for one entry while a row is measured
};

}  // namespace unroll
