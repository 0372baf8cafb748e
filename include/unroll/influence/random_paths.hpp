#pragma once

#include <algorithm>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/simd.hpp"
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
    before_ = buffer<T>(n_ * tile);
    coins_ = buffer<double>(n_);
    qm_ = buffer<T>(weights_);
    a_ = buffer<T>(sizes_.lanes * columns);
    d_ = buffer<T>(sizes_.state * rows_);
    paths_.resize(std::size_t(n_ * n_));
    path_ends_.resize(std::size_t(n_));
    moves_.resize(std::size_t(n_ * rows_));
    move_ends_.resize(matrices_.size());
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
      T *m = m_.data() + l * n_ * weights_, *j = jacobian_.data() + l * n_ * n_;
      const T *ql = q.data() + l * n_, *a = a_.data() + l * (a_.size() / sizes_.lanes);
      if (t > 0) thin(j, draws, (t * sizes_.lanes + l) * n_ * n_);
      list_moves(d_.data() + l * n_ * rows_);
      for (index_t k = 0; k < weights_;
           k += tile) {  // some columns of all rows of M, while they are in cache
        const index_t count = std::min(tile, weights_ - k);
        if (t > 0) {  // before the first step M is zero
          for (index_t i = 0; i < n_; ++i)
            std::copy_n(m + i * weights_ + k, count, before_.data() + i * count);
          linalg::gemv<T>(op::none, {before_.data(), count, n_}, ql, l > 0, qm_.data() + k);
          simd::dispatch<multiply_kernel>(paths_.data(), path_ends_.data(), before_.data(), m + k, n_,
                                          weights_, count);
        }
        add_immediate(a, m, k, k + count);
      }
    }
    if (t > 0) add_weights(g);
  }

  std::size_t bytes() const {
    return m_.bytes() + qm_.bytes() + jacobian_.bytes() + before_.bytes() + a_.bytes() + d_.bytes() +
           coins_.bytes() + (paths_.size() + moves_.size()) * sizeof(entry) +
           (path_ends_.size() + move_ends_.size()) * sizeof(index_t) +
           matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    v("influence", view<T>(m_));
  }

 private:
  static constexpr index_t tile = 512 / index_t(sizeof(T));  // columns of M

  // Of a matrix, what is not zero.
  struct entry {
    index_t row, column;
    T value;
  };

  // J o B / p, row by row. Entries that are zero draw nothing.
  template <class C>
  void thin(T* j, const C& draws, std::int64_t name) {
    for (index_t k = 0; k < n_; ++k) {
      T* to = j + k * n_;
      if constexpr (requires { draws.coins(name, p_, view<double>()); })
        draws.coins(name + k * n_, p_, view<double>(coins_));
      else
        for (index_t i = 0; i < n_; ++i) coins_[i] = to[i] != 0 && draws.coin(name + k * n_ + i, p_) ? 1 : 0;
      for (index_t i = 0; i < n_; ++i) {
        const T drawn = to[i] / T(p_);
        to[i] = coins_[i] != 0 ? drawn : T(0);
      }
    }
    std::size_t end = 0;
    for (index_t i = 0; i < n_; ++i) {
      for (index_t k = 0; k < n_; ++k) {  // without a branch, which a coin would mislead
        const T drawn = j[k * n_ + i];
        paths_[end] = {i, k, drawn};
        end += drawn != 0 ? 1 : 0;
      }
      path_ends_[std::size_t(i)] = index_t(end);
    }
  }

  // The entries of D, matrix by matrix; d: n x rows of each.
  void list_moves(const T* d) {
    std::size_t end = 0;
    for (std::size_t b = 0; b < matrices_.size(); ++b) {
      for (index_t r = 0; r < matrices_[b].rows; ++r, d += n_)
        for (index_t i = 0; i < n_; ++i)
          if (d[i] != 0) moves_[end++] = {i, r, d[i]};
      move_ends_[b] = index_t(end);
    }
  }

  // g += q M, summed over the lanes.
  void add_weights(dparams<T> g) {
    const T* from = qm_.data();
    for (const weight_matrix& w : matrices_)
      for (index_t c = 0; c < w.columns; ++c, from += w.rows)
        linalg::axpy(T(1), from, g.data() + w.first + c * w.stride, w.rows);
  }

  // Row i of `count` columns of J M, by the paths that end in i. before: those columns of M, n x count; m: a
  // row is `stride` numbers from the next.
  struct multiply_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const entry* paths, const index_t* ends, const T* before, T* m, index_t n,
                                  index_t stride, index_t count) {
      for (index_t i = 0; i < n; ++i, m += stride)
        columns<simd::width<Isa, T>, 8>(paths + (i ? ends[i - 1] : 0), paths + ends[i], before, count, m, 0);
    }
    // V vectors of N columns at a time from column c on, of what is left half as many, then narrower ones.
    template <int N, int V>
    UNROLL_INLINE static void columns(const entry* first, const entry* end, const T* before, index_t count,
                                      T* to, index_t c) {
      for (; c + V * N <= count; c += V * N) {
        simd::vec<T, N> sum[std::size_t(V)] = {};
        for (const entry* e = first; e != end; ++e) {
          const T* from = before + e->column * count + c;
          UNROLL_FULLY
          for (int v = 0; v < V; ++v) sum[v] += simd::load<N>(from + v * N) * e->value;
        }
        UNROLL_FULLY
        for (int v = 0; v < V; ++v) simd::store(sum[v], to + c + v * N);
      }
      if constexpr (V > 1)
        columns<N, V / 2>(first, end, before, count, to, c);
      else if constexpr (N > 1)
        columns<N / 2, 1>(first, end, before, count, to, c);
    }
  };

  // M += D_b (x) a_b' in columns [from, to).
  void add_immediate(const T* a, T* m, index_t from, index_t to) {
    index_t first = 0, e = 0;  // of a matrix: its first column in M, its first entry of D
    for (std::size_t b = 0; b < matrices_.size(); ++b) {
      const weight_matrix& w = matrices_[b];
      const index_t end = std::min(to, first + w.rows * w.columns);
      for (index_t c = std::max<index_t>(0, from - first) / w.rows; first + c * w.rows < end; ++c)
        for (index_t k = e; k < move_ends_[b]; ++k) {
          const entry& one = moves_[std::size_t(k)];
          const index_t p = first + c * w.rows + one.column;
          if (p >= from && p < end) m[one.row * weights_ + p] += one.value * a[c];
        }
      first += w.rows * w.columns;
      e = move_ends_[b];
      a += w.columns;
    }
  }

  dims sizes_;
  index_t n_, rows_ = 0, weights_ = 0;  // of all matrices
  double p_;
  std::vector<weight_matrix> matrices_;
  buffer<T> m_, qm_, jacobian_, before_, a_, d_;
  buffer<double> coins_;
  std::vector<entry> paths_, moves_;            // of J o B / p: from `column` to `row`; of D
  std::vector<index_t> path_ends_, move_ends_;  // behind the last of a row; of a matrix
};

}  // namespace unroll::influence
