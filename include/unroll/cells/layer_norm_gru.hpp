#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/layer_norm.hpp"
#include "unroll/cells/recurrent_cell.hpp"

namespace unroll::cells {

struct layer_norm_gru_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units
  index_t out = 1;      ///< size of y; 0: y = s' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;  ///< independent sequences side by side
};

/// The step of a gated recurrent unit with layer normalisation, for recurrent_cell: with U = a_h N(W_h s) and
/// X = a_x N(W_x x + b) + beta, where N normalises the rows of r and z together and those of n,
///
///   r = logistic(X_r + U_r)      z = logistic(X_z + U_z)      n = tanh(X_n + r (U_n + beta_h))
///   s' = n + z (s - n)
///
/// The tape of a lane is [W_x x + b; W_h s; r; z; n; U_n + beta_h].
template <class T>
struct layer_norm_gru_equations {
  using scalar = T;
  using options_type = layer_norm_gru_options;           ///< sizes and loss
  static constexpr const char* name = "layer_norm_gru";  ///< of the cell, for messages
  /// Rows of z, of s, of the tape and of d, in units of hidden.
  static constexpr index_t gates = 3, states = 1, taped = 10, cotangents = 10;
  static constexpr bool apart = true;  ///< whether W_h h is kept apart from z
  layer_norm_gru_options options;

  index_t own_params() const { return 10 * options.hidden; }  ///< a_h, a_x, beta, beta_h
  /// Appends them by these names.
  void describe_own(layout& l) const {
    for (const char* part : {"a_h", "a_x", "beta"}) l.add(part, 3 * options.hidden);
    l.add("beta_h", options.hidden);
  }
  /// Gains begin at 1, biases at 0; the cell's own stand behind b.
  void init_biases(T* b) const {
    const index_t h = options.hidden;
    std::fill_n(b, 3 * h, T(0));
    std::fill_n(b + 3 * h, 6 * h, T(1));
    std::fill_n(b + 9 * h, 4 * h, T(0));
  }
  bool reaches_every_unit(index_t) const { return true; }  ///< through the norms

  void forward(const recurrent_weights<T>& w, matrix<const T> s, matrix<T> tape, matrix<T> u_all,
               matrix<T> next) const {
    const index_t h = options.hidden;
    const T* const own = w.own;
    for (index_t l = 0; l < options.lanes; ++l) {
      T* const q = column(tape, l);
      std::copy_n(column(u_all, l), 3 * h, q + 3 * h);
      const norms x(q, h), u(q + 3 * h, h);
      const lane<T> g = lane_of(q);
      const auto from_x = [&](index_t k) { return own[3 * h + k] * x(k) + own[6 * h + k]; };
      for (index_t k = 0; k < 2 * h; ++k) g.r[k] = 1 / (1 + std::exp(-from_x(k) - own[k] * u(k)));
      for (index_t i = 0; i < h; ++i) {
        const T old = column(s, l)[i];
        g.a[i] = own[2 * h + i] * u(2 * h + i) + own[9 * h + i];
        g.n[i] = std::tanh(from_x(2 * h + i) + g.r[i] * g.a[i]);
        column(next, l)[i] = g.n[i] + g.z[i] * (old - g.n[i]);
      }
    }
  }

  /// The rows of d are the cotangents of z and u, of X, and of U_n + beta_h.
  void backward(const recurrent_step<T>& at, T carry, matrix<T> ds_all, matrix<T> d_all,
                matrix<T> du_all) const {
    const index_t h = options.hidden;
    const T* const own = at.w.own;
    if (carry == T(0)) zero(ds_all);
    for (index_t l = 0; l < options.lanes; ++l) {
      const T *const tape = column(at.tape, l), *const s = column(at.s, l);
      const lane<const T> g = lane_of(tape);
      T *const ds = column(ds_all, l), *const dz = column(d_all, l);
      T *const du = dz + 3 * h, *const dx = dz + 6 * h, *const da = dz + 9 * h;
      for (index_t i = 0; i < h; ++i) {
        const T delta = da[i] + carry * ds[i], dn = delta * (1 - g.z[i]) * (1 - g.n[i] * g.n[i]);
        dx[i] = dn * g.a[i] * g.r[i] * (1 - g.r[i]);
        dx[h + i] = delta * (s[i] - g.n[i]) * g.z[i] * (1 - g.z[i]);
        dx[2 * h + i] = dn;
        da[i] = dn * g.r[i];
        ds[i] = delta * g.z[i];
      }
      const norms x(tape, h), u(tape + 3 * h, h);
      const auto to_z = x.through([&](index_t k) { return own[3 * h + k] * dx[k]; });
      const auto to_u = u.through([&](index_t k) { return own[k] * (k < 2 * h ? dx[k] : da[k - 2 * h]); });
      for (index_t k = 0; k < 3 * h; ++k) {
        dz[k] = to_z(k);
        column(du_all, l)[k] = du[k] = to_u(k);
      }
    }
  }

  /// ADDS the gradients of W_h, to dw_h, and of the cell's own; shapes: recurrent_step.hpp.
  void gradient(matrix<const T> d, matrix<const T> s, matrix<const T> tape, T* dw_h, T* down) const {
    const index_t h = options.hidden;
    linalg::gemm<T>(op::none, rows_of(d, 3 * h, 3 * h), op::transpose, s, true, {dw_h, 3 * h, h});
    for (index_t l = 0; l < d.cols; ++l) {
      const T *const q = column(tape, l), *const dx = column(d, l) + 6 * h, *const da = dx + 3 * h;
      const norms x(q, h), u(q + 3 * h, h);
      for (index_t k = 0; k < 3 * h; ++k) {
        down[k] += (k < 2 * h ? dx[k] : da[k - 2 * h]) * u(k);
        down[3 * h + k] += dx[k] * x(k);
        down[6 * h + k] += dx[k];
      }
      for (index_t i = 0; i < h; ++i) down[9 * h + i] += da[i];
    }
  }

  /// WRITES the tangent of s'.
  void tangent(const recurrent_step<T>& at, const recurrent_weights<T>& dw, matrix<const T> ds,
               matrix<T> dz_all, matrix<T> du_all, matrix<T> dnext) const {
    const index_t h = options.hidden;
    const T *const own = at.w.own, *const down = dw.own;
    for (index_t l = 0; l < options.lanes; ++l) {
      const T* const q = column(at.tape, l);
      const norms x(q, h), u(q + 3 * h, h);
      const T *const dz = column(dz_all, l), *const du = column(du_all, l);
      const auto of_z = x.through([&](index_t k) { return dz[k]; });
      const auto of_u = u.through([&](index_t k) { return du[k]; });
      const auto dx = [&](index_t k) {
        const T moved = own[3 * h + k] * of_z(k);
        return down ? moved + down[3 * h + k] * x(k) + down[6 * h + k] : moved;
      };
      const auto dU = [&](index_t k) {
        T moved = own[k] * of_u(k);
        if (down) moved += down[k] * u(k) + (k < 2 * h ? T(0) : down[7 * h + k]);  // beta_h begins at 9 h
        return moved;
      };
      const auto old = [&](index_t i) { return ds.data ? column(ds, l)[i] : T(0); };
      T* const to = column(dnext, l);
      push(at.lane(l), dx, dU, old, [&](index_t i, T v) { to[i] = v; });
    }
  }

  void jacobian(const recurrent_step<T>& at, T* J, T*) const {
    for (index_t j = 0, h = options.hidden; j < h; ++j)
      by_state(at, j, [&](index_t i, T v) { J[h * j + i] = v; });
  }
  void diag_jacobian(const recurrent_step<T>& at, T* J) const {
    for (index_t j = 0; j < options.hidden; ++j)
      by_state(at, j, [&](index_t i, T v) {
        if (i == j) J[i] = v;
      });
  }
  void immediate(const recurrent_step<T>& at, index_t row, index_t j, T v, T* column) const {
    influence(at).immediate(options.in, options.hidden, row, j, v, column);
  }
  void row_norms(const recurrent_step<T>& at, T s2, T x2, T* out) const {
    influence(at).row_norms(s2, x2, states * options.hidden, out);
  }

 private:
  // N of the rows of r and z together, 2 hidden, and of those of n.
  struct norms {
    layer_norm<T> gates, candidate;
    index_t rows;  // of the gates
    norms(const T* v, index_t h) : gates(v, 2 * h), candidate(v + 2 * h, h), rows(2 * h) {}
    T operator()(index_t k) const { return k < rows ? gates(k) : candidate(k - rows); }
    template <class V>
    auto through(const V& of) const {
      const auto rest = [of, first = rows](index_t i) { return of(first + i); };
      return [a = gates.through(of), b = candidate.through(rest), first = rows](index_t k) {
        return k < first ? a(k) : b(k - first);
      };
    }
  };

  // Parts of the tape of a lane, hidden numbers each; a: U_n + beta_h.
  template <class U>
  struct lane {
    U *r, *z, *n, *a;
  };
  template <class U>
  lane<U> lane_of(U* tape) const {
    const index_t h = options.hidden;
    return {tape + 6 * h, tape + 7 * h, tape + 8 * h, tape + 9 * h};
  }

  // The tangent of s' of a lane, number by number to to(i, value), from those of X, dx(k), of U and U_n +
  // beta_h, dU(k), k < 3 hidden, and of s beside them, ds(i).
  template <class X, class U, class S, class To>
  void push(const recurrent_step<T>& at, const X& dx, const U& dU, const S& ds, const To& to) const {
    const index_t h = options.hidden;
    const lane<const T> g = lane_of(at.tape.data);
    for (index_t i = 0; i < h; ++i) {
      const T dr = (dx(i) + dU(i)) * g.r[i] * (1 - g.r[i]),
              dz = (dx(h + i) + dU(h + i)) * g.z[i] * (1 - g.z[i]);
      const T dn = (dx(2 * h + i) + dr * g.a[i] + g.r[i] * dU(2 * h + i)) * (1 - g.n[i] * g.n[i]);
      to(i, dn + dz * (at.s.data[i] - g.n[i]) + g.z[i] * (ds(i) - dn));
    }
  }
  // ds' by number j of s.
  template <class To>
  void by_state(const recurrent_step<T>& at, index_t j, const To& to) const {
    const index_t h = options.hidden;
    const norms u(at.tape.data + 3 * h, h);
    const T* const w = at.w.w_h + 3 * h * j;
    const auto of_w = u.through([w](index_t k) { return w[k]; });
    push(
        at, [](index_t) { return T(0); }, [&](index_t k) { return at.w.own[k] * of_w(k); },
        [j](index_t i) { return T(i == j); }, to);
  }
  auto influence(const recurrent_step<T>& at) const {
    const auto by = [this, &at](index_t kind, index_t e, T v, const auto& to) {
      this->by_entry(at, kind, e, v, to);
    };
    return normed_influence<T, decltype(by)>{gates * options.hidden, own_params(), by};
  }
  // v times ds' by number e of u (kind 0), of z (1) or of the cell's own (2).
  template <class To>
  void by_entry(const recurrent_step<T>& at, index_t kind, index_t e, T v, const To& to) const {
    const index_t h = options.hidden;
    const T *const q = at.tape.data, *const own = at.w.own;
    const norms x(q, h), u(q + 3 * h, h);
    const auto none = [](index_t) { return T(0); };
    const auto one = [e, v](index_t k) { return k == e ? v : T(0); };
    if (kind == 0) {
      const auto moved = u.through(one);
      return push(
          at, none, [&](index_t k) { return own[k] * moved(k); }, none, to);
    }
    if (kind == 1) {
      const auto moved = x.through(one);
      return push(
          at, [&](index_t k) { return own[3 * h + k] * moved(k); }, none, none, to);
    }
    const index_t k = e % (3 * h);
    const T by = v * (e < 3 * h ? u(k) : e < 6 * h ? x(k) : T(1));
    const auto here = [k, by](index_t i) { return i == k ? by : T(0); };
    if (e < 3 * h) return push(at, none, here, none, to);
    if (e < 9 * h) return push(at, here, none, none, to);
    push(
        at, none, [&](index_t i) { return i == e - 7 * h ? by : T(0); }, none, to);
  }
};

/// The GRU with layer normalisation of Ba, Kiros and Hinton, Layer Normalization (2016, supplementary
/// material), with z for their 1 - z, and their b inside of the norm of the input: init() begins with b = 0,
/// where the two are the same. layer_norm_gru_equations with y = W_y s' + b_y. Parameters: w_h (3 hidden x
/// hidden, rows r, z, n), w_x (3 hidden x in), b, a_h, a_x, beta (3 hidden each), beta_h (hidden), then w_y
/// and b_y unless out = 0.
template <class T>
using layer_norm_gru = recurrent_cell<layer_norm_gru_equations<T>>;

}  // namespace unroll::cells
