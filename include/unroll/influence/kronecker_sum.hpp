#pragma once

#include <algorithm>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/influence/concept.hpp"
#include "unroll/influence/term_reduction.hpp"

namespace unroll::influence {

/// M as a sum of r products B_i (x) u_i' in each lane for every matrix of theta (has_factors), random: E sum
/// B_i (x) u_i' = M. The part of M that belongs to W(i, j) is the column sum_k B_k(:, i) u_k(j). A step makes
/// r + 1 terms of it,
///
///     J M + F = sum J B_i (x) u_i' + D (x) a'  =  Q_B R_B (R_U' Q_U') = Q_B (R_B R_U') Q_U'
///
/// and term_reduction draws r from them, of the smallest variance that r terms can have. The matrices of a
/// lane share its r + 1 signs. Benzing et al. 2019. A step takes, in a lane, r n^2 rows + about 3 (r + 1)^2
/// (n rows + columns) multiply-adds, with `rows` and `columns` those of all matrices together (n = state /
/// lanes). Memory: (lanes (r + 1) + r + 1) n rows scalars, to leading order. Needs: jacobian, factors.
template <class F>
class kronecker_sum {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  kronecker_sum(const F& f, index_t terms)
      : sizes_(f.size()),
        n_(sizes_.state / sizes_.lanes),
        terms_(terms),
        matrices_(f.weight_matrices()),
        reduction_(terms) {
    index_t most_rows = 0, most_columns = 0;
    for (const weight_matrix& w : matrices_) {
      rows_ += w.rows;
      columns_ += w.columns;
      most_rows = std::max(most_rows, w.rows);
      most_columns = std::max(most_columns, w.columns);
    }
    const index_t m = terms_ + 1;
    jacobian_ = buffer<T>(n_ * sizes_.state);
    d_ = buffer<T>(sizes_.state * rows_);
    a_ = buffer<T>(sizes_.lanes * columns_);
    b_ = buffer<T>(sizes_.state * rows_ * terms_);
    u_ = buffer<T>(sizes_.lanes * columns_ * terms_);
    all_b_ = buffer<T>(n_ * most_rows * m);
    all_u_ = buffer<T>(most_columns * m);
    qb_ = buffer<T>(most_rows * terms_);
    signs_ = buffer<T>(sizes_.lanes * m);
    x_ = y_ = buffer<T>(m * terms_);
    rb_ = ru_ = c_ = buffer<double>(m * m);
  }

  void reset() {
    b_.zero();
    u_.zero();
  }

  /// g += q M, then M <- a draw whose mean is J M + F, at the edge e, with signs drawn for step t; q: a
  /// state's cotangent.
  template <chooser C>
  void propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                 C& draws, std::int64_t t, report&) {
    f.jacobian(x, e, jacobian_);
    f.factors(x, e, a_, d_);
    draws.signs(t, view<T>(signs_));
    T *b = b_.data(), *u = u_.data();
    const T *d = d_.data(), *a = a_.data();
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      const matrix<const T> j{jacobian_.data() + l * n_ * n_, n_, n_};
      for (const weight_matrix& w : matrices_) {
        const index_t size = n_ * w.rows;
        linalg::gemv<T>(op::transpose, {b, n_, w.rows * terms_}, q.data() + l * n_, false, qb_.data());
        for (index_t k = 0; k < terms_; ++k)
          linalg::ger<T>(1, qb_.data() + k * w.rows, u + k * w.columns,
                         {g.data() + w.first, w.rows, w.columns, w.stride});
        linalg::gemm<T>(op::none, j, op::none, {b, n_, w.rows * terms_}, false,
                        {all_b_.data(), n_, w.rows * terms_});
        std::copy_n(d, size, all_b_.data() + terms_ * size);
        std::copy_n(u, w.columns * terms_, all_u_.data());
        std::copy_n(a, w.columns, all_u_.data() + terms_ * w.columns);
        draw_terms(signs_.data() + l * (terms_ + 1), {b, size, terms_}, {u, w.columns, terms_});
        b += size * terms_, d += size;
        u += w.columns * terms_, a += w.columns;
      }
    }
  }

  std::size_t bytes() const {
    return b_.bytes() + d_.bytes() + u_.bytes() + a_.bytes() + all_b_.bytes() + all_u_.bytes() + qb_.bytes() +
           signs_.bytes() + jacobian_.bytes() + x_.bytes() + y_.bytes() + rb_.bytes() + ru_.bytes() +
           c_.bytes() + reduction_.bytes() + matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    v("b", view<T>(b_));
    v("u", view<T>(u_));
  }

 private:
  // b: n rows x r, u: columns x r, from the r + 1 terms in all_b_ and all_u_.
  void draw_terms(const T* signs, matrix<T> b, matrix<T> u) {
    const index_t m = terms_ + 1;
    orthonormalise(all_b_.data(), b.rows, rb_.data());
    orthonormalise(all_u_.data(), u.rows, ru_.data());
    for (index_t i = 0; i < m; ++i)
      for (index_t k = 0; k < m; ++k) {
        double sum = 0;  // both are upper triangular
        for (index_t p = std::max(i, k); p < m; ++p) sum += rb_[p * m + i] * ru_[p * m + k];
        c_[k * m + i] = sum;
      }
    reduction_.reduce(c_.data(), signs, x_.data(), y_.data());
    linalg::gemm<T>(op::none, {all_b_.data(), b.rows, m}, op::none, {x_.data(), m, terms_}, false, b);
    linalg::gemm<T>(op::none, {all_u_.data(), u.rows, m}, op::none, {y_.data(), m, terms_}, false, u);
  }

  // A = Q R by Gram-Schmidt, twice, which is as orthogonal as the numbers allow. a: size x m, becomes Q; r: m
  // x m, WRITTEN. A column that lies in those before it up to rounding becomes 0.
  void orthonormalise(T* a, index_t size, double* r) {
    const index_t m = terms_ + 1;
    std::fill_n(r, m * m, 0.);
    for (index_t k = 0; k < m; ++k) {
      T* v = a + k * size;
      const double before = double(linalg::norm(v, size));
      for (int pass = 0; pass < 2; ++pass)
        for (index_t i = 0; i < k; ++i) {
          const T along = linalg::dot(a + i * size, v, size);
          linalg::axpy<T>(-along, a + i * size, v, size);
          r[k * m + i] += double(along);
        }
      const double left = double(linalg::norm(v, size));
      if (left > 4 * double(std::numeric_limits<T>::epsilon()) * before) {
        r[k * m + k] = left;
        for (index_t i = 0; i < size; ++i) v[i] = T(double(v[i]) / left);
      } else {
        std::fill_n(v, size, T(0));
      }
    }
  }

  dims sizes_;
  index_t n_, terms_, rows_ = 0, columns_ = 0;
  std::vector<weight_matrix> matrices_;
  term_reduction reduction_;
  buffer<T> jacobian_, d_, a_, b_, u_, all_b_, all_u_, qb_, signs_, x_, y_;
  buffer<double> rb_, ru_, c_;
};

}  // namespace unroll::influence
