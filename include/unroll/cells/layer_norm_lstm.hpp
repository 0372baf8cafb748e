#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/layer_norm.hpp"
#include "unroll/cells/recurrent_cell.hpp"

namespace unroll::cells {

struct layer_norm_lstm_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units; the state has twice as many numbers
  index_t out = 1;      ///< size of y; 0: y = h' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;       ///< independent sequences side by side
  double forget_bias = 0;  ///< what init() gives to the bias of f
};

/// The step of a long short-term memory with layer normalisation, for recurrent_cell:
///
///   (i, f, g, o) = a_h N(W_h h) + a_x N(W_x x + b) + beta, then logistic for i, f, o and tanh for g
///   c' = f c + i g      h' = o tanh(a_c N(c') + beta_c)
///   N(v) = (v - mean v) / sqrt(var v + 1e-5), over all numbers of v: 4 hidden of the gates, hidden of c'
///
/// The state of a lane is [h; c], its tape [W_x x + b; W_h h; i; f; g; o; tanh; N(c')].
template <class T>
struct layer_norm_lstm_equations {
  using scalar = T;
  using options_type = layer_norm_lstm_options;           ///< sizes and loss
  static constexpr const char* name = "layer_norm_lstm";  ///< of the cell, for messages
  /// Rows of z, of s, of the tape and of d, in units of hidden.
  static constexpr index_t gates = 4, states = 2, taped = 14, cotangents = 13;
  static constexpr bool apart = true;        ///< whether W_h h is kept apart from z
  static constexpr bool mixes_units = true;  ///< a norm is of all units together
  layer_norm_lstm_options options;

  index_t own_params() const { return 14 * options.hidden; }  ///< a_h, a_x, beta, a_c, beta_c
  /// Appends them by these names.
  void describe_own(layout& l) const {
    for (const char* part : {"a_h", "a_x", "beta"}) l.add(part, 4 * options.hidden);
    for (const char* part : {"a_c", "beta_c"}) l.add(part, options.hidden);
  }
  /// Gains begin at 1, biases at 0, beta of f at forget_bias; the cell's own stand behind b.
  void init_biases(T* b) const {
    const index_t h = options.hidden;
    std::fill_n(b, 4 * h, T(0));
    T* const own = b + 4 * h;
    std::fill_n(own, 8 * h, T(1));
    std::fill_n(own + 8 * h, 4 * h, T(0));
    std::fill_n(own + 9 * h, h, T(options.forget_bias));
    std::fill_n(own + 12 * h, h, T(1));
    std::fill_n(own + 13 * h, h, T(0));
  }
  bool reaches_every_unit(index_t) const { return true; }  ///< through the norms

  void forward(const recurrent_weights<T>& w, matrix<const T> s, matrix<T> tape, matrix<T> u_all,
               matrix<T> next) const {
    const index_t h = options.hidden;
    for (index_t l = 0; l < options.lanes; ++l) {
      T* const q = column(tape, l);
      std::copy_n(column(u_all, l), 4 * h, q + 4 * h);
      const norm nz(q, 4 * h), nu(q + 4 * h, 4 * h);
      for (index_t k = 0; k < 4 * h; ++k) {
        const T p = w.own[k] * nu(k) + w.own[4 * h + k] * nz(k) + w.own[8 * h + k];
        q[8 * h + k] = k / h == 2 ? std::tanh(p) : 1 / (1 + std::exp(-p));
      }
      const step_of<T> at = parts(q);
      T* const next_h = column(next, l);
      T* const c = next_h + h;
      for (index_t i = 0; i < h; ++i) c[i] = at.f[i] * column(s, l)[h + i] + at.i[i] * at.g[i];
      const norm nc(c, h);
      for (index_t i = 0; i < h; ++i) {
        at.c[i] = nc(i);
        at.t[i] = std::tanh(w.own[12 * h + i] * at.c[i] + w.own[13 * h + i]);
        next_h[i] = at.o[i] * at.t[i];
      }
    }
  }

  /// The rows of d are the cotangents of z and u, of what the gates are functions of, and of what tanh is one
  /// of.
  void backward(const recurrent_step<T>& at, T carry, matrix<T> ds_all, matrix<T> d_all,
                matrix<T> du_all) const {
    const index_t h = options.hidden;
    const T* const own = at.w.own;
    if (carry == T(0)) zero(ds_all);
    for (index_t l = 0; l < options.lanes; ++l) {
      const T *const tape = column(at.tape, l), *const s = column(at.s, l), *const next = column(at.next, l);
      const step_of<const T> q = parts(tape);
      T *const ds = column(ds_all, l), *const dz = column(d_all, l), *const du = dz + 4 * h;
      T *const dp = dz + 8 * h, *const dq = dz + 12 * h;
      const norm nz(tape, 4 * h), nu(tape + 4 * h, 4 * h), nc(next + h, h);
      for (index_t i = 0; i < h; ++i) {
        const T delta = dq[i] + carry * ds[i];
        dp[3 * h + i] = delta * q.t[i] * q.o[i] * (1 - q.o[i]);
        dq[i] = delta * q.o[i] * (1 - q.t[i] * q.t[i]);
      }
      T* const dc = ds + h;
      const auto to_c = nc.through([&](index_t i) { return dq[i] * own[12 * h + i]; });
      for (index_t i = 0; i < h; ++i) {
        const T delta = carry * dc[i] + to_c(i);
        dp[i] = delta * q.g[i] * q.i[i] * (1 - q.i[i]);
        dp[h + i] = delta * s[h + i] * q.f[i] * (1 - q.f[i]);
        dp[2 * h + i] = delta * q.i[i] * (1 - q.g[i] * q.g[i]);
        dc[i] = delta * q.f[i];
        ds[i] = 0;
      }
      const auto to_u = nu.through([&](index_t k) { return dp[k] * own[k]; });
      const auto to_z = nz.through([&](index_t k) { return dp[k] * own[4 * h + k]; });
      for (index_t k = 0; k < 4 * h; ++k) {
        du[k] = to_u(k);
        dz[k] = to_z(k);
        column(du_all, l)[k] = du[k];
      }
    }
  }

  /// ADDS the gradients of W_h, to dw_h, and of the cell's own; shapes: recurrent_step.hpp.
  void gradient(matrix<const T> d, matrix<const T> s, matrix<const T> tape, T* dw_h, T* down) const {
    const index_t h = options.hidden;
    linalg::gemm<T>(op::none, rows_of(d, 4 * h, 4 * h), op::transpose, s, true, {dw_h, 4 * h, h});
    for (index_t l = 0; l < d.cols; ++l) {
      const T *const q = column(tape, l), *const dp = column(d, l) + 8 * h, *const dq = dp + 4 * h;
      const norm nz(q, 4 * h), nu(q + 4 * h, 4 * h);
      for (index_t k = 0; k < 4 * h; ++k) {
        down[k] += dp[k] * nu(k);
        down[4 * h + k] += dp[k] * nz(k);
        down[8 * h + k] += dp[k];
      }
      for (index_t i = 0; i < h; ++i) {
        down[12 * h + i] += dq[i] * parts(q).c[i];
        down[13 * h + i] += dq[i];
      }
    }
  }

  /// WRITES the tangent of s'.
  void tangent(const recurrent_step<T>& at, const recurrent_weights<T>& dw, matrix<const T> ds,
               matrix<T> dz_all, matrix<T> du_all, matrix<T> dnext) const {
    const index_t h = options.hidden;
    const T *const own = at.w.own, *const down = dw.own;
    for (index_t l = 0; l < options.lanes; ++l) {
      const T* const q = column(at.tape, l);
      const norm nz(q, 4 * h), nu(q + 4 * h, 4 * h);
      const T *const dz = column(dz_all, l), *const du = column(du_all, l);
      const auto of_z = nz.through([&](index_t k) { return dz[k]; });
      const auto of_u = nu.through([&](index_t k) { return du[k]; });
      const auto dp = [&](index_t k) {
        const T moved = own[k] * of_u(k) + own[4 * h + k] * of_z(k);
        return down ? moved + down[k] * nu(k) + down[4 * h + k] * nz(k) + down[8 * h + k] : moved;
      };
      const auto dq = [&](index_t i) {
        return down ? down[12 * h + i] * parts(q).c[i] + down[13 * h + i] : T(0);
      };
      const auto dc = [&](index_t i) { return ds.data ? column(ds, l)[h + i] : T(0); };
      T* const to = column(dnext, l);
      push(at.lane(l), dp, dc, dq, [&](index_t i, T v) { to[i] = v; });
    }
  }

  void jacobian(const recurrent_step<T>& at, T* J, T*) const {
    const index_t h = options.hidden;
    for (index_t j = 0; j < 2 * h; ++j) by_state(at, j, [&](index_t i, T v) { J[2 * h * j + i] = v; });
  }
  void diag_jacobian(const recurrent_step<T>& at, T* J) const {
    const index_t h = options.hidden;
    for (index_t j = 0; j < 2 * h; ++j)
      by_state(at, j, [&](index_t i, T v) {
        if (i % h == j % h) J[(j / h * 2 + i / h) * h + i % h] = v;
      });
  }
  void immediate(const recurrent_step<T>& at, index_t row, index_t j, T v, T* column) const {
    influence(at).immediate(options.in, options.hidden, row, j, v, column);
  }
  void row_norms(const recurrent_step<T>& at, T h2, T x2, T* out) const {
    influence(at).row_norms(h2, x2, states * options.hidden, out);
  }

 private:
  using norm = layer_norm<T>;

  // Parts of the tape of a lane, hidden numbers each; t: the tanh, c: N(c').
  template <class U>
  struct step_of {
    U *i, *f, *g, *o, *t, *c;
  };
  template <class U>
  step_of<U> parts(U* tape) const {
    const index_t h = options.hidden;
    U* q = tape + 8 * h;
    return {q, q + h, q + 2 * h, q + 3 * h, q + 4 * h, q + 5 * h};
  }

  // The tangent of s' of a lane, number by number to to(i, value), from those of what the gates are functions
  // of, dp(k), k < 4 hidden, of c, dc(i), and of what a_c and beta_c add, dq(i).
  template <class P, class C, class Q, class To>
  void push(const recurrent_step<T>& at, const P& dp, const C& dc, const Q& dq, const To& to) const {
    const index_t h = options.hidden;
    const step_of<const T> q = parts(at.tape.data);
    const T* const c = at.s.data + h;
    const norm nc(at.next.data + h, h);
    const auto dnext_c = [&](index_t i) {
      return dp(i) * q.g[i] * q.i[i] * (1 - q.i[i]) + dp(h + i) * c[i] * q.f[i] * (1 - q.f[i]) +
             dp(2 * h + i) * q.i[i] * (1 - q.g[i] * q.g[i]) + q.f[i] * dc(i);
    };
    const auto normal = nc.through(dnext_c);
    for (index_t i = 0; i < h; ++i) {
      const T inner = at.w.own[12 * h + i] * normal(i) + dq(i);
      to(i, dp(3 * h + i) * q.t[i] * q.o[i] * (1 - q.o[i]) + q.o[i] * (1 - q.t[i] * q.t[i]) * inner);
      to(h + i, dnext_c(i));
    }
  }
  // ds' by number j of s.
  template <class To>
  void by_state(const recurrent_step<T>& at, index_t j, const To& to) const {
    const index_t h = options.hidden;
    const auto none = [](index_t) { return T(0); };
    if (j >= h)
      return push(
          at, none, [&](index_t i) { return T(i == j - h); }, none, to);
    const norm nu(at.tape.data + 4 * h, 4 * h);
    const T* const w = at.w.w_h + 4 * h * j;
    const auto of_w = nu.through([&](index_t k) { return w[k]; });
    push(
        at, [&](index_t k) { return at.w.own[k] * of_w(k); }, none, none, to);
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
    const T* const q = at.tape.data;
    const norm nz(q, 4 * h), nu(q + 4 * h, 4 * h);
    const auto none = [](index_t) { return T(0); };
    if (kind < 2) {
      const norm& n = kind == 0 ? nu : nz;
      const T* const gain = at.w.own + (kind == 0 ? 0 : 4 * h);
      const auto moved = n.through([&](index_t k) { return k == e ? v : T(0); });
      return push(
          at, [&](index_t k) { return gain[k] * moved(k); }, none, none, to);
    }
    const index_t k = e % (4 * h);
    if (e < 12 * h) {
      const T by = v * (e < 4 * h ? nu(k) : e < 8 * h ? nz(k) : T(1));
      return push(
          at, [&](index_t i) { return i == k ? by : T(0); }, none, none, to);
    }
    const T by = v * (e < 13 * h ? parts(q).c[e - 12 * h] : T(1));
    push(
        at, none, none, [&](index_t i) { return i == (e - 12 * h) % h ? by : T(0); }, to);
  }
};

/// The LSTM with layer normalisation of Ba, Kiros and Hinton, Layer Normalization (2016, supplementary
/// material), whose b is here inside of the norm of the input: init() begins with b = 0, where the two are
/// the same. layer_norm_lstm_equations with y = W_y h' + b_y. Parameters: w_h (4 hidden x hidden, rows i, f,
/// g, o), w_x (4 hidden x in), b, a_h, a_x, beta (4 hidden each), a_c, beta_c (hidden each), then w_y and b_y
/// unless out = 0.
template <class T>
using layer_norm_lstm = recurrent_cell<layer_norm_lstm_equations<T>>;

}  // namespace unroll::cells
