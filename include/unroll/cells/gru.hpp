#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/recurrent_cell.hpp"
#include "unroll/cells/slices.hpp"

namespace unroll::cells {

/// Where the reset gate acts: on U_n s + c (PyTorch, cuDNN), on s in front of the product (Cho et al.), or on
/// U_n s without a bias of its own (flax.nnx).
enum class reset_kind { after, before, after_without_bias };

struct gru_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units
  index_t out = 1;      ///< size of y; 0: y = s' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;  ///< independent sequences side by side
  reset_kind reset = reset_kind::after;
};

/// The step of the gated recurrent unit, for recurrent_cell:
///
///   r = logistic(W_r x + b_r + U_r s)      z = logistic(W_z x + b_z + U_z s)
///   n = tanh(W_n x + b_n + r a), a = U_n s + c     with reset_kind::after
///   n = tanh(W_n x + b_n + U_n a), a = r s         with reset_kind::before
///   as with after, c = 0                           with reset_kind::after_without_bias
///   s' = n + z (s - n)
///
/// The tape of a lane is [r; z; n; a].
template <class T>
struct gru_equations {
  using scalar = T;
  using options_type = gru_options;           ///< sizes and loss
  static constexpr const char* name = "gru";  ///< of the cell, for messages
  /// Rows of z, of s, of the tape and of d, in units of hidden.
  static constexpr index_t gates = 3, states = 1, taped = 4, cotangents = 4;
  static constexpr bool apart = true;  ///< whether W_h h is kept apart from z
  gru_options options;

  index_t own_params() const { return biased() ? options.hidden : 0; }  ///< c
  /// Appends "b_hn", which is c.
  void describe_own(layout& l) const {
    if (biased()) l.add("b_hn", options.hidden);
  }
  index_t product_gates() const { return after() ? 3 : 2; }  ///< those that multiply s itself

  void forward(const recurrent_weights<T>& w, matrix<const T> s_all, matrix<T> tape, matrix<T> u_all,
               matrix<T> next_all) const {
    const index_t h = options.hidden;
    const T* c = w.own;
    for (index_t l = 0; l < options.lanes; ++l) {
      const lane<T> g = lane_of(tape, l);
      const T* u = column(u_all, l);
      const T* s = column(s_all, l);
      T* next = column(next_all, l);
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto r = simd::logistic(v.load(g.r) + v.load(u));
        const auto z = simd::logistic(v.load(g.z) + v.load(u + h));
        v.store(r, g.r);
        v.store(z, g.z);
        if (!after()) {
          v.store(r * v.load(s), g.a);
          return;
        }
        auto a = v.load(u + 2 * h);
        if (biased()) a += v.load(c);
        const auto n = simd::tanh(v.load(g.n) + r * a);
        v.store(a, g.a);
        v.store(n, g.n);
        v.store(n + z * (v.load(s) - n), next);
      });
    }
    if (after()) return;
    const matrix<T> u_n = rows_of(u_all, 2 * h, h);
    w.product(2, 1, rows_of(tape, 3 * h, h), false, u_n);
    for (index_t l = 0; l < options.lanes; ++l) {
      const lane<T> g = lane_of(tape, l);
      const T* u = column(u_n, l);
      const T* s = column(s_all, l);
      T* next = column(next_all, l);
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto n = simd::tanh(v.load(g.n) + v.load(u));
        v.store(n, g.n);
        v.store(n + v.load(g.z) * (v.load(s) - n), next);
      });
    }
  }

  /// The rows of d are the cotangents of the arguments of r, z and n, and with reset_kind::after that of a.
  void backward(const recurrent_step<T>& at, T carry, matrix<T> ds_all, matrix<T> d_all,
                matrix<T> du_all) const {
    const index_t h = options.hidden;
    if (carry == T(0)) zero(ds_all);
    for (index_t l = 0; l < options.lanes; ++l) {
      const lane<const T> g = lane_of(at.tape, l);
      const T* const s = column(at.s, l);
      T* const ds = column(ds_all, l);
      T* const d = column(d_all, l);
      T* const du = column(du_all, l);
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto r = v.load(g.r), z = v.load(g.z), n = v.load(g.n);
        const auto delta = v.load(d + 3 * h) + carry * v.load(ds);
        const auto dn = delta * (T(1) - z) * (T(1) - n * n);
        const auto dz = delta * (v.load(s) - n) * z * (T(1) - z);
        const auto da = dn * r, dr = dn * v.load(g.a) * r * (T(1) - r);
        v.store(delta * z, ds);
        v.store(dr, d);
        v.store(dr, du);
        v.store(dz, d + h);
        v.store(dz, du + h);
        v.store(dn, d + 2 * h);
        v.store(da, d + 3 * h);
        v.store(da, du + 2 * h);
      });
    }
    if (after()) return;
    const matrix<T> da_all =
        rows_of(du_all, 2 * h, h);  // a is r s: what the loop wrote of r and a is overwritten
    at.w.transposed_product(2, 1, rows_of(d_all, 2 * h, h), false, da_all);
    for (index_t l = 0; l < options.lanes; ++l) {
      const T* r = lane_of(at.tape, l).r;
      const T* s = column(at.s, l);
      const T* da = column(da_all, l);
      T* d = column(d_all, l);
      T* du = column(du_all, l);
      T* ds = column(ds_all, l);
      for (index_t i = 0; i < h; ++i) {
        ds[i] += da[i] * r[i];
        d[i] = du[i] = da[i] * s[i] * r[i] * (1 - r[i]);
      }
    }
  }

  /// ADDS the gradients of U, to dw_h, and of c, to dc, hidden numbers; shapes: recurrent_step.hpp.
  void gradient(matrix<const T> d, matrix<const T> s, matrix<const T> tape, T* dw_h, T* dc) const {
    const index_t h = options.hidden;
    const matrix<T> dw{dw_h, 3 * h, h};
    const matrix<const T> du_n = rows_of(d, after() ? 3 * h : 2 * h, h), a = rows_of(tape, 3 * h, h);
    linalg::gemm<T>(op::none, rows_of(d, 0, 2 * h), op::transpose, s, true, rows_of(dw, 0, 2 * h));
    linalg::gemm<T>(op::none, du_n, op::transpose, after() ? s : a, true, rows_of(dw, 2 * h, h));
    if (biased()) linalg::sum_columns<T>(du_n, dc);
  }

  /// WRITES the tangent of s'.
  void tangent(const recurrent_step<T>& at, const recurrent_weights<T>& dw, matrix<const T> ds_all,
               matrix<T> dz_all, matrix<T> du_all, matrix<T> dnext) const {
    const index_t h = options.hidden;
    const bool after = this->after();
    for (index_t l = 0; l < options.lanes; ++l) {  // r, z and a
      const lane<const T> g = lane_of(at.tape, l);
      const T* s = column(at.s, l);
      const T* ds = ds_all.data ? column(ds_all, l) : nullptr;
      T* d = column(dz_all, l);
      T* du = column(du_all, l);
      T* da = du + 2 * h;
      for (index_t i = 0; i < 2 * h; ++i) d[i] = (d[i] + du[i]) * g.r[i] * (1 - g.r[i]);
      for (index_t i = 0; i < h; ++i)
        da[i] = after ? da[i] + (dw.own && biased() ? dw.own[i] : T(0))
                      : d[i] * s[i] + (ds ? g.r[i] * ds[i] : T(0));
    }
    if (!after) {
      const matrix<T> dn = rows_of(dz_all, 2 * h, h);
      if (dw.w_h) dw.product(2, 1, rows_of(at.tape, 3 * h, h), true, dn);
      at.w.product(2, 1, rows_of(du_all, 2 * h, h), true, dn);
    }
    for (index_t l = 0; l < options.lanes; ++l) {
      const lane<const T> g = lane_of(at.tape, l);
      const T* s = column(at.s, l);
      const T* ds = ds_all.data ? column(ds_all, l) : nullptr;
      const T* d = column(dz_all, l);
      const T* da = column(du_all, l) + 2 * h;
      T* next = column(dnext, l);
      for (index_t i = 0; i < h; ++i) {
        const T inner = d[2 * h + i] + (after ? d[i] * g.a[i] + g.r[i] * da[i] : T(0));
        const T dn = (1 - g.n[i] * g.n[i]) * inner;
        next[i] = dn + d[h + i] * (s[i] - g.n[i]) + g.z[i] * ((ds ? ds[i] : T(0)) - dn);
      }
    }
  }

  void jacobian(const recurrent_step<T>& at, T* J, T* v) const {
    const index_t h = options.hidden;
    const lane<const T> g = lane_of(at.tape, 0);
    const T* s = at.s.data;
    for (index_t j = 0; j < h; ++j) {
      const T* u = at.w.w_h + 3 * h * j;  // column j of U_r, U_z and U_n
      T* to = J + j * h;
      for (index_t i = 0; i < h; ++i)  // the derivative by s_j: of r a, or of a
        v[i] = after() ? g.r[i] * u[2 * h + i] + slope_r(g, i) * g.a[i] * u[i]
                       : slope_r(g, i) * s[i] * u[i] + (i == j ? g.r[i] : T(0));
      if (after())
        std::copy(v, v + h, to);
      else
        at.w.product(2, 1, {v, h, 1}, false, {to, h, 1});
      for (index_t i = 0; i < h; ++i)
        to[i] = slope_n(g, i) * to[i] + slope_z(g, s, i) * u[h + i] + (i == j ? g.z[i] : T(0));
    }
  }

  /// With reset_kind::after.
  void diag_jacobian(const recurrent_step<T>& at, T* J) const {
    const index_t h = options.hidden;
    const lane<const T> g = lane_of(at.tape, 0);
    for (index_t i = 0; i < h; ++i) {
      const T* u = at.w.w_h + 3 * h * i + i;
      J[i] = slope_n(g, i) * (g.r[i] * u[2 * h] + slope_r(g, i) * g.a[i] * u[0]) +
             slope_z(g, at.s.data, i) * u[h] + g.z[i];
    }
  }

  UNROLL_INLINE void immediate(const recurrent_step<T>& at, index_t row, index_t j, T v, T* column) const {
    const index_t h = options.hidden, i = row % h, gate = row / h;
    const lane<const T> g = lane_of(at.tape, 0);
    const T* s = at.s.data;
    if (j > h + options.in)  // c
      column[i] += slope_n(g, i) * g.r[i];
    else if (gate == 2)
      column[i] += slope_n(g, i) * (j >= h ? v : after() ? g.r[i] * v : g.a[j]);
    else if (gate == 1)
      column[i] += slope_z(g, s, i) * v;
    else if (after())
      column[i] += slope_n(g, i) * g.a[i] * slope_r(g, i) * v;
    else  // r_i reaches every n
      for (index_t k = 0; k < h; ++k)
        column[k] += slope_n(g, k) * at.w.w_h[3 * h * i + 2 * h + k] * s[i] * slope_r(g, i) * v;
  }
  /// With reset_kind::after.
  void diag_immediate(const recurrent_step<T>& at, index_t j, T* to) const {
    const index_t h = options.hidden;
    const lane<const T> g = lane_of(at.tape, 0);
    const bool own = j > h + options.in, input = !own && j >= h;
    T* n = own ? to : to + 2 * h;
    for (index_t i = 0; i < h; ++i) n[i] = slope_n(g, i) * (input ? T(1) : g.r[i]);
    for (index_t i = 0; i < h && !own; ++i) {
      to[i] = slope_n(g, i) * g.a[i] * slope_r(g, i);
      to[h + i] = slope_z(g, at.s.data, i);
    }
  }

  /// Row `row` of W moves every unit: r, in front of the product.
  bool reaches_every_unit(index_t row) const { return !after() && row < options.hidden; }
  /// Rows of W_h multiply s and others r s.
  bool shares_rows() const { return !after(); }
  void row_norms(const recurrent_step<T>& at, T s2, T norm2_x, T* out) const {
    const index_t h = options.hidden;
    const lane<const T> g = lane_of(at.tape, 0);
    const T* s = at.s.data;
    const T x2 = norm2_x + 1, a2 = after() ? s2 + T(biased()) : linalg::dot<T>(g.a, g.a, h);
    for (index_t i = 0; i < h; ++i) {
      T r = 0, n_a = 1;
      if (after())
        r = square(slope_r(g, i) * g.a[i]), n_a = square(g.r[i]);
      else
        for (index_t k = 0; k < h; ++k) r += square(at.w.w_h[3 * h * k + 2 * h + i] * s[k] * slope_r(g, k));
      out[i] = std::sqrt(square(slope_n(g, i)) * (x2 + n_a * a2 + r * (s2 + x2)) +
                         square(slope_z(g, s, i)) * (s2 + x2));
    }
  }

 private:
  // One lane of the tape, taped hidden x lanes; of each, hidden numbers.
  template <class U>
  struct lane {
    U *r, *z, *n, *a;
  };
  template <class U>
  lane<U> lane_of(const matrix<U>& tape, index_t l) const {
    U* g = column(tape, l);
    return {g, g + options.hidden, g + 2 * options.hidden, g + 3 * options.hidden};
  }

  bool after() const { return options.reset != reset_kind::before; }
  bool biased() const { return options.reset == reset_kind::after; }
  static T square(T v) { return v * v; }
  // ds'_i by the argument of n_i and of z_i, and dr_i by its argument; s: hidden numbers.
  static T slope_n(const lane<const T>& g, index_t i) { return (1 - g.z[i]) * (1 - g.n[i] * g.n[i]); }
  static T slope_z(const lane<const T>& g, const T* s, index_t i) {
    return (s[i] - g.n[i]) * g.z[i] * (1 - g.z[i]);
  }
  static T slope_r(const lane<const T>& g, index_t i) { return g.r[i] * (1 - g.r[i]); }
};

/// Gated recurrent unit (Cho et al., 2014): gru_equations with y = W_y s' + b_y. Parameters: w_h (U; 3 hidden
/// x hidden, rows r, z, n), w_x (W; 3 hidden x in), b, then b_hn (c) with reset_kind::after, then w_y and b_y
/// unless out = 0.
template <class T>
using gru = recurrent_cell<gru_equations<T>>;

}  // namespace unroll::cells
