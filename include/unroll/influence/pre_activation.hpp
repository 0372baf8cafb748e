#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/core/visit.hpp"
#include "unroll/influence/balance.hpp"
#include "unroll/influence/kept_pattern.hpp"
#include "unroll/influence/rank_one.hpp"
#include "unroll/influence/row_mixing.hpp"

namespace unroll::influence {

/// M as one random outer product s~ theta~' in each lane (rank_one), E s~ theta~' = M, whose signs stand in
/// front of the nonlinearity: one for each pre-activation, not for each number of the state. With F = D (x)
/// a' of a system that reads theta as matrices (has_factors) and one sign nu for each row of these matrices,
///
///     s~     <- rho0 J s~ + rho1 sum_b D_b nu_b                  nu uniform on {-1, +1}^rows
///     theta~ <- theta~ / rho0 + (nu_b a_b')_b / rho1
///     rho0 = sqrt(|theta~| / |J s~|),  rho1 = sqrt(|nu a'| / |D nu|)
///
/// A Q may stand between the two, Q nu in s~ and Q^-1 nu in theta~, of mean D (x) a' again, made of what
/// losses owe to the rows of the step before, q D (row_mixing).
///
/// A step takes, in a lane, n rows + 2 params multiply-adds and of all lanes a jvp. Where every row moves the
/// numbers of one unit alone, m of them, as the masks say (has_masks, has_diag_jacobian), D is kept as those
/// and takes m rows. Memory, to leading order: lanes params scalars, and lanes n rows or lanes m rows. Needs:
/// jvp, factors. Cooijmans & Martens 2019.
template <class F>
class pre_activation {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// epsilon: added to the scales. balance: false: rho0 = rho1 = 1. memory: of the running mean of Q, in [0,
  /// 1); 0: Q = 1. floor, renew: row_mixing's.
  pre_activation(const F& f, double epsilon, bool balance, double memory = 0, double floor = 1,
                 index_t renew = 0)
      : sizes_(f.size()),
        epsilon_(epsilon),
        balance_(balance),
        product_(sizes_, true),
        matrices_(f.weight_matrices()),
        units_(units_of_rows(f, matrices_)) {
    const index_t n = sizes_.state / sizes_.lanes;
    for (const weight_matrix& w : matrices_) {
      rows_ += w.rows;
      columns_ += w.columns;
    }
    a_ = buffer<T>(sizes_.lanes * columns_);
    d_ = buffer<T>(sizes_.lanes * numbers_of_d());
    nu_ = buffer<T>(sizes_.lanes * rows_);
    d_nu_ = buffer<T>(n);
    if (memory > 0) {
      mixing_ = row_mixing<T>(sizes_.lanes, rows_, memory, floor, renew);
      owed_ = buffer<T>(rows_);
    }
  }

  void reset() {
    product_.reset();
    d_.zero();
    mixing_.reset();
  }

  /// g += q M, then M <- a draw whose mean is J M + F, at the edge e, with signs drawn for step t. Counts its
  /// jvp.
  template <chooser C>
  void propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                 C& draws, std::int64_t t, report& spent) {
    product_.project(q);
    product_.propagate(f, x, e);
    ++spent.jvps;
    if (mixing_.on()) remember(q);
    write_factors(f, x, e);
    draws.signs(t, view<T>(nu_));
    add_factors(t);
    product_.accumulate(matrices_, nu_.data(), a_.data(), g);
  }

  std::size_t bytes() const {
    return product_.bytes() + a_.bytes() + d_.bytes() + nu_.bytes() + d_nu_.bytes() + owed_.bytes() +
           mixing_.bytes() + matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    product_.visit(v);
    if (mixing_.on()) {
      v("d", view<T>(d_));
      visit_part(v, "mixing", mixing_);
    }
  }

 private:
  // Of a lane.
  index_t numbers_of_d() const {
    const index_t n = sizes_.state / sizes_.lanes;
    return rows_ * (units_ > 0 ? n / units_ : n);
  }
  void write_factors(const F& f, const input& x, const const_edge<T>& e) {
    if constexpr (has_diag_jacobian<F>)
      if (units_ > 0) {
        f.diag_factors(x, e, a_, d_);
        return;
      }
    f.factors(x, e, a_, d_);
  }
  // to <- D v of lane l; v: rows, to: n.
  void times_d(index_t l, const T* v, T* to) const {
    const index_t n = d_nu_.size();
    const T* d = d_.data() + l * numbers_of_d();
    if (units_ == 0) return linalg::gemv<T>(op::none, {d, n, rows_}, v, false, to);
    std::fill_n(to, n, T(0));
    for_each_slice_of_d(d, [&](const T* slice, index_t row, index_t number) {
      for (index_t u = 0; u < units_; ++u) to[number + u] += slice[u] * v[row + u];
    });
  }
  // to <- D' v of lane l; v: n, to: rows.
  void transposed_d(index_t l, const T* v, T* to) const {
    const index_t n = d_nu_.size();
    const T* d = d_.data() + l * numbers_of_d();
    if (units_ == 0) return linalg::gemv<T>(op::transpose, {d, n, rows_}, v, false, to);
    std::fill_n(to, rows_, T(0));
    for_each_slice_of_d(d, [&](const T* slice, index_t row, index_t number) {
      for (index_t u = 0; u < units_; ++u) to[row + u] += slice[u] * v[number + u];
    });
  }
  // visit(slice, row, number) of every diagonal of D: by slice[u], row `row` + u moves number `number` + u.
  template <class Visit>
  void for_each_slice_of_d(const T* d, Visit&& visit) const {
    index_t first = 0;
    for (const weight_matrix& w : matrices_) {
      for (index_t number = 0; number < d_nu_.size(); number += units_)
        for (index_t r = 0; r < w.rows; r += units_, d += units_) visit(d, first + r, number);
      first += w.rows;
    }
  }

  // q D, from the D of the step before and the loss that reads its state.
  void remember(dstate<const T> q) {
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      transposed_d(l, q.data() + l * d_nu_.size(), owed_.data());
      mixing_.remember(l, owed_.data());
    }
  }
  // |nu a'| over all matrices of lane l.
  double norm_of_products(const T* nu, const T* a) const {
    double squares = 0;
    for (const weight_matrix& w : matrices_) {
      const double of_nu = mixing_.on() ? double(linalg::dot(nu, nu, w.rows)) : double(w.rows);
      squares += of_nu * double(linalg::dot(a, a, w.columns));
      nu += w.rows, a += w.columns;
    }
    return std::sqrt(squares);
  }

  // The D nu of the step into s~, which holds J s~; how nu a' goes into theta~.
  void add_factors(std::int64_t t) {
    const index_t n = d_nu_.size();
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      T* nu = nu_.data() + l * rows_;
      times_d(l, mixing_.on() ? mixing_.shape(l, t, nu) : nu, d_nu_.data());
      rescaling rho0, rho1;
      if (balance_) {
        rho0 = balance_norms(product_.s_norm(l), product_.theta_norm(l), epsilon_);
        rho1 = balance_norms(double(linalg::norm(d_nu_.data(), n)),
                             norm_of_products(nu, a_.data() + l * columns_), epsilon_);
      }
      const auto s = product_.s(l);
      for (index_t i = 0; i < n; ++i) s[i] = T(rho0.by) * s[i] + T(rho1.by) * d_nu_[i];
      product_.mix(l, rho0.over, rho1.over);
    }
  }

  dims sizes_;
  double epsilon_;
  bool balance_;
  rank_one<T> product_;
  std::vector<weight_matrix> matrices_;
  index_t units_, rows_ = 0, columns_ = 0;
  buffer<T> a_, d_, nu_, d_nu_, owed_;
  row_mixing<T> mixing_;
};

}  // namespace unroll::influence
