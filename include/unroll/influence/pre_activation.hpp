#pragma once

#include <cmath>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/influence/balance.hpp"
#include "unroll/influence/rank_one.hpp"

namespace unroll::influence {

/// M as one outer product s~ theta~' in each lane (rank_one), random: E s~ theta~' = M, with its noise in
/// front of the nonlinearity. With F = D (x) a' of a system that reads theta as matrices (has_factors) and
/// one sign nu for each row of these matrices,
///
///     s~     <- rho0 J s~ + rho1 sum_b D_b nu_b                  nu uniform on {-1, +1}^rows
///     theta~ <- theta~ / rho0 + (nu_b a_b')_b / rho1
///     rho0 = sqrt(|theta~| / |J s~|),  rho1 = sqrt(|nu a'| / |D nu|)
///
/// A diagonal Q may stand between the two, Q nu in s~ and nu / Q in theta~, of mean D (x) a' again: with b
/// the running mean of the squares of q D, what losses owe to the rows of the step before, Q = (b / mean b +
/// 1e-3)^(-1/4) of each row and lane.
///
/// A step takes, in a lane, n rows + params multiply-adds and of all lanes a jvp. Memory, to leading order: 2
/// lanes params + lanes n rows scalars. Needs: jvp, factors. Cooijmans & Martens 2019.
template <class F>
class pre_activation {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// epsilon: added to the scales. balance: false: rho0 = rho1 = 1. memory: of the running mean of Q, in [0,
  /// 1); 0: Q = 1.
  pre_activation(const F& f, double epsilon, bool balance, double memory = 0)
      : sizes_(f.size()),
        epsilon_(epsilon),
        balance_(balance),
        remembered_(memory),
        product_(sizes_),
        matrices_(f.weight_matrices()) {
    const index_t n = sizes_.state / sizes_.lanes;
    index_t columns = 0;
    for (const weight_matrix& w : matrices_) {
      rows_ += w.rows;
      columns += w.columns;
    }
    a_ = buffer<T>(sizes_.lanes * columns);
    d_ = buffer<T>(sizes_.lanes * n * rows_);
    nu_ = buffer<T>(sizes_.lanes * rows_);
    d_nu_ = buffer<T>(n);
    if (remembered_ > 0) {
      owed_ = buffer<double>(sizes_.lanes * rows_);
      q_nu_ = buffer<T>(rows_);
    }
  }

  void reset() {
    product_.reset();
    d_.zero();
    owed_.zero();
  }

  /// g += q M, then M <- a draw whose mean is J M + F, at the edge e, with signs drawn for step t. Counts its
  /// jvp.
  template <chooser C>
  void propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                 C& draws, std::int64_t t, report& spent) {
    product_.project(q);
    product_.propagate(f, x, e);
    ++spent.jvps;
    if (remembered_ > 0) remember(q);
    f.factors(x, e, a_, d_);
    draws.signs(t, view<T>(nu_));
    add_factors();
    product_.accumulate(g);
  }

  std::size_t bytes() const {
    return product_.bytes() + a_.bytes() + d_.bytes() + nu_.bytes() + d_nu_.bytes() + owed_.bytes() +
           q_nu_.bytes() + matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    product_.visit(v);
    if (remembered_ > 0) {
      v("d", view<T>(d_));
      v("owed", view<double>(owed_));
    }
  }

 private:
  // b, from the D of the step before and the loss that reads its state.
  void remember(dstate<const T> q) {
    const index_t n = d_nu_.size();
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      linalg::gemv<T>(op::transpose, {d_.data() + l * n * rows_, n, rows_}, q.data() + l * n, false,
                      q_nu_.data());
      for (index_t r = 0; r < rows_; ++r) {
        double& b = owed_[l * rows_ + r];
        b = remembered_ * b + (1 - remembered_) * double(q_nu_[r]) * double(q_nu_[r]);
      }
    }
  }
  // q_nu_ <- Q nu, nu <- nu / Q of lane l.
  void stretch(index_t l, T* nu) {
    const double* b = owed_.data() + l * rows_;
    double mean = 0;
    for (index_t r = 0; r < rows_; ++r) mean += b[r] / double(rows_);
    for (index_t r = 0; r < rows_; ++r) {
      const double q = mean > 0 ? std::pow(b[r] / mean + 1e-3, -0.25) : 1;
      q_nu_[r] = T(double(nu[r]) * q);
      nu[r] = T(double(nu[r]) / q);
    }
  }

  // D (x) a' of the step, mixed into s~, which holds J s~, and theta~.
  void add_factors() {
    const index_t n = d_nu_.size();
    const T* a = a_.data();
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      T* signs = nu_.data() + l * rows_;
      if (remembered_ > 0) stretch(l, signs);
      const T* nu = signs;
      linalg::gemv<T>(op::none, {d_.data() + l * n * rows_, n, rows_}, remembered_ > 0 ? q_nu_.data() : nu,
                      false, d_nu_.data());
      T* added = product_.theta_added().data() + l * sizes_.params;
      for (const weight_matrix& w : matrices_) {
        linalg::ger<T>(1, nu, a, {added + w.first, w.rows, w.columns, w.stride});
        nu += w.rows;
        a += w.columns;
      }
      rescaling rho0, rho1;
      if (balance_) {
        rho0 = balance_norms(product_.s_norm(l), product_.theta_norm(l), epsilon_);
        rho1 = balance_norms(double(linalg::norm(d_nu_.data(), n)), product_.added_norm(l), epsilon_);
      }
      const auto s = product_.s(l);
      for (index_t i = 0; i < n; ++i) s[i] = T(rho0.by) * s[i] + T(rho1.by) * d_nu_[i];
      product_.mix(l, rho0.over, rho1.over);
    }
  }

  dims sizes_;
  double epsilon_;
  bool balance_;
  double remembered_;
  rank_one<T> product_;
  std::vector<weight_matrix> matrices_;
  index_t rows_ = 0;
  buffer<T> a_, d_, nu_, d_nu_, q_nu_;
  buffer<double> owed_;
};

}  // namespace unroll::influence
