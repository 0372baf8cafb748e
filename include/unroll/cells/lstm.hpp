#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/recurrent_cell.hpp"
#include "unroll/cells/slices.hpp"

namespace unroll::cells {

struct lstm_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units; the state has twice as many numbers
  index_t out = 1;      ///< size of y; 0: y = h' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;       ///< independent sequences side by side
  double forget_bias = 0;  ///< what init() adds to the bias of f; 1 or more keeps memory early in training
};

/// The step of the long short-term memory, for recurrent_cell:
///
///   (i, f, g, o) = W_x x + b + W_h h, then logistic for i, f, o and tanh for g
///   c' = f c + i g      h' = o tanh(c')
///
/// The state of a lane is [h; c], its tape [i; f; g; o; tanh c'].
template <class T>
struct lstm_equations {
  using scalar = T;
  using options_type = lstm_options;           ///< sizes and loss
  static constexpr const char* name = "lstm";  ///< of the cell, for messages
  /// Rows of z, of s, of the tape and of d, in units of hidden.
  static constexpr index_t gates = 4, states = 2, taped = 5, cotangents = 4;
  static constexpr bool apart = false;  ///< whether W_h h is kept apart from z
  lstm_options options;

  /// Adds forget_bias to the bias of f.
  void init_biases(T* b) const {
    for (index_t i = options.hidden; i < 2 * options.hidden; ++i) b[i] += T(options.forget_bias);
  }

  void forward(const recurrent_weights<T>&, matrix<const T> s, matrix<T> tape, matrix<T>,
               matrix<T> next) const {
    const index_t h = options.hidden;
    for (index_t l = 0; l < options.lanes; ++l) {
      const lane<T> q = lane_of(tape, l);
      const T* c = column(s, l) + h;
      T* next_h = column(next, l);
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto i = simd::logistic(v.load(q.i)), f = simd::logistic(v.load(q.f));
        const auto g = simd::tanh(v.load(q.g)), o = simd::logistic(v.load(q.o));
        const auto next_c = f * v.load(c) + i * g, tc = simd::tanh(next_c);
        v.store(i, q.i);
        v.store(f, q.f);
        v.store(g, q.g);
        v.store(o, q.o);
        v.store(tc, q.tc);
        v.store(o * tc, next_h);
        v.store(next_c, next_h + h);
      });
    }
  }

  void backward(const recurrent_step<T>& at, T carry, matrix<T> ds, matrix<T> d_all, matrix<T>) const {
    const index_t h = options.hidden;
    if (carry == T(0)) zero(ds);
    for (index_t l = 0; l < options.lanes; ++l) {
      const T* const c = column(at.s, l) + h;
      const T* const gate = column(at.tape, l);
      const T* const dh = column(ds, l);
      T* const dc = column(ds, l) + h;
      T* const d = column(d_all, l);
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto i = v.load(gate), f = v.load(gate + h), g = v.load(gate + 2 * h), o = v.load(gate + 3 * h);
        const auto tc = v.load(gate + 4 * h);
        const auto delta_h = v.load(d + 3 * h) + carry * v.load(dh);
        const auto delta_c = carry * v.load(dc) + delta_h * o * (T(1) - tc * tc);
        v.store(delta_c * f, dc);
        v.store(delta_c * g * i * (T(1) - i), d);
        v.store(delta_c * v.load(c) * f * (T(1) - f), d + h);
        v.store(delta_c * i * (T(1) - g * g), d + 2 * h);
        v.store(delta_h * tc * o * (T(1) - o), d + 3 * h);
      });
    }
  }

  /// WRITES the tangent of s'.
  void tangent(const recurrent_step<T>& at, const recurrent_weights<T>&, matrix<const T> ds, matrix<T> dz,
               matrix<T>, matrix<T> dnext) const {
    const index_t h = options.hidden;
    for (index_t l = 0; l < options.lanes; ++l) {
      const lane<const T> q = lane_of(at.tape, l);
      const T* c = column(at.s, l) + h;
      const T* dc = ds.data ? column(ds, l) + h : nullptr;
      const T* d = column(dz, l);
      T* next = column(dnext, l);
      for (index_t j = 0; j < h; ++j) {
        const slopes k = slopes_of(q, c, j);
        const T dnext_c = k.i * d[j] + k.f * d[h + j] + k.g * d[2 * h + j] + (dc ? q.f[j] * dc[j] : T(0));
        next[h + j] = dnext_c;
        next[j] = k.c * dnext_c + k.o * d[3 * h + j];
      }
    }
  }

  void jacobian(const recurrent_step<T>& at, T* J, T*) const {
    const index_t h = options.hidden;
    const lane<const T> q = lane_of(at.tape, 0);
    std::fill_n(J, 4 * h * h, T(0));
    for (index_t i = 0; i < h; ++i) {
      const slopes k = slopes_of(q, at.s.data + h, i);
      for (index_t j = 0; j < h; ++j) {
        const T* u = at.w.w_h + 4 * h * j + i;
        const T c = k.i * u[0] + k.f * u[h] + k.g * u[2 * h];
        J[2 * h * j + h + i] = c;
        J[2 * h * j + i] = k.c * c + k.o * u[3 * h];
      }
      J[2 * h * (h + i) + h + i] = q.f[i];
      J[2 * h * (h + i) + i] = k.c * q.f[i];
    }
  }

  void diag_jacobian(const recurrent_step<T>& at, T* J) const {
    const index_t h = options.hidden;
    const lane<const T> q = lane_of(at.tape, 0);
    for (index_t i = 0; i < h; ++i) {
      const slopes k = slopes_of(q, at.s.data + h, i);
      const T* u = at.w.w_h + 4 * h * i + i;
      const T c = k.i * u[0] + k.f * u[h] + k.g * u[2 * h];
      J[i] = k.c * c + k.o * u[3 * h];  // h' and c' by h, then by c
      J[h + i] = c;
      J[2 * h + i] = k.c * q.f[i];
      J[3 * h + i] = q.f[i];
    }
  }

  void immediate(const recurrent_step<T>& at, index_t row, index_t, T v, T* column) const {
    const index_t h = options.hidden, i = row % h, gate = row / h;
    const slopes k = slopes_of(lane_of(at.tape, 0), at.s.data + h, i);
    const T c = gate == 0 ? k.i : gate == 1 ? k.f : gate == 2 ? k.g : T(0);
    column[i] += (gate == 3 ? k.o : k.c * c) * v;
    column[h + i] += c * v;
  }
  /// WRITES what of ds'/dz stays within a unit.
  void diag_immediate(const recurrent_step<T>& at, index_t, T* to) const {
    const index_t h = options.hidden;
    const lane<const T> q = lane_of(at.tape, 0);
    for (index_t i = 0; i < h; ++i, ++to) {  // h' by the rows i, f, g, o, then c'
      const slopes k = slopes_of(q, at.s.data + h, i);
      to[0] = k.c * k.i, to[h] = k.c * k.f, to[2 * h] = k.c * k.g, to[3 * h] = k.o;
      to[4 * h] = k.i, to[5 * h] = k.f, to[6 * h] = k.g, to[7 * h] = 0;
    }
  }

  void row_norms(const recurrent_step<T>& at, T h2, T x2, T* out) const {
    const index_t h = options.hidden;
    const T norm = std::sqrt(h2 + x2 + 1);
    for (index_t i = 0; i < h; ++i) {
      const slopes k = slopes_of(lane_of(at.tape, 0), at.s.data + h, i);
      const T c2 = k.i * k.i + k.f * k.f + k.g * k.g;
      out[i] = norm * std::sqrt(k.c * k.c * c2 + k.o * k.o);
      out[h + i] = norm * std::sqrt(c2);
    }
  }

 private:
  // One lane of the tape; tc = tanh(c').
  template <class U>
  struct lane {
    U *i, *f, *g, *o, *tc;
  };
  template <class U>
  lane<U> lane_of(const matrix<U>& tape, index_t l) const {
    const index_t h = options.hidden;
    U* q = column(tape, l);
    return {q, q + h, q + 2 * h, q + 3 * h, q + 4 * h};
  }
  // Derivatives of one c' by the arguments of its i, f and g, of h' by the argument of o, and of h' by c'.
  struct slopes {
    T i, f, g, o, c;
  };
  static slopes slopes_of(const lane<const T>& q, const T* c, index_t j) {
    const T i = q.i[j], f = q.f[j], g = q.g[j], o = q.o[j], tc = q.tc[j];
    return {g * i * (1 - i), c[j] * f * (1 - f), i * (1 - g * g), tc * o * (1 - o), o * (1 - tc * tc)};
  }
};

/// Long short-term memory (Hochreiter and Schmidhuber, 1997) with forget gate (Gers et al., 2000):
/// lstm_equations with y = W_y h' + b_y. Parameters: w_h (4 hidden x hidden, rows i, f, g, o as in PyTorch),
/// w_x (4 hidden x in), b, then w_y and b_y unless out = 0.
template <class T>
using lstm = recurrent_cell<lstm_equations<T>>;

}  // namespace unroll::cells
