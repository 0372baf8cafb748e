#pragma once

#include "unroll/core/linalg.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/balance.hpp"
#include "unroll/influence/rank_one.hpp"

namespace unroll {

struct preuoro_options {
  double epsilon = 1e-7;  ///< added to the scales; never biases, 0 is allowed
  bool balance = true;    ///< false: rho0 = rho1 = 1, unbiased with another variance
};

/// UORO with its noise in front of the nonlinearity: for systems that read theta as matrices, z_b = W_b a_b,
/// the immediate derivative is D_b (x) a_b' with D_b = ds'/dz_b, and one sign for each row of the matrices
/// makes of it
///
///   g      += (dl/ds . s~) theta~ + dl/dtheta
///   s~     <- rho0 J s~ + rho1 sum_b D_b nu_b                  nu uniform on {-1, +1}^rows
///   theta~ <- theta~ / rho0 + (nu_b a_b')_b / rho1
///   rho0 = sqrt(|theta~| / (|J s~| + eps)) + eps,  rho1 = sqrt(|nu a'| / (|D nu| + eps)) + eps
///
/// where uoro has nu and nu F. Unbiased at fixed theta for every horizon: E (D nu)(nu a')' = D (x) a', and
/// the signs of different rows and steps are independent. Units that are saturated, D close to 0, then add
/// little to s~. Every lane has its own nu, s~ and theta~. With `rows` those of all matrices, per step and
/// lane: n rows + params multiply-adds, one step, one vjp, one jvp. Memory, to leading order: 2 lanes params
/// + lanes n rows scalars. Needs: vjp, jvp, factors. Cooijmans & Martens 2019. See docs/math/preuoro.md.
template <class F, class C = philox_chooser>
class preuoro final {
  static_assert(require_vjp<F>() && require_jvp<F>() && require_factors<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"cooijmans2019variance", "tallec2018uoro"};

  explicit preuoro(F system, preuoro_options options = {}, C chooser = C{})
      : system_(std::move(system)),
        guard_("preuoro", system_),
        options_(checked(system_, options)),
        chooser_(std::move(chooser)),
        memory_(system_, 1, 1),
        influence_(system_.size()),
        matrices_(system_.weight_matrices()),
        delta_(system_.size().state) {
    const index_t lanes = system_.size().lanes, n = system_.size().state / lanes;
    index_t columns = 0;
    for (const weight_matrix& w : matrices_) {
      rows_ += w.rows;
      columns += w.columns;
    }
    a_ = buffer<scalar>(lanes * columns);
    d_ = buffer<scalar>(lanes * n * rows_);
    nu_ = buffer<scalar>(lanes * rows_);
    d_nu_ = buffer<scalar>(n);
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
    report r = run_steps(system_, theta, xs, memory_, delta_, g, [&](const auto& e, report& spent) {
      influence_.project(delta_);
      influence_.propagate(system_, memory_.x(0), e);
      ++spent.jvps;
      draw(memory_.x(0), e);
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
    guard_.visit(v, "epsilon " + number_text(options_.epsilon) + (options_.balance ? "" : ", not balanced"),
                 system_);
    visit_part(v, "chooser", chooser_);
    memory_.visit(v, {.room = 1});
    visit_part(v, "influence", influence_);
  }
  const F& system() const { return system_; }
  C& chooser() { return chooser_; }

 private:
  static preuoro_options checked(const F& f, preuoro_options o) {
    if (!(o.epsilon >= 0))
      fail("preuoro", "epsilon", "is " + number_text(o.epsilon) + ", must be at least 0");
    if (!supports(f, hook::jvp) || !supports(f, hook::factors))
      fail("preuoro", "system", "has no jvp, or no weight_matrices and factors");
    return o;
  }
  std::size_t bytes() const {
    return memory_.bytes() + influence_.bytes() + delta_.bytes() + a_.bytes() + d_.bytes() + nu_.bytes() +
           d_nu_.bytes() + matrices_.size() * sizeof(weight_matrix);
  }

  // D (x) a' of the step at e, mixed into s~, which holds J s~, and theta~.
  void draw(const input& x, const const_edge<scalar>& e) {
    const index_t n = d_nu_.size();
    system_.factors(x, e, a_, d_);
    chooser_.signs(memory_.end() - 1, view<scalar>(nu_));
    const scalar* a = a_.data();
    for (index_t l = 0; l < influence_.lanes(); ++l) {
      const scalar* nu = nu_.data() + l * rows_;
      linalg::gemv<scalar>(op::none, {d_.data() + l * n * rows_, n, rows_}, nu, false, d_nu_.data());
      scalar* added = influence_.theta_added().data() + l * system_.size().params;
      for (const weight_matrix& w : matrices_) {
        linalg::ger<scalar>(1, nu, a, {added + w.first, w.rows, w.columns, w.stride});
        nu += w.rows;
        a += w.columns;
      }
      influence::rescaling rho0, rho1;
      if (options_.balance) {
        rho0 = influence::balance_norms(influence_.s_norm(l), influence_.theta_norm(l), options_.epsilon);
        rho1 = influence::balance_norms(double(linalg::norm(d_nu_.data(), n)), influence_.added_norm(l),
                                        options_.epsilon);
      }
      const auto s = influence_.s(l);
      for (index_t i = 0; i < n; ++i) s[i] = scalar(rho0.by) * s[i] + scalar(rho1.by) * d_nu_[i];
      influence_.mix(l, rho0.over, rho1.over);
    }
  }

  F system_;
  sequence_guard<F> guard_;
  preuoro_options options_;
  C chooser_;
  window_buffer<F> memory_;
  influence::rank_one<scalar> influence_;
  std::vector<weight_matrix> matrices_;
  index_t rows_ = 0;
  buffer<scalar> a_, d_, nu_, d_nu_;
  block<scalar, state_cotangent_space> delta_;
};

}  // namespace unroll
