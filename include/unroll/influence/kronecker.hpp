#pragma once

#include <algorithm>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/influence/balance.hpp"
#include "unroll/influence/concept.hpp"
#include "unroll/influence/kept_pattern.hpp"

namespace unroll::influence {

/// M as one product B_b (x) u_b' in each lane for every matrix W_b of theta (has_factors), random: E B (x) u'
/// = M. The part of M that belongs to W_b (i, j) is the column B_b (:, i) u_b (j). With F = D (x) a' and a
/// sign c of each lane, shared by its matrices,
///
///     B <- J B / p1 + c D / p2        p1 = sqrt(|J B| / |u|),  p2 = sqrt(|D| / |a|)
///     u <- p1 u + c p2 a
///
/// whose product is J B (x) u' + D (x) a', and two terms with a factor c, of mean 0. Mujika, Meier & Steger
/// 2018.
/// A step takes, in a lane, n^2 rows multiply-adds with `rows` those of all matrices together (n = state /
/// lanes), and one for each of their parameters. Memory: (2 lanes + 1) n rows scalars, to leading order;
/// where every row moves the numbers of one unit alone, as the masks say (units_of_rows), D is kept as those,
/// and it is (lanes + 1) n rows. Needs: jacobian, factors.
template <class F>
class kronecker {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  kronecker(const F& f, double epsilon)
      : sizes_(f.size()),
        n_(sizes_.state / sizes_.lanes),
        epsilon_(epsilon),
        matrices_(f.weight_matrices()),
        units_(units_of_rows(f, matrices_)),
        moved_(units_ > 0 ? n_ / units_ : n_) {
    for (const weight_matrix& w : matrices_) {
      rows_ += w.rows;
      columns_ += w.columns;
    }
    jacobian_ = buffer<T>(n_ * sizes_.state);
    b_ = buffer<T>(sizes_.state * rows_);
    d_ = buffer<T>(sizes_.lanes * moved_ * rows_);
    u_ = a_ = buffer<T>(sizes_.lanes * columns_);
    next_ = buffer<T>(n_ * rows_);
    qb_ = buffer<T>(rows_);
    signs_ = buffer<T>(sizes_.lanes);
  }

  void reset() {
    b_.zero();
    u_.zero();
  }

  bool adds_owed() const { return true; }  ///< influence_of
  /// g += dz a' + q M, where dz is given, then M <- a draw whose mean is J M + F, at the edge e, with a sign
  /// c of each lane drawn for step t; q: a state's cotangent.
  template <chooser C>
  void propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                 C& draws, std::int64_t t, report&, view<const T> dz = {}) {
    const view<T> c(signs_);
    draws.signs(t, c);
    f.jacobian(x, e, jacobian_);
    write_factors(f, x, e);
    const T* owed = dz.data();
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      T *b = b_.data() + l * n_ * rows_, *u = u_.data() + l * columns_;
      const T *d = d_.data() + l * moved_ * rows_, *a = a_.data() + l * columns_;
      linalg::gemv<T>(op::transpose, {b, n_, rows_}, q.data() + l * n_, false, qb_.data());
      linalg::gemm<T>(op::none, {jacobian_.data() + l * n_ * n_, n_, n_}, op::none, {b, n_, rows_}, false,
                      {next_.data(), n_, rows_});
      const T *qb = qb_.data(), *jb = next_.data();
      for (const weight_matrix& w : matrices_) {
        const matrix<T> gw{g.data() + w.first, w.rows, w.columns, w.stride};
        if (owed)
          simd::dispatch<two_products, const T*, const T*, const T*, const T*, const matrix<T>&>(owed, a, qb,
                                                                                                 u, gw);
        else
          linalg::ger<T>(1, qb, u, gw);
        const index_t size = n_ * w.rows, size_of_d = moved_ * w.rows;
        const rescaling p1 = balance_norms(norm(u, w.columns), norm(jb, size), epsilon_),
                        p2 = balance_norms(norm(a, w.columns), norm(d, size_of_d), epsilon_);
        mix_factors(T(p1.over), jb, c[l] * T(p2.over), d, b, w.rows);
        mix(T(p1.by), u, c[l] * T(p2.by), a, u, w.columns);
        b += size, jb += size, d += size_of_d, qb += w.rows;
        if (owed) owed += w.rows;
        u += w.columns, a += w.columns;
      }
    }
  }

  std::size_t bytes() const {
    return b_.bytes() + d_.bytes() + u_.bytes() + a_.bytes() + next_.bytes() + qb_.bytes() + signs_.bytes() +
           jacobian_.bytes() + matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    v("b", view<T>(b_));
    v("u", view<T>(u_));
  }

 private:
  void write_factors(const F& f, const input& x, const const_edge<T>& e) {
    if constexpr (has_diag_jacobian<F>)
      if (units_ > 0) {
        f.diag_factors(x, e, a_, d_);
        return;
      }
    f.factors(x, e, a_, d_);
  }
  // A += x y' + v w'.
  struct two_products {
    template <class Isa>
    UNROLL_INLINE static void run(const T* x, const T* y, const T* v, const T* w, const matrix<T>& a) {
      for (index_t j = 0; j < a.cols; ++j) {
        T* const column = a.data + j * a.stride;
        simd::map_on<Isa>([y = y[j], w = w[j]](const auto& to, const auto& p, const auto& q)
                              UNROLL_INLINE { return (to + y * p) + w * q; },
                          a.rows, column, static_cast<const T*>(column), x, v);
      }
    }
  };
  // to = p x + q D; x, to: n x rows, d: likewise, or of each row the numbers of unit r % units_, rows x
  // moved_.
  void mix_factors(T p, const T* x, T q, const T* d, T* to, index_t rows) const {
    if (units_ == 0) return mix(p, x, q, d, to, n_ * rows);
    simd::map([p](const auto& v) UNROLL_INLINE { return p * v; }, n_ * rows, to, x);
    for (index_t number = 0; number < n_; number += units_)
      for (index_t r = 0; r < rows; ++r) to[r * n_ + number + r % units_] += q * *d++;
  }
  // to = p x + q y, n numbers each; `to` may be x.
  static void mix(T p, const T* x, T q, const T* y, T* to, index_t n) {
    simd::map([p, q](const auto& v, const auto& w) UNROLL_INLINE { return p * v + q * w; }, n, to, x, y);
  }
  static double norm(const T* v, index_t n) { return double(linalg::norm(v, n)); }

  dims sizes_;
  index_t n_, rows_ = 0, columns_ = 0;
  double epsilon_;
  std::vector<weight_matrix> matrices_;
  index_t units_, moved_;  // units_of_rows, and numbers of the state that a row moves
  buffer<T> jacobian_, b_, d_, u_, a_, next_, qb_, signs_;
};

}  // namespace unroll::influence
