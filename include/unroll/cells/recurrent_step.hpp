#pragma once

#include <algorithm>

#include "unroll/core/linalg.hpp"

// What recurrent_cell asks of the equations of a cell. With z = W_x x + b and u = W_h h the step is
//
//   s' = f(z + u, s)   or   s' = f(z, u, s)
//
// and a class for it is an aggregate of its `options` with these members. Sizes are in units of hidden:
//
//   scalar, options_type   float or double; options with the members of simple_recurrent_options
//   const char* name       of the cell, for messages
//   index_t gates          rows of z
//   index_t states         rows of s, the first hidden of which are h
//   index_t taped          rows of the tape, in front of dloss/dy. A step begins with z in the first of
//                          them. 0: s' = f(z + u) alone, and z stands in s'
//   index_t cotangents     rows of d, at least `gates`
//   bool apart             f(z, u, s), where h reaches h' beside u; otherwise u is z, which holds the
//                          sum, and du is d
//
// Of all lanes, a column a lane: s, next, ds and dnext are states hidden x lanes, tape taped hidden x lanes,
// z, u, dz and du gates hidden x lanes, d cotangents hidden x lanes:
//
//   void forward(const recurrent_weights<T>& w, matrix<const T> s, matrix<T> tape, matrix<T> u,
//                matrix<T> next) const
//     WRITES s' and the tape.
//   void backward(const recurrent_step<T>& at, T carry, matrix<T> ds, matrix<T> d, matrix<T> du) const
//     ds enters as the cotangent of s' from later steps. It counts `carry` times; where carry is zero not at
//     all, even if it is not finite. The last hidden rows of d hold the cotangent of h' from the loss. WRITES
//     the cotangent of z to d, of u to du, and to ds that of s but for what goes through u.
//   void tangent(const recurrent_step<T>& at, const recurrent_weights<T>& dw, matrix<const T> ds,
//                matrix<T> dz, matrix<T> du, matrix<T> dnext) const
//     WRITES the tangent of s'; those of z and u may be overwritten. Null dw.w_h or ds.data: zero.
//
// Of one lane:
//
//   void jacobian(const recurrent_step<T>& at, T* J, T* workspace) const
//     WRITES J = ds'/ds, states hidden x states hidden. `workspace` has hidden numbers.
//   void diag_jacobian(const recurrent_step<T>& at, T* J) const
//     WRITES to J what of it stays within a unit: hidden x states x states, column-major.
//   void immediate(const recurrent_step<T>& at, index_t i, index_t j, T v, T* column) const
//     ADDS to `column`, states hidden numbers, the derivative of s' by entry (i, j) of [w_h w_x b own], which
//     multiplies v, number j of [h; x; 1].
//   void row_norms(const recurrent_step<T>& at, T h2, T x2, T* out) const
//     WRITES to `out` the norms of the rows of ds'/dtheta, states hidden numbers, from h2 = ||h||^2 and x2 =
//     ||x||^2.
//
// Where they apply:
//
//   bool mixes_units                        all of s reaches every unit, not h alone
//   bool beside                             h reaches h' beside z + u, which is not kept apart
//   void check() const                      throws on options that are impossible
//   void init_biases(T* b) const            changes what init() has drawn for b, gates hidden numbers, and
//   the
//                                           cell's own behind it
//   index_t own_params() const              parameters of the cell's own, and their names
//   void describe_own(layout& l) const
//   void diag_immediate(const recurrent_step<T>& at, index_t j, T* to) const
//     WRITES what immediate() says of column j, with v = 1, that stays within a unit: rows of the matrix x
//     states, column-major. Without the member it is asked row by row.
//   bool reaches_every_unit(index_t i) const        whether row i of W moves more than its own unit
//   bool shares_rows() const                whether different rows of W_h multiply different vectors
//   index_t product_gates() const           only the first gates of u are W_h h, the others are the cell's
//   void gradient(matrix<const T> d, matrix<const T> h, matrix<const T> tape, T* dw_h, T* own) const
//     ADDS the gradient of w_h to dw_h, gates hidden x hidden (without the member it is d h'), and that of
//     own_params() numbers to `own`. A column of d, h (hidden rows) and tape is a lane of a step.
//   void forward_one_lane(const T* w_h, const T* s, T* next, index_t steps) const
//   void backward_one_lane(const T* w_h_transposed, const T* carry, const T* next, T* d, T* ds,
//                          index_t steps) const
//     All steps of a window of one lane with their products, where `taped` is 0: `next`, hidden x steps,
//     holds z of all steps, d, hidden x steps, the cotangents from the losses; s and ds: hidden numbers;
//     carry: one a step, or null, which is 1; w_h and its transpose: hidden x hidden.
namespace unroll::cells {

/// Column `l` of m, m.rows numbers.
template <class T>
T* column(const matrix<T>& m, index_t l) {
  return m.data + l * m.stride;
}

/// m = 0, a column at a time where they do not lie side by side.
template <class T>
void zero(const matrix<T>& m) {
  if (m.stride == m.rows) {
    std::fill_n(m.data, m.rows * m.cols, T(0));
    return;
  }
  for (index_t l = 0; l < m.cols; ++l) std::fill_n(column(m, l), m.rows, T(0));
}
/// b += a; a, b: as many rows and columns.
template <class T>
void add(const matrix<T>& a, const matrix<T>& b) {
  if (a.stride == a.rows && b.stride == b.rows) {
    linalg::axpy<T>(1, a.data, b.data, a.rows * a.cols);
    return;
  }
  for (index_t l = 0; l < a.cols; ++l) linalg::axpy<T>(1, column(a, l), column(b, l), a.rows);
}

/// W_h, which is `gates` matrices of hidden x hidden one below the other, and what parameters a cell has
/// beside the usual ones.
template <class T>
struct recurrent_weights {
  const T* w_h = nullptr;         ///< gates hidden x hidden; null in a tangent that is zero
  const T* own = nullptr;         ///< own_params() numbers; likewise
  index_t hidden = 0;             ///< units
  index_t gates = 1;              ///< matrices in W_h
  const T* transposed = nullptr;  ///< hidden x gates hidden: a copy of W_h', or null: there is none

  /// y = W x, or y += W x when `add`, for gates [first, first + count) of W_h. x: hidden x lanes, y: count
  /// hidden x lanes.
  UNROLL_INLINE void product(index_t first, index_t count, matrix<const T> x, bool add, matrix<T> y) const {
    linalg::gemm<T>(op::none, part(first, count), op::none, x, add, y);
  }
  /// y = W' x, or y += W' x when `add`. x: count hidden x lanes, y: hidden x lanes.
  UNROLL_INLINE void transposed_product(index_t first, index_t count, matrix<const T> x, bool add,
                                        matrix<T> y) const {
    if (transposed)
      linalg::gemm<T>(op::none, {transposed + first * hidden * hidden, hidden, count * hidden}, op::none, x,
                      add, y);
    else
      linalg::gemm<T>(op::transpose, part(first, count), op::none, x, add, y);
  }

 private:
  UNROLL_INLINE matrix<const T> part(index_t first, index_t count) const {
    return {w_h + first * hidden, count * hidden, hidden, gates * hidden};
  }
};

/// A step that has been made, of all lanes or of one: where derivatives are taken. A column is a lane.
template <class T>
struct recurrent_step {
  recurrent_weights<T> w;  ///< with which it was made
  matrix<const T> s;       ///< states hidden x lanes
  matrix<const T> next;    ///< s', states hidden x lanes
  matrix<const T> tape;    ///< taped hidden x lanes

  /// The same of lane `l` alone.
  recurrent_step lane(index_t l) const {
    return {w, columns_of(s, l, 1), columns_of(next, l, 1), columns_of(tape, l, 1)};
  }
};

}  // namespace unroll::cells
