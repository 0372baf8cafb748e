#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/core/linalg.hpp"
#include "unroll/core/small_svd.hpp"
#include "unroll/influence/diagonal.hpp"

namespace unroll::influence {

/// M = ds/dtheta as S + L R' in each lane: S is what a parameter does to its own unit (diagonal), exact
/// within the unit, and L R' the r largest directions of the rest, with L of n x r and R of params x r,
/// orthonormal columns. With J^ = J without the blocks of the units,
///
///     L R' <- the best r of  J L R' + J^ S,    S <- diag(J) S + F within the units
///
/// The error is bounded: with eta the norm of the singular values that are dropped, and of what F does to
/// other units (0 in most cells),
///
///     |M - S - L R'| <= error,    error <- rho error + eta,    rho = min(|J|_F, sqrt(|J|_1 |J|_inf)) >=
///     |J|_2
///
/// in the Frobenius norm, up to rounding. r = n drops nothing. A step takes, in a lane, about (r^2 + 3 r + 2)
/// params multiply-adds, n^2 (r + n), and a decomposition of an (n + r) x n matrix, about 20 n^3. Memory:
/// (r + m) params scalars a lane and as many once, to leading order, for units of m numbers. Needs: jacobian,
/// factors, diag_jacobian. The sketched RTRL of public code, 2026; see docs/math/sk_rtrl.md.
template <class F>
class sketch {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// rank: r; more than n is n.
  sketch(const F& f, index_t rank)
      : sizes_(f.size()),
        lanes_(sizes_.lanes),
        n_(sizes_.state / lanes_),
        units_(f.units()),
        rank_(std::min(rank, n_)),
        own_("sk_rtrl", f),
        parts_(n_ / units_),
        matrices_(f.weight_matrices()) {
    for (const weight_matrix& w : matrices_) {
      rows_ += w.rows;
      columns_ += w.columns;
      entries_ += w.rows * w.columns;
    }
    jacobian_ = buffer<T>(lanes_ * n_ * n_);
    a_ = buffer<T>(lanes_ * columns_);
    d_ = buffer<T>(lanes_ * n_ * rows_);
    l_ = buffer<T>(lanes_ * n_ * rank_);
    r_ = buffer<T>(lanes_ * entries_ * rank_);
    next_r_ = buffer<T>(entries_ * rank_);
    unit_s_ = buffer<T>(entries_ * parts_);
    row_sums_ = buffer<double>(n_);
    error_ = buffer<double>(lanes_);
    bound_ = buffer<double>(1);
    const index_t m = n_ + rank_;
    core_ = buffer<double>(m * n_);
    left_ = buffer<double>(n_ * n_);
    values_ = buffer<double>(n_);
    turned_ = buffer<double>(n_ * n_);
    along_ = buffer<double>(n_ * rank_);
    upper_ = buffer<double>(rank_ * rank_);
    dots_ = norms_ = buffer<double>(units_);
  }

  void reset() {
    own_.reset();
    l_.zero();
    r_.zero();
    error_.zero();
    bound_.zero();
  }

  /// g += q M, then M one step on at the edge e. Returns the vjps: none.
  index_t propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g) {
    f.jacobian(x, e, jacobian_);
    f.factors(x, e, a_, d_);
    for (index_t l = 0; l < lanes_; ++l) {
      bound_[0] += times(double(linalg::norm(q.data() + l * n_, n_)), error_[l]);
      add_sketch(l, q.data() + l * n_, g);
      advance(l);
    }
    return own_.propagate(f, x, e, q, g);
  }

  index_t rank() const { return rank_; }                     ///< r, at most n
  double error(index_t lane) const { return error_[lane]; }  ///< at least |M - S - L R'| in the lane
  /// At least the norm of what is wrong with all that was added to g since reset: the sum of |q| error.
  double certificate() const { return bound_[0]; }
  std::size_t bytes() const {
    return own_.bytes() + jacobian_.bytes() + a_.bytes() + d_.bytes() + l_.bytes() + r_.bytes() +
           next_r_.bytes() + unit_s_.bytes() + row_sums_.bytes() + error_.bytes() + bound_.bytes() +
           core_.bytes() + left_.bytes() + values_.bytes() + turned_.bytes() + along_.bytes() +
           upper_.bytes() + dots_.bytes() + norms_.bytes() + matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    own_.visit(v);
    v("l", view<T>(l_));
    v("r", view<T>(r_));
    v("errors", view<double>(error_));
    v("certificate", view<double>(bound_));
  }

 private:
  T* column_of_r(index_t l, index_t k) { return r_.data() + (l * rank_ + k) * entries_; }

  // g += (q L) R'
  void add_sketch(index_t l, const T* q, dparams<T> g) {
    for (index_t k = 0; k < rank_; ++k) {
      const T weight = linalg::dot(q, l_.data() + (l * rank_ + k) * n_, n_);
      const T* r = column_of_r(l, k);
      for (const weight_matrix& w : matrices_)
        for (index_t c = 0; c < w.columns; ++c, r += w.rows)
          linalg::axpy<T>(weight, r, g.data() + w.first + c * w.stride, w.rows);
    }
  }

  // L, R and the error of lane l, from S before its step.
  void advance(index_t l) {
    const T* j = jacobian_.data() + l * n_ * n_;
    orthonormalise_own(own_.values().data() + l * entries_ * parts_);
    orthonormalise_sketch(l);
    // core' = [J L U' , (J L) along' + J^ turned]', (r + n) x n, over the orthonormal rows of Q' and S
    const index_t m = n_ + rank_;
    for (index_t i = 0; i < n_; ++i) {
      double* row = core_.data() + i * m;
      std::fill_n(row, m, 0.);
      for (index_t k = 0; k < rank_; ++k) {
        double jl = 0;
        for (index_t c = 0; c < n_; ++c) jl += double(j[c * n_ + i]) * double(l_[(l * rank_ + k) * n_ + c]);
        for (index_t p = 0; p <= k; ++p) row[p] += jl * upper_[k * rank_ + p];
        for (index_t c = 0; c < n_; ++c) row[rank_ + c] += jl * along_[k * n_ + c];
      }
      for (index_t c = 0; c < n_; ++c)
        if (c % units_ != i % units_)
          for (index_t b = c % units_; b <= c; b += units_)
            row[rank_ + b] += double(j[c * n_ + i]) * turned_[b * n_ + c];
    }
    linalg::jacobi_svd(m, n_, core_.data(), left_.data(), values_.data());
    double dropped = 0;
    for (index_t k = rank_; k < n_; ++k) dropped += values_[k] * values_[k];
    error_[l] = times(spectral_bound(j), error_[l]) + std::sqrt(dropped) + leaked(l);
    keep_largest(l);
  }

  // S = turned S^, S^ of orthonormal rows or zeros, row by row of a unit. turned: n x n, column-major, zero
  // between units.
  void orthonormalise_own(const T* s) {
    std::copy_n(s, unit_s_.size(), unit_s_.data());
    turned_.zero();
    for (index_t b = 0; b < parts_; ++b) {
      for (int pass = 0; pass < 2; ++pass)
        for (index_t c = 0; c < b; ++c) {
          unit_dots(c, b, dots_.data());
          each_own([&](T* row, index_t u, index_t rows) { row[b * rows] -= T(dots_[u]) * row[c * rows]; });
          for (index_t u = 0; u < units_; ++u) turned_[(c * units_ + u) * n_ + b * units_ + u] += dots_[u];
        }
      unit_dots(b, b, norms_.data());
      for (index_t u = 0; u < units_; ++u) {
        norms_[u] = std::sqrt(norms_[u]);
        turned_[(b * units_ + u) * (n_ + 1)] = norms_[u];
      }
      each_own([&](T* row, index_t u, index_t rows) {
        row[b * rows] = norms_[u] > 0 ? T(double(row[b * rows]) / norms_[u]) : T(0);
      });
    }
  }
  // visit(number 0 of an entry, its unit, distance to the next number) for every parameter of a row
  template <class Visit>
  void each_own(Visit&& visit) {
    T* s = unit_s_.data();
    for (const weight_matrix& w : matrices_)
      for (index_t c = 0; c < w.columns; ++c, s += parts_ * w.rows)
        for (index_t r = 0; r < w.rows; ++r) visit(s + r, r % units_, w.rows);
  }
  void unit_dots(index_t b, index_t c, double* out) {
    std::fill_n(out, units_, 0.);
    each_own([&](const T* row, index_t u, index_t rows) {
      out[u] += double(row[b * rows]) * double(row[c * rows]);
    });
  }

  // R = Q upper + S^' along', Q of orthonormal columns in place of R, orthogonal to S^. along: n x r.
  void orthonormalise_sketch(index_t l) {
    upper_.zero();
    along_.zero();
    for (index_t k = 0; k < rank_; ++k) {
      T* v = column_of_r(l, k);
      const double before = double(linalg::norm(v, entries_));
      for (int pass = 0; pass < 2; ++pass) {
        take_own_from(v, along_.data() + k * n_);
        for (index_t p = 0; p < k; ++p) {
          const T* q = column_of_r(l, p);
          const T along = linalg::dot(q, v, entries_);
          linalg::axpy<T>(-along, q, v, entries_);
          upper_[k * rank_ + p] += double(along);
        }
      }
      const double left = double(linalg::norm(v, entries_));
      const bool new_direction = left > 4 * double(std::numeric_limits<T>::epsilon()) * before;
      if (new_direction) upper_[k * rank_ + k] = left;
      for (index_t i = 0; i < entries_; ++i) v[i] = new_direction ? T(double(v[i]) / left) : T(0);
    }
  }
  // v -= S^' (S^ v); along += S^ v
  void take_own_from(T* v, double* along) {
    for (index_t b = 0; b < parts_; ++b) {
      std::fill_n(dots_.data(), units_, 0.);
      own_column(v, b, [&](const T& s, T& p, index_t u) { dots_[u] += double(s) * double(p); });
      own_column(v, b, [&](const T& s, T& p, index_t u) { p -= T(dots_[u]) * s; });
      for (index_t u = 0; u < units_; ++u) along[b * units_ + u] += dots_[u];
    }
  }
  // visit(number b of an entry of S^, the entry of v of the same parameter, its unit)
  template <class Visit>
  void own_column(T* v, index_t b, Visit&& visit) {
    each_own([&](T* row, index_t u, index_t rows) { visit(row[b * rows], *v++, u); });
  }

  // L R' <- the r largest of what core_ now is, right vectors in its columns: R = [Q, S^'] times them.
  void keep_largest(index_t l) {
    const index_t m = n_ + rank_;
    T* next = next_r_.data();
    for (index_t k = 0; k < rank_; ++k, next += entries_) {
      const double* right = core_.data() + k * m;
      for (index_t i = 0; i < n_; ++i) l_[(l * rank_ + k) * n_ + i] = T(left_[k * n_ + i] * values_[k]);
      std::fill_n(next, entries_, T(0));
      for (index_t p = 0; p < rank_; ++p) linalg::axpy<T>(T(right[p]), column_of_r(l, p), next, entries_);
      for (index_t b = 0; b < parts_; ++b)
        own_column(next, b, [&](const T& s, T& p, index_t u) { p += T(right[rank_ + b * units_ + u]) * s; });
    }
    std::copy_n(next_r_.data(), rank_ * entries_, r_.data() + l * rank_ * entries_);
  }

  // factor * error, 0 for a factor 0 of an error that has grown to infinity too: of no loss, behind a reset
  static double times(double factor, double error) { return factor == 0 ? 0 : factor * error; }

  // min(|J|_F, sqrt(|J|_1 |J|_inf)), at least the largest singular value
  double spectral_bound(const T* j) {
    double squares = 0, column = 0, row = 0;
    row_sums_.zero();
    for (index_t c = 0; c < n_; ++c) {
      double sum = 0;
      for (index_t i = 0; i < n_; ++i) {
        const auto v = std::abs(double(j[c * n_ + i]));
        squares += v * v;
        sum += v;
        row_sums_[i] += v;
      }
      column = std::max(column, sum);
    }
    for (const double v : row_sums_) row = std::max(row, v);
    return std::min(std::sqrt(squares), std::sqrt(column * row));
  }

  // Norm of what F does to other units than a row's own.
  double leaked(index_t l) const {
    const T *d = d_.data() + l * n_ * rows_, *a = a_.data() + l * columns_;
    double squares = 0;
    for (const weight_matrix& w : matrices_) {
      double others = 0, inputs = 0;
      for (index_t r = 0; r < w.rows; ++r)
        for (index_t i = 0; i < n_; ++i)
          if (i % units_ != r % units_) others += double(d[r * n_ + i]) * double(d[r * n_ + i]);
      for (index_t c = 0; c < w.columns; ++c) inputs += double(a[c]) * double(a[c]);
      squares += others * inputs;
      d += n_ * w.rows, a += w.columns;
    }
    return std::sqrt(squares);
  }

  dims sizes_;
  index_t lanes_, n_, units_, rank_;
  diagonal<F> own_;
  index_t parts_;
  std::vector<weight_matrix> matrices_;
  index_t rows_ = 0, columns_ = 0, entries_ = 0;
  buffer<T> jacobian_, a_, d_, l_, r_, next_r_, unit_s_;
  buffer<double> row_sums_, error_, bound_, core_, left_, values_, turned_, along_, upper_, dots_, norms_;
};

}  // namespace unroll::influence
