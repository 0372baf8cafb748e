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
///
/// Where units are complex numbers and a weight has two rows, its real and its imaginary part
/// (complex_matrices), the derivative by the latter is i times the other: that is kept alone, one complex
/// trace a complex weight. Traces with a decay or a filter are all kept.
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
      kept_ += kept_rows(f, w) * w.columns * parts_;
    }
    jacobian_ = buffer<T>(lanes_ * n_ * parts_);
    a_ = buffer<T>(lanes_ * columns_);
    d_ = buffer<T>(lanes_ * rows_ * parts_);
    m_ = buffer<T>(lanes_ * kept_);
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

  bool adds_owed() const { return true; }  ///< influence_of
  /// g += dz a' + q M, where dz is given, then M <- J M + F within the units, at the edge e. Returns the
  /// vjps: none.
  index_t propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                    view<const T> dz = {}) {
    for (index_t l = 0; l < lanes_; ++l)
      if (lane_begins(f, x, l)) forget(l);
    if (!options_.decay) f.diag_jacobian(x, e, jacobian_);
    f.diag_factors(x, e, a_, d_);
    const T *a = a_.data(), *d = d_.data(), *owed = dz.data();
    T *m = m_.data(), *filtered = options_.filter != 0 ? filtered_.data() : nullptr;
    for (index_t l = 0; l < lanes_; ++l)
      for (const weight_matrix& w : matrices_) {
        const index_t rows = kept_rows(f, w);
        for (index_t r = 0; r < rows; r += units_)
          update({jacobian_.data() + l * n_ * parts_, q.data() + l * n_, d + r, owed ? owed + r : nullptr, a,
                  m + r, filtered ? filtered + r : nullptr, g.data() + w.first + r, T(options_.filter),
                  units_, parts_, w.rows, rows, w.columns, w.stride});
        a += w.columns;
        d += w.rows * parts_;
        if (owed) owed += w.rows;
        m += rows * parts_ * w.columns;
        if (filtered) filtered += rows * parts_ * w.columns;
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
  index_t kept() const { return kept_; }  ///< entries of M, of one lane
  /// M: of each lane the matrices one behind the other, of each its columns, of each the numbers of a unit,
  /// of each the rows that are kept: M_rj of number b is [(j m + b) rows + r].
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
  // Rows of a matrix of which M is kept.
  index_t kept_rows([[maybe_unused]] const F& f, const weight_matrix& w) const {
    if constexpr (requires { f.complex_matrices(); })
      if (&w - matrices_.data() < f.complex_matrices() && !options_.decay && options_.filter == 0)
        return units_;
    return w.rows;
  }
  // What J_u would have cleared, were it not for a decay or a filter.
  void forget(index_t lane) {
    std::fill_n(m_.data() + lane * kept(), kept(), T(0));
    if (options_.filter != 0) std::fill_n(filtered_.data() + lane * kept(), kept(), T(0));
  }

  // One row of every unit, of one matrix and lane. J: units x m x m; q: units x m; d: m numbers, `rows`
  // apart; dz, where it is not null: a number; a: columns; M: of a column m numbers, `kept` apart; M~, where
  // it is not null: likewise; g: a column, `stride` from the next. Of a complex weight, kept < rows, dz and g
  // also have its imaginary part, `kept` behind the real one.
  struct part {
    const T *j, *q, *d, *dz, *a;
    T *m, *filtered, *g, filter;
    index_t units, parts, rows, kept, columns, stride;
  };
  void update(const part& p) {
    if (p.kept < p.rows)
      p.dz ? simd::dispatch<complex_kernel<true>, const part&>(p)
           : simd::dispatch<complex_kernel<false>, const part&>(p);
    else if (p.parts == 1)
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
      p.dz ? units<simd::width<Isa, T>, (Isa::registers == 32 ? 4 : 2) / M, true>(p, 0)
           : units<simd::width<Isa, T>, (Isa::registers == 32 ? 4 : 2) / M, false>(p, 0);
    }
    // V vectors of units at a time, what is left by half as many, then by narrower ones. What belongs to them
    // stays in registers while the columns pass.
    template <int N, int V, bool adds>
    UNROLL_INLINE static void units(const part& all, index_t u) {
      const part p = all;  // a copy, which no store can change
      for (; u + V * N <= p.units; u += V * N) {
        simd::vec<T, N> j[std::size_t(V)][std::size_t(M * M)], q[std::size_t(V)][std::size_t(M)],
            d[std::size_t(V)][std::size_t(M)], dz[std::size_t(V)];
        UNROLL_FULLY
        for (int v = 0; v < V; ++v) {
          for (int b = 0; b < M; ++b) {
            for (int i = 0; i < M; ++i)
              j[v][b * M + i] = simd::load<N>(p.j + (b * M + i) * p.units + u + v * N);
            q[v][b] = simd::load<N>(p.q + b * p.units + u + v * N);
            d[v][b] = simd::load<N>(p.d + b * p.rows + u + v * N);
          }
          if constexpr (adds) dz[v] = simd::load<N>(p.dz + u + v * N);
        }
        T *m = p.m + u, *g = p.g + u;
        [[maybe_unused]] T* seen = filters ? p.filtered + u : nullptr;
        for (index_t c = 0; c < p.columns; ++c, m += M * p.rows, g += p.stride) {
          const T a = p.a[c];
          UNROLL_FULLY
          for (int v = 0; v < V; ++v) {
            simd::vec<T, N> sum = simd::load<N>(g + v * N);
            if constexpr (adds) sum = sum + dz[v] * a;
            column(p, j[v], q[v], d[v], a, sum, m + v * N, seen + (filters ? v * N : 0), g + v * N);
          }
          if constexpr (filters) seen += M * p.rows;
        }
      }
      if constexpr (V > 1)
        units<N, V / 2, adds>(p, u);
      else if constexpr (N > 1)
        units<N / 2, 1, adds>(p, u);
    }
    // g = sum + q M, or q M~, then M <- J M + d a and M~ <- kappa M~ + M, for one entry of the rows of N
    // units.
    template <int N>
    UNROLL_INLINE static void column(const part& p, const simd::vec<T, N> (&j)[std::size_t(M * M)],
                                     const simd::vec<T, N> (&q)[std::size_t(M)],
                                     const simd::vec<T, N> (&d)[std::size_t(M)], T a, simd::vec<T, N>& sum,
                                     T* m, T* filtered, T* g) {
      simd::vec<T, N> old[std::size_t(M)], seen[std::size_t(M)];
      UNROLL_FULLY
      for (int b = 0; b < M; ++b) {
        old[b] = simd::load<N>(m + b * p.rows);
        seen[b] = filters ? simd::load<N>(filtered + b * p.rows) : old[b];
        sum += q[b] * seen[b];
      }
      simd::store(sum, g);
      UNROLL_FULLY
      for (int i = 0; i < M; ++i) {
        simd::vec<T, N> next = d[i] * a;
        UNROLL_FULLY
        for (int b = 0; b < M; ++b) next += j[b * M + i] * old[b];
        simd::store(next, m + i * p.rows);
        if constexpr (filters) simd::store(seen[i] * p.filter + next, filtered + i * p.rows);
      }
    }
  };

  // The same of complex weights: t <- lambda t + d a for the derivative t by the real part, that by the
  // imaginary part being i t. J: lambda = J_0 + i J_1.
  template <bool adds>
  struct complex_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const part& p) {
      units<simd::width<Isa, T>>(p, 0);
    }
    template <int N>
    UNROLL_INLINE static void units(const part& all, index_t u) {
      const part p = all;
      using vec = simd::vec<T, N>;
      for (; u + N <= p.units; u += N) {
        const vec re = simd::load<N>(p.j + u), im = simd::load<N>(p.j + p.units + u);
        const vec q0 = simd::load<N>(p.q + u), q1 = simd::load<N>(p.q + p.units + u);
        const vec d0 = simd::load<N>(p.d + u), d1 = simd::load<N>(p.d + p.rows + u);
        vec z0{}, z1{};
        if constexpr (adds) z0 = simd::load<N>(p.dz + u), z1 = simd::load<N>(p.dz + p.kept + u);
        T *m = p.m + u, *g = p.g + u;
        for (index_t c = 0; c < p.columns; ++c, m += 2 * p.kept, g += p.stride) {
          const T a = p.a[c];
          const vec t0 = simd::load<N>(m), t1 = simd::load<N>(m + p.kept);
          vec g0 = simd::load<N>(g), g1 = simd::load<N>(g + p.kept);
          if constexpr (adds) g0 += z0 * a, g1 += z1 * a;
          simd::store((g0 + q0 * t0) + q1 * t1, g);
          simd::store((g1 - q0 * t1) + q1 * t0, g + p.kept);
          simd::store((d0 * a + re * t0) - im * t1, m);
          simd::store((d1 * a + im * t0) + re * t1, m + p.kept);
        }
      }
      if constexpr (N > 1) units<N / 2>(p, u);
    }
  };

  // One unit of any size: one column after another.
  static void plain(const part& p, T* old, index_t u) {
    for (index_t c = 0, at = u; c < p.columns; ++c, at += p.parts * p.rows) {
      if (p.dz) p.g[c * p.stride + u] += p.dz[u] * p.a[c];
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
  index_t columns_ = 0, rows_ = 0, kept_ = 0;  // kept_: of a lane
  buffer<T> jacobian_, a_, d_, m_, old_, filtered_;
};

}  // namespace unroll::influence
