#pragma once

#include <cmath>

#include "unroll/cells/recurrent_cell.hpp"

namespace unroll::cells {

struct simple_recurrent_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units
  index_t out = 1;      ///< size of y; 0: y = s' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;  ///< independent sequences side by side
};

/// s' = phi(W_h s + W_x x + b), for recurrent_cell.
///
///   Phi::name                     the name of the cell, for messages
///   Phi::apply_on<Isa>(z, n)      z = phi(z), n numbers, inside of a kernel
///   Phi::slope(y)                 phi'(z) as a function of y = phi(z)
///   Phi::times_slope(dy, y)       dy phi'(z), vectors of numbers
template <class T, class Phi>
struct simple_recurrent_equations {
  using scalar = T;
  using options_type = simple_recurrent_options;  ///< sizes and loss
  static constexpr const char* name = Phi::name;  ///< of the cell, for messages
  /// Rows of z, of s, of the tape and of d, in units of hidden.
  static constexpr index_t gates = 1, states = 1, taped = 0, cotangents = 1;
  static constexpr bool apart = false;  ///< whether W_h h is kept apart from z
  simple_recurrent_options options;

  void forward(const recurrent_weights<T>&, matrix<const T>, matrix<T>, matrix<T>, matrix<T> next) const {
    if (next.stride == next.rows)
      simd::dispatch<apply_kernel>(next.data, next.rows * next.cols);
    else
      for (index_t l = 0; l < next.cols; ++l) simd::dispatch<apply_kernel>(column(next, l), next.rows);
  }
  /// Without leaving the kernel; `next` holds z of `steps` steps, of which s is the state before the first.
  void forward_one_lane(const T* w_h, const T* s, T* next, index_t steps) const {
    simd::dispatch<forward_kernel>(w_h, options.hidden, s, next, steps);
  }

  void backward(const recurrent_step<T>& at, T carry, matrix<const T> ds, matrix<T> d, matrix<T>) const {
    times_slopes(ds, carry, at.next, d);
  }
  /// The same backwards: `d` enters as the cotangents from the losses and leaves as those of z.
  void backward_one_lane(const T* w_h_transposed, const T* carry, const T* next, T* d, T* ds,
                         index_t steps) const {
    simd::dispatch<backward_window_kernel>(w_h_transposed, options.hidden, carry, next, d, ds, steps);
  }

  /// WRITES the tangent of s', in whose place that of z stands.
  void tangent(const recurrent_step<T>& at, const recurrent_weights<T>&, matrix<const T>, matrix<T>,
               matrix<T>, matrix<T> dnext) const {
    times_slopes({nullptr, dnext.rows, dnext.cols}, T(0), at.next, dnext);
  }

  void jacobian(const recurrent_step<T>& at, T* J, T* workspace) const {
    simd::dispatch<jacobian_kernel>(at.w.w_h, at.next.data, workspace, J, options.hidden);
  }
  void diag_jacobian(const recurrent_step<T>& at, T* J) const {
    for (index_t i = 0; i < options.hidden; ++i)
      J[i] = Phi::slope(at.next.data[i]) * at.w.w_h[i * options.hidden + i];
  }
  void immediate(const recurrent_step<T>& at, index_t i, index_t, T v, T* column) const {
    column[i] += Phi::slope(at.next.data[i]) * v;
  }
  /// WRITES what of ds'/dz stays within a unit.
  void diag_immediate(const recurrent_step<T>& at, index_t, T* to) const {
    for (index_t i = 0; i < options.hidden; ++i) to[i] = Phi::slope(at.next.data[i]);
  }
  void row_norms(const recurrent_step<T>& at, T s2, T x2, T* out) const {
    const T norm = std::sqrt(s2 + x2 + 1);
    for (index_t i = 0; i < options.hidden; ++i) out[i] = std::abs(Phi::slope(at.next.data[i])) * norm;
  }

 private:
  // d = (d + carry ds) phi', hidden x lanes each; null ds is zero.
  static void times_slopes(matrix<const T> ds, T carry, matrix<const T> next, matrix<T> d) {
    if (next.stride == next.rows && d.stride == d.rows && (!ds.data || ds.stride == ds.rows)) {
      simd::dispatch<backward_kernel>(ds.data, carry, next.data, d.data, d.rows * d.cols);
      return;
    }
    for (index_t l = 0; l < d.cols; ++l)
      simd::dispatch<backward_kernel>(ds.data ? column(ds, l) : nullptr, carry, column(next, l), column(d, l),
                                      d.rows);
  }
  // d = (d + carry ds) phi' of n numbers, of which `next` are the states; a carry of zero drops ds even where
  // it is not finite, null ds is zero.
  template <class Isa>
  UNROLL_INLINE static void backward_on(const T* ds, T carry, const T* next, T* d, index_t n) {
    if (!ds || carry == T(0))
      simd::map_on<Isa>([](const auto& u, const auto& y) UNROLL_INLINE { return Phi::times_slope(u, y); }, n,
                        d, d, next);
    else
      simd::map_on<Isa>([carry](const auto& u, const auto& a, const auto& y)
                            UNROLL_INLINE { return Phi::times_slope(u + carry * a, y); },
                        n, d, d, ds, next);
  }
  // J = diag(phi') W; w, J: h x h, next: h, slopes: h, changed.
  struct jacobian_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const T* w, const T* next, T* slopes, T* J, index_t h) {
      simd::map_on<Isa>([]<class V>(const V& y) UNROLL_INLINE { return Phi::times_slope(V{} + T(1), y); }, h,
                        slopes, next);
      for (index_t j = 0; j < h; ++j)
        simd::map_on<Isa>([](const auto& u, const auto& v) UNROLL_INLINE { return u * v; }, h, J + j * h,
                          static_cast<const T*>(slopes), w + j * h);
    }
  };
  struct apply_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(T* z, index_t n) {
      Phi::template apply_on<Isa>(z, n);
    }
  };
  struct backward_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const T* ds, T carry, const T* next, T* d, index_t n) {
      backward_on<Isa>(ds, carry, next, d, n);
    }
  };
  // z = phi(z + W_h s) of every step; w: h x h, s: h, z: h x steps.
  struct forward_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const T* w, index_t h, const T* s, T* z, index_t steps) {
      for (; steps > 0; --steps, s = z, z += h) {
        linalg::detail::gemv_plain<T, simd::width<Isa, T>>::template run<Isa>(w, h, h, h, s, true, z);
        Phi::template apply_on<Isa>(z, h);
      }
    }
  };
  // ds, h numbers, is the cotangent of s_{i+1}, then of s_i = W_h' d_i. wt: W_h', h x h; next, d: h x steps;
  // carry: one a step, or null.
  struct backward_window_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const T* wt, index_t h, const T* carry, const T* next, T* d, T* ds,
                                  index_t steps) {
      for (index_t i = steps - 1; i >= 0; --i) {
        backward_on<Isa>(ds, carry ? carry[i] : T(1), next + i * h, d + i * h, h);
        linalg::detail::gemv_plain<T, simd::width<Isa, T>>::template run<Isa>(wt, h, h, h, d + i * h, false,
                                                                              ds);
      }
    }
  };
};

/// s' = phi(W_h s + W_x x + b), y = W_y s' + b_y. What `elman` and `linear` are, for two choices of phi.
/// Parameters: w_h (hidden x hidden), w_x (hidden x in), b, then w_y (out x hidden) and b_y unless out = 0.
template <class T, class Phi>
using simple_recurrent = recurrent_cell<simple_recurrent_equations<T, Phi>>;

}  // namespace unroll::cells
