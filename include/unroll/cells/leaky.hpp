#pragma once

#include <cmath>
#include <string>

#include "unroll/cells/recurrent_cell.hpp"
#include "unroll/cells/slices.hpp"

namespace unroll::cells {

struct leaky_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units
  index_t out = 1;      ///< size of y; 0: y = s' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;  ///< independent sequences side by side
  double dt = 1;      ///< length of a step
  double tau = 2;     ///< time constant of the units, at least dt
};

/// The step of units that forget slowly, for recurrent_cell:
///
///   s' = (1 - alpha) s + alpha tanh(W_x x + b + W_h s),   alpha = dt / tau
///
/// which is one Euler step of tau ds/dt = -s + tanh(...). The tape of a lane is the tanh.
template <class T>
struct leaky_equations {
  using scalar = T;
  using options_type = leaky_options;           ///< sizes and loss
  static constexpr const char* name = "leaky";  ///< of the cell, for messages
  /// Rows of z, of s, of the tape and of d, in units of hidden.
  static constexpr index_t gates = 1, states = 1, taped = 1, cotangents = 1;
  static constexpr bool apart = false;  ///< whether W_h h is kept apart from z
  static constexpr bool beside = true;  ///< s reaches s' also by itself
  leaky_options options;

  /// Throws unroll::error where 0 < dt <= tau does not hold.
  void check() const {
    if (!(options.dt > 0 && options.tau >= options.dt))
      fail(name, "dt, tau",
           "are " + std::to_string(options.dt) + ", " + std::to_string(options.tau) +
               ", must be positive, and tau at least dt");
  }
  T alpha() const { return T(options.dt / options.tau); }  ///< the part of a state that a step replaces

  void forward(const recurrent_weights<T>&, matrix<const T> s, matrix<T> tape, matrix<T>,
               matrix<T> next) const {
    for (index_t l = 0; l < options.lanes; ++l) {
      const T* sl = column(s, l);
      T *y = column(tape, l), *to = column(next, l);
      for_each_slice<T>(options.hidden, [&](auto v) UNROLL_INLINE {
        const auto f = simd::tanh(v.load(y)), old = v.load(sl);
        v.store(f, y);
        v.store(old + alpha() * (f - old), to);
      });
    }
  }
  void backward(const recurrent_step<T>& at, T carry, matrix<T> ds, matrix<T> d, matrix<T>) const {
    if (carry == T(0)) zero(ds);
    for (index_t l = 0; l < options.lanes; ++l) {
      const T* y = column(at.tape, l);
      T *dl = column(d, l), *dsl = column(ds, l);
      for_each_slice<T>(options.hidden, [&](auto v) UNROLL_INLINE {
        const auto delta = v.load(dl) + carry * v.load(dsl), f = v.load(y);
        v.store(alpha() * (delta * (T(1) - f * f)), dl);
        v.store((T(1) - alpha()) * delta, dsl);
      });
    }
  }
  /// WRITES the tangent of s'.
  void tangent(const recurrent_step<T>& at, const recurrent_weights<T>&, matrix<const T> ds, matrix<T> dz,
               matrix<T>, matrix<T> dnext) const {
    for (index_t l = 0; l < options.lanes; ++l)
      for (index_t i = 0; i < options.hidden; ++i)
        column(dnext, l)[i] =
            (ds.data ? (1 - alpha()) * column(ds, l)[i] : T(0)) + slope(at.lane(l), i) * column(dz, l)[i];
  }

  void jacobian(const recurrent_step<T>& at, T* J, T*) const {
    const index_t h = options.hidden;
    for (index_t j = 0; j < h; ++j)
      for (index_t i = 0; i < h; ++i)
        J[j * h + i] = slope(at, i) * at.w.w_h[j * h + i] + (i == j ? 1 - alpha() : T(0));
  }
  void diag_jacobian(const recurrent_step<T>& at, T* J) const {
    const index_t h = options.hidden;
    for (index_t i = 0; i < h; ++i) J[i] = slope(at, i) * at.w.w_h[i * h + i] + (1 - alpha());
  }
  void immediate(const recurrent_step<T>& at, index_t i, index_t, T v, T* column) const {
    column[i] += slope(at, i) * v;
  }
  /// WRITES what of ds'/dz stays within a unit.
  void diag_immediate(const recurrent_step<T>& at, index_t, T* to) const {
    for (index_t i = 0; i < options.hidden; ++i) to[i] = slope(at, i);
  }
  void row_norms(const recurrent_step<T>& at, T s2, T x2, T* out) const {
    const T norm = std::sqrt(s2 + x2 + 1);
    for (index_t i = 0; i < options.hidden; ++i) out[i] = slope(at, i) * norm;
  }

 private:
  // ds'_i by the argument of its tanh.
  T slope(const recurrent_step<T>& at, index_t i) const {
    return alpha() * (1 - at.tape.data[i] * at.tape.data[i]);
  }
};

/// The leaky network, a recurrent network in continuous time (Funahashi & Nakamura 1993) in steps of Euler:
/// leaky_equations with y = W_y s' + b_y. Parameters: w_h (hidden x hidden), w_x (hidden x in), b, then w_y
/// and b_y unless out = 0.
template <class T>
using leaky = recurrent_cell<leaky_equations<T>>;

}  // namespace unroll::cells
