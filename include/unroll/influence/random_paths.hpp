#pragma once

#include <algorithm>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/influence/concept.hpp"

namespace unroll::influence {

/// A random matrix whose mean is M = ds/dtheta, moved through a random share of the entries of J. In each
/// lane it is n x P, P the number of weights of the matrices W_b, matrix by matrix: nothing else of theta
/// moves the state.
///
///     M <- (J o B / p) M + F        B_ij = 1 with probability p, else 0, all independent
///
/// A step and lane take, with m entries of J that are not zero, p m P multiply-adds and m draws, and n P
/// for q M and for F, which is added from the products D_b (x) a_b'. Memory, to leading order: state
/// P scalars. Needs: jacobian, factors.
template <class F>
class random_paths {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// p: in (0, 1].
  random_paths(const F& f, double p)
      : sizes_(f.size()),
        n_(sizes_.state / sizes_.lanes),
        p_(p),
        matrices_(f.weight_matrices()),
        jacobian_(n_ * sizes_.state) {
    index_t columns = 0;
    for (const weight_matrix& w : matrices_) {
      rows_ += w.rows;
      columns += w.columns;
      weights_ += w.rows * w.columns;
    }
    m_ = buffer<T>(sizes_.state * weights_);
    before_ = buffer<T>(n_ * std::min(tile, weights_));
    qm_ = buffer<T>(weights_);
    a_ = buffer<T>(sizes_.lanes * columns);
    d_ = buffer<T>(sizes_.state * rows_);
    row_ = buffer<T>(rows_);
  }

  void reset() { m_.zero(); }

  /// g += q M, then M <- (J o B / p) M + F at the edge e of step t, with B drawn by `draws`. q: a state's
  /// cotangent.
  template <class C>
  void propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                 const C& draws, std::int64_t t, report&) {
    f.jacobian(x, e, jacobian_);
    f.factors(x, e, a_, d_);
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      T* m = m_.data() + l * n_ * weights_;
      if (t > 0) {  // before the first step M is zero
        linalg::gemv<T>(op::none, {m, weights_, n_}, q.data() + l * n_, l > 0, qm_.data());
        T* j = jacobian_.data() + l * n_ * n_;
        thin(j, draws, (t * sizes_.lanes + l) * n_ * n_);
        for (index_t k = 0; k < weights_; k += tile) multiply(j, m + k, std::min(tile, weights_ - k));
      }
      add_immediate(a_.data() + l * (a_.size() / sizes_.lanes), d_.data() + l * n_ * rows_, m);
    }
    if (t > 0) add_weights(g);
  }

  std::size_t bytes() const {
    return m_.bytes() + qm_.bytes() + jacobian_.bytes() + before_.bytes() + a_.bytes() + d_.bytes() +
           row_.bytes() + matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    v("influence", view<T>(m_));
  }

 private:
  static constexpr index_t tile = 512;  // columns of all rows of M that are worked on while in cache

  // J o B / p in place of J. Entries that are zero draw nothing.
  template <class C>
  void thin(T* j, const C& draws, std::int64_t name) const {
    for (index_t k = 0; k < n_ * n_; ++k)
      if (j[k] != 0) j[k] = draws.coin(name + k, p_) ? j[k] / T(p_) : T(0);
  }

  // g += q M, summed over the lanes.
  void add_weights(dparams<T> g) {
    const T* from = qm_.data();
    for (const weight_matrix& w : matrices_)
      for (index_t c = 0; c < w.columns; ++c, from += w.rows)
        linalg::axpy(T(1), from, g.data() + w.first + c * w.stride, w.rows);
  }

  // J M in place of `count` columns of M, whose rows are weights_ numbers apart.
  void multiply(const T* j, T* m, index_t count) {
    for (index_t i = 0; i < n_; ++i) {
      std::copy_n(m + i * weights_, count, before_.data() + i * count);
      std::fill_n(m + i * weights_, count, T(0));
    }
    for (index_t i = 0; i < n_; ++i)
      for (index_t k = 0; k < n_; ++k)
        if (const T w = j[k * n_ + i]; w != 0)
          linalg::axpy(w, before_.data() + k * count, m + i * weights_, count);
  }

  // M += D_b (x) a_b', row by row, of D (n x rows, column-major) only from the first to the last entry of a
  // row that is not zero.
  void add_immediate(const T* a, const T* d, T* m) {
    for (const weight_matrix& w : matrices_) {
      for (index_t i = 0; i < n_; ++i) {
        index_t first = 0, end = w.rows;
        for (index_t r = 0; r < w.rows; ++r) row_[r] = d[r * n_ + i];
        while (end > first && row_[end - 1] == 0) --end;
        while (first < end && row_[first] == 0) ++first;
        if (first < end)
          linalg::ger<T>(1, row_.data() + first, a,
                         {m + i * weights_ + first, end - first, w.columns, w.rows});
      }
      a += w.columns;
      d += n_ * w.rows;
      m += w.rows * w.columns;
    }
  }

  dims sizes_;
  index_t n_, rows_ = 0, weights_ = 0;  // of all matrices
  double p_;
  std::vector<weight_matrix> matrices_;
  buffer<T> m_, qm_, jacobian_, before_, a_, d_, row_;
};

}  // namespace unroll::influence
