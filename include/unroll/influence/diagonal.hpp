#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/simd.hpp"
#include "unroll/influence/concept.hpp"

namespace unroll::influence {

/// How an eligibility trace differs from the influence.
struct trace_options {
  std::optional<double> decay = {};  ///< of a trace in a step, in place of J_u
  double filter = 0;                 ///< kappa: what is projected is the sum of kappa^k M, k steps ago
};

/// The entries of M = ds/dtheta of a parameter and its own unit, the others count as 0: with J_u the m x m
/// block of unit u in ds'/ds and d_r the m numbers by which row r of a weight matrix moves its unit (z_r is
/// what the row multiplies out to, a its input),
///
///     M_rj <- J_u M_rj + d_r a_j          for entry (r, j), m = n / units numbers
///
/// Exact where units stand apart (units_apart). What learning rules of single units call eligibility traces
/// are M with a decay in place of J_u, or a filter behind it, M~ <- kappa M~ + M, from which g is made; both
/// are forgotten where a lane begins anew (lane_begins). A step takes m^2 + m multiply-adds a parameter and
/// lane, and calls no vjp. Memory, to leading order: m scalars a parameter and lane. Needs: diag_jacobian.
template <class F>
class diagonal {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// Throws unroll::error, in the name of the estimator `who`, where the units do not divide the state and
  /// the rows.
  diagonal(const char* who, const F& f, const trace_options& options = {})
      : options_(options),
        lanes_(f.size().lanes),
        n_(f.size().state / lanes_),
        units_(f.units()),
        matrices_(f.weight_matrices()) {
    check_at_least(who, "units", units_, 1);
    parts_ = n_ / units_;
    check_size(who, "units times the numbers of each", units_ * parts_, n_);
    for (const weight_matrix& w : matrices_) {
      check_size(who, "units times the rows of each", w.rows / units_ * units_, w.rows);
      columns_ += w.columns;
      rows_ += w.rows;
      entries_ += w.rows * w.columns;
    }
    jacobian_ = buffer<T>(lanes_ * n_ * parts_);
    a_ = buffer<T>(lanes_ * columns_);
    d_ = buffer<T>(lanes_ * rows_ * parts_);
    m_ = buffer<T>(lanes_ * entries_ * parts_);
    old_ = buffer<T>(parts_);
    if (options_.filter != 0) filtered_ = buffer<T>(m_.size());
    if (options_.decay)
      for (index_t k = 0; k < jacobian_.size(); ++k)
        jacobian_[k] = T(k / units_ % (parts_ * parts_) % (parts_ + 1) == 0 ? *options_.decay : 0);
  }

  void reset() {
    m_.zero();
    filtered_.zero();
  }

  /// g += q M, then M <- J M + F within the units, at the edge e. Returns the vjps: none.
  index_t propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g) {
    for (index_t l = 0; l < lanes_; ++l)
      if (lane_begins(f, x, l)) forget(l);
    if (!options_.decay) f.diag_jacobian(x, e, jacobian_);
    f.diag_factors(x, e, a_, d_);
    const T *a = a_.data(), *d = d_.data();
    T *m = m_.data(), *filtered = options_.filter != 0 ? filtered_.data() : nullptr;
    for (index_t l = 0; l < lanes_; ++l)
      for (const weight_matrix& w : matrices_) {
        for (index_t r = 0; r < w.rows; r += units_)
          update({jacobian_.data() + l * n_ * parts_, q.data() + l * n_, d + r, a, m + r,
                  filtered ? filtered + r : nullptr, g.data() + w.first + r, T(options_.filter), units_,
                  parts_, w.rows, w.columns, w.stride});
        a += w.columns;
        d += w.rows * parts_;
        m += w.rows * parts_ * w.columns;
        if (filtered) filtered += w.rows * parts_ * w.columns;
      }
    return 0;
  }

  /// With a decay: that of each number of the state of a lane, n of them, from now on.
  void set_decays(const T* decays) {
    for (index_t k = 0; k < jacobian_.size(); ++k) {
      const index_t unit = k % units_, entry = k / units_ % (parts_ * parts_);
      if (entry % (parts_ + 1) == 0) jacobian_[k] = decays[entry / (parts_ + 1) * units_ + unit];
    }
  }
  index_t kept() const { return entries_ * parts_; }  ///< entries of M, of one lane
  /// M: of each lane the matrices one behind the other, of each its columns, of each the numbers of a unit,
  /// of each the rows: M_rj of number b is [(j m + b) rows + r].
  view<const T> values() const { return m_; }
  std::size_t bytes() const {
    return m_.bytes() + filtered_.bytes() + old_.bytes() + jacobian_.bytes() + a_.bytes() + d_.bytes() +
           matrices_.size() * sizeof(weight_matrix);
  }
  template <class V>
  void visit(V&& v) {
    v("influence", view<T>(m_));
    if (options_.filter != 0) v("filtered", view<T>(filtered_));
  }

 private:
  // What J_u would have cleared, were it not for a decay or a filter.
  void forget(index_t lane) {
    std::fill_n(m_.data() + lane * kept(), kept(), T(0));
    if (options_.filter != 0) std::fill_n(filtered_.data() + lane * kept(), kept(), T(0));
  }

  // One row of every unit, of one matrix and lane. J: units x m x m; q: units x m; d: m numbers, `rows`
  // apart; a: columns; M: of a column m numbers, `rows` apart; M~, where it is not null: likewise; g: a
  // column, `stride` from the next.
  struct part {
    const T *j, *q, *d, *a;
    T *m, *filtered, *g, filter;
    index_t units, parts, rows, columns, stride;
  };
  void update(const part& p) {
    if (p.parts == 1)
      p.filtered ? simd::dispatch<kernel<1, true>, const part&>(p)
                 : simd::dispatch<kernel<1, false>, const part&>(p);
    else if (p.parts == 2)
      p.filtered ? simd::dispatch<kernel<2, true>, const part&>(p)
                 : simd::dispatch<kernel<2, false>, const part&>(p);
    else
      for (index_t u = 0; u < p.units; ++u) plain(p, old_.data(), u);
  }

  template <int M, bool filters>
  struct kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const part& p) {
      units<simd::width<Isa, T>, (Isa::registers == 32 ? 4 : 2) / M>(p, 0);
    }
    // V vectors of units at a time, what is left by half as many, then by narrower ones. What belongs to them
    // stays in registers while the columns pass.
    template <int N, int V>
    UNROLL_INLINE static void units(const part& p, index_t u) {
      using vec = simd::vec<T, N>;
      for (; u + V * N <= p.units; u += V * N) {
        vec j[std::size_t(V)][std::size_t(M * M)], q[std::size_t(V)][std::size_t(M)],
            d[std::size_t(V)][std::size_t(M)];
        UNROLL_FULLY
        for (int v = 0; v < V; ++v)
          for (int b = 0; b < M; ++b) {
            for (int i = 0; i < M; ++i)
              j[v][b * M + i] = simd::load<N>(p.j + (b * M + i) * p.units + u + v * N);
            q[v][b] = simd::load<N>(p.q + b * p.units + u + v * N);
            d[v][b] = simd::load<N>(p.d + b * p.rows + u + v * N);
          }
        index_t at = u, to = u;  // the first of the units in a column of M, and of g
        for (index_t c = 0; c < p.columns; ++c, at += M * p.rows, to += p.stride) {
          UNROLL_FULLY
          for (int v = 0; v < V; ++v) column(p, j[v], q[v], d[v], p.a[c], at + v * N, to + v * N);
        }
      }
      if constexpr (V > 1)
        units<N, V / 2>(p, u);
      else if constexpr (N > 1)
        units<N / 2, 1>(p, u);
    }
    // g += q M, or q M~, then M <- J M + d a and M~ <- kappa M~ + M, for one entry of the rows of N units.
    template <int N>
    UNROLL_INLINE static void column(const part& p, const simd::vec<T, N> (&j)[std::size_t(M * M)],
                                     const simd::vec<T, N> (&q)[std::size_t(M)],
                                     const simd::vec<T, N> (&d)[std::size_t(M)], T a, index_t at,
                                     index_t to) {
      simd::vec<T, N> old[std::size_t(M)], seen[std::size_t(M)], sum = simd::load<N>(p.g + to);
      for (int b = 0; b < M; ++b) {
        old[b] = simd::load<N>(p.m + at + b * p.rows);
        seen[b] = filters ? simd::load<N>(p.filtered + at + b * p.rows) : old[b];
        sum += q[b] * seen[b];
      }
      simd::store(sum, p.g + to);
      for (int i = 0; i < M; ++i) {
        simd::vec<T, N> next = d[i] * a;
        for (int b = 0; b < M; ++b) next += j[b * M + i] * old[b];
        simd::store(next, p.m + at + i * p.rows);
        if (filters) simd::store(seen[i] * p.filter + next, p.filtered + at + i * p.rows);
      }
    }
  };

  // One unit of any size: one column after another.
  static void plain(const part& p, T* old, index_t u) {
    for (index_t c = 0, at = u; c < p.columns; ++c, at += p.parts * p.rows) {
      for (index_t b = 0; b < p.parts; ++b) {
        old[b] = p.m[at + b * p.rows];
        p.g[c * p.stride + u] += p.q[b * p.units + u] * (p.filtered ? p.filtered[at + b * p.rows] : old[b]);
      }
      for (index_t i = 0; i < p.parts; ++i) {
        T next = p.d[i * p.rows + u] * p.a[c];
        for (index_t b = 0; b < p.parts; ++b) next += p.j[(b * p.parts + i) * p.units + u] * old[b];
        p.m[at + i * p.rows] = next;
        if (T* const f = p.filtered ? p.filtered + at + i * p.rows : nullptr) *f = p.filter * *f + next;
      }
    }
  }

  trace_options options_;
  index_t lanes_, n_, units_, parts_ = 0;
  std::vector<weight_matrix> matrices_;
  index_t columns_ = 0, rows_ = 0, entries_ = 0;
  buffer<T> jacobian_, a_, d_, m_, old_, filtered_;
};

}  // namespace unroll::influence
