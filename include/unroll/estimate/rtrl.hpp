#pragma once

#include "unroll/core/left_product.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"

namespace unroll {

struct rtrl_options {
  index_t columns = 128;  ///< parameter columns of the influence that are worked on while they are in cache
};

/// Real-time recurrent learning, the exact gradient without looking back:
///
///   M_t = J_t M_{t-1} + F_t,    g += q_t M_t + direct = dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta
///
/// M = ds/dtheta is dense, one block of state/lanes x params a lane. With the jacobian hook the three
/// products with a block of columns of M happen while it is in cache; without it the rows of J and F are read
/// off by vjps. Bias 0, variance 0, exact at every step for any horizon. With n = state/lanes, per step and
/// lane: n^2 params multiply-adds, one step, one vjp, and without the hook `state` more vjps (2n with
/// lane_vjp and more than one lane). Memory, to leading order: state params scalars, twice that without the
/// hook. Needs: vjp. Williams & Zipser 1989. See docs/math/rtrl.md.
template <class F>
class rtrl final {
  static_assert(require_vjp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"williams1989rtrl", "masse2020convergence"};

  explicit rtrl(F system, rtrl_options options = {})
      : system_(std::move(system)),
        options_(checked(options)),
        sizes_(system_.size()),
        n_(sizes_.state / sizes_.lanes),
        dense_(supports(system_, hook::jacobian)),
        by_lane_(sizes_.lanes > 1 && supports(system_, hook::lane_vjp)),
        memory_(system_, 1, 1),
        influence_(sizes_.state * sizes_.params),
        rows_(dense_ ? 0 : sizes_.state * sizes_.params),
        jacobian_(n_ * sizes_.state),
        before_(n_ * std::min(options_.columns, sizes_.params)),
        delta_(sizes_.state),
        row_(sizes_.state),
        unit_(sizes_.state) {
    reset({});
  }

  void reset(key, state<const scalar> s0 = {}) {
    if (!s0.empty()) check_size("rtrl::reset", "s0", s0.size(), sizes_.state);
    memory_.reset(system_, s0);
    influence_.zero();
    finished_ = false;
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    check_call("rtrl::advance", system_, theta, g, finished_);
    const auto full = [this] { return memory_.pending() == 1; };
    report r = run_groups(system_, theta, xs, memory_, full, [&](report& spent) {
      delta_.zero();
      memory_.backward(system_, theta, 0, 1, {}, delta_, g, spent);
      const const_edge<scalar> e = memory_.edge(system_, theta, 0);
      if constexpr (has_jacobian<F>)
        if (dense_) system_.jacobian(memory_.x(0), e, jacobian_);
      if (!dense_) spent.vjps += read_rows(e);
      for (index_t p = 0; p < sizes_.params; p += options_.columns)
        update(e, p, std::min(p + options_.columns, sizes_.params), g);
      memory_.keep_last(0, 1);
    });
    r.bytes = bytes();
    return r;
  }

  /// Nothing is ever in flight.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    check_call("rtrl::finish", system_, theta, g, finished_);
    finished_ = true;
    report r;
    r.bytes = bytes();
    return r;
  }

  /// ds/dtheta after the last step: lanes blocks of state/lanes x params, column-major.
  view<const scalar> influence() const& { return influence_; }
  void influence() && = delete;
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    visit_identity(v, "rtrl", system_);
    visit_flag(v, "finished", finished_);
    memory_.visit(v, {.room = 1});
    v("influence", view<scalar>(influence_));
  }
  const F& system() const { return system_; }

 private:
  static rtrl_options checked(rtrl_options o) {
    check_at_least("rtrl", "columns", o.columns, 1);
    return o;
  }
  std::size_t bytes() const {
    return memory_.bytes() + influence_.bytes() + rows_.bytes() + jacobian_.bytes() + before_.bytes() +
           delta_.bytes() + row_.bytes() + unit_.bytes();
  }

  // Columns [p0, p1) of every lane: g += delta M, M <- J M + F.
  void update(const const_edge<scalar>& e, index_t p0, index_t p1, dparams<scalar> g) {
    const index_t count = p1 - p0;
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      const scalar *j = jacobian_.data() + l * n_ * n_, *d = delta_.data() + l * n_;
      const matrix<scalar> m{influence_.data() + (l * sizes_.params + p0) * n_, n_, count};
      if (!linalg::left_product(j, d, m, g.data() + p0)) {
        const matrix<scalar> old{before_.data(), n_, count};
        std::copy_n(m.data, n_ * count, old.data);
        linalg::gemv<scalar>(op::transpose, old, d, true, g.data() + p0);
        linalg::gemm<scalar>(op::none, {j, n_, n_}, op::none, old, false, m);
      }
      if (!dense_) {
        const scalar* row = rows_.data() + l * sizes_.params;
        for (index_t i = 0; i < n_; ++i, row += sizes_.lanes * sizes_.params)
          for (index_t p = 0; p < count; ++p) m.data[p * n_ + i] += row[p0 + p];
      }
    }
    if constexpr (has_jacobian<F>)
      if (dense_) system_.immediate(memory_.x(0), e, influence_, p0, p1);
  }

  // Row i of J and F of every lane from the cotangent e_i. rows_ is params x lanes x n. Returns the vjps.
  index_t read_rows(const const_edge<scalar>& e) {
    const index_t lanes = sizes_.lanes, P = sizes_.params;
    rows_.zero();
    for (index_t i = 0; i < n_; ++i) {
      scalar* rows = rows_.data() + i * lanes * P;
      row_.zero();
      if constexpr (has_lane_vjp<F>)
        if (by_lane_) {
          for (index_t l = 0; l < lanes; ++l) unit_[l * n_ + i] = 1;
          system_.lane_vjp(memory_.x(0), e, unit_, {rows, lanes * P});
          system_.vjp(memory_.x(0), e, unit_, scalar(0), row_, {});
          for (index_t l = 0; l < lanes; ++l) unit_[l * n_ + i] = 0;
        }
      if (!by_lane_)
        for (index_t l = 0; l < lanes; ++l) {
          unit_[l * n_ + i] = 1;
          system_.vjp(memory_.x(0), e, unit_, scalar(0), row_, {rows + l * P, P});
          unit_[l * n_ + i] = 0;
        }
      for (index_t k = 0; k < sizes_.state; ++k) jacobian_[k * n_ + i] = row_[k];
    }
    return by_lane_ ? 2 * n_ : sizes_.state;
  }

  F system_;
  rtrl_options options_;
  dims sizes_;
  index_t n_;
  bool dense_, by_lane_;
  window_buffer<F> memory_;
  buffer<scalar> influence_, rows_, jacobian_, before_;
  block<scalar, state_cotangent_space> delta_, row_, unit_;
  bool finished_ = false;
};

}  // namespace unroll
