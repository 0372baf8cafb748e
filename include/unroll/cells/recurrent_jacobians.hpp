#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/recurrent_places.hpp"
#include "unroll/cells/recurrent_step.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::cells {

/// The Jacobians of a step of a recurrent_cell, read from its tape: the hooks of a system, and the same of
/// one lane of a layer for the stack that it belongs to. There `below` is x, in x lanes, where it is given.
template <class Equations>
class recurrent_jacobians : protected recurrent_places<Equations> {
  using E = Equations;
  using T = typename E::scalar;

 public:
  using input = example<T>;  ///< of a step

  void jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const index_t block = J.size() / lanes();
    for (index_t l = 0; l < lanes(); ++l) lane_jacobian(e, l, J.data() + l * block);
  }
  void immediate(const input& x, const const_edge<T>& e, view<T> M, index_t p0, index_t p1) const {
    const index_t n = E::states * hidden(), P = M.size() / (lanes() * n);
    for (index_t l = 0; l < lanes(); ++l)
      lane_immediate(x, e, l, {}, p0, p1, {M.data() + (l * P + p0) * n, n, p1 - p0});
  }
  void row_norms(const input& x, const const_edge<T>& e, view<T> out) const {
    const recurrent_step<T> all = made(e);
    for (index_t l = 0; l < lanes(); ++l) {
      const recurrent_step<T> at = all.lane(l);
      f_.row_norms(at, linalg::dot<T>(at.s.data, at.s.data, hidden()), input_.squared_norm(x, l),
                   out.data() + l * E::states * hidden());
    }
  }

  void jacobian_mask(view<std::uint8_t> J) const {  // h reaches every unit; what else a unit holds, itself
    const index_t h = hidden(), n = E::states * h;
    for (index_t j = 0; j < n; ++j)
      for (index_t i = 0; i < n; ++i) J[j * n + i] = j < h || mixes_units || i % h == j % h;
  }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {  // weights of a unit reach it
    const index_t h = hidden(), n = E::states * h;
    for (index_t p = p0; p < p1; ++p) {
      const bool every = reaches_every(p % (E::gates * h));
      for (index_t i = 0; i < n; ++i) mask[(p - p0) * n + i] = p < w_y() && (every || i % h == p % h);
    }
  }

  /// [w_h w_x b], which multiplies [h; x; 1]; where u stands apart, w_h, [w_x b] and what the cell has of its
  /// own.
  std::vector<weight_matrix> weight_matrices() const {
    const auto all = matrices();
    return {all.begin(), all.end() - (all.back().rows == 0)};
  }
  void factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    const index_t n = E::states * hidden(), columns = a.size() / lanes(), rows = d.size() / (lanes() * n);
    std::fill(d.begin(), d.end(), T(0));
    for (index_t l = 0; l < lanes(); ++l)
      lane_factors(x, e, l, {}, a.data() + l * columns, {d.data() + l * rows * n, n, rows});
  }

  index_t units() const { return hidden(); }
  bool units_apart() const { return false; }  // they listen to each other by W_h
  void diag_jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const recurrent_step<T> all = made(e);
    const index_t block = E::states * E::states * hidden();
    for (index_t l = 0; l < lanes(); ++l) f_.diag_jacobian(all.lane(l), J.data() + l * block);
  }
  void diag_factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d,
                    matrix<const T> below = {}) const {
    const index_t h = hidden();
    T *al = a.data(), *to = d.data();
    [[maybe_unused]] T* column = e.workspace.data();
    const recurrent_step<T> all = made(e);
    for (index_t l = 0; l < lanes(); ++l) {
      const recurrent_step<T> at = all.lane(l);
      al = multiplied(x, at, l, below, al);
      for (const weight_matrix& w : matrices()) {
        if (w.rows == 0) continue;  // none of the cell's own
        const index_t j = w.first / (E::gates * h);
        if constexpr (requires { f_.diag_immediate(at, j, to); })
          f_.diag_immediate(at, j, to);
        else
          for (index_t i = 0; i < w.rows; ++i) {
            for (index_t k = i % h; k < E::states * h; k += h) column[k] = 0;
            f_.immediate(at, i, j, T(1), column);
            for (index_t k = 0; k < E::states; ++k) to[k * w.rows + i] = column[k * h + i % h];
          }
        to += w.rows * E::states;
      }
    }
  }

  /// Numbers of the state, the first, that a stack hands up as x of the next layer.
  index_t handed_up() const { return hidden(); }
  /// WRITES ds'/ds of lane l to J, states hidden x states hidden, column-major.
  void lane_jacobian(const const_edge<T>& e, index_t l, T* J) const {
    f_.jacobian(made(e).lane(l), J, e.workspace.data());
  }
  /// ADDS columns [p0, p1) of ds'/dtheta of lane l to M, states hidden rows.
  void lane_immediate(const input& x, const const_edge<T>& e, index_t l, matrix<const T> below, index_t p0,
                      index_t p1, matrix<T> M) const {
    const index_t h = hidden(), rows = E::gates * h, end = std::min(p1, w_y());
    const recurrent_step<T> at = made(e).lane(l);
    for (index_t p = p0; p < end;) {  // parameter p is entry (i, j)
      const index_t j = p / rows, first = p - j * rows, last = std::min(rows, end - j * rows);
      const T v = j < h ? at.s.data[j] : j < h + f_.options.in ? input_.at(x, below, l, j - h) : T(1);
      for (index_t i = first; i < last; ++i, ++p) f_.immediate(at, i, j, v, M.data + (p - p0) * M.stride);
    }
  }
  /// WRITES what the matrices multiply in lane l to a, and ADDS to d, states hidden rows, the column of each
  /// row of each matrix.
  void lane_factors(const input& x, const const_edge<T>& e, index_t l, matrix<const T> below, T* a,
                    matrix<T> d) const {
    const recurrent_step<T> at = made(e).lane(l);
    multiplied(x, at, l, below, a);
    T* column = d.data;
    for (const weight_matrix& w : matrices()) {
      const index_t j =
          w.first / (E::gates * hidden());  // of [h; x; 1; own], any that multiplies this matrix
      for (index_t i = 0; i < w.rows; ++i, column += d.stride) f_.immediate(at, i, j, T(1), column);
    }
  }
  /// WRITES ds'/dx of lane l to B, states hidden x in, column-major. Changes the workspace.
  void lane_input_jacobian(const const_edge<T>& e, index_t l, T* B) const {
    const index_t h = hidden(), n = E::states * h, rows = E::gates * h, in = f_.options.in;
    const recurrent_step<T> at = made(e).lane(l);
    const T* const w = e.theta.data() + w_x();
    T* const by_z = e.workspace.data();  // a column of ds'/dz
    std::fill_n(B, n * in, T(0));
    for (index_t i = 0; i < rows; ++i) {
      const bool every = reaches_every(i);
      std::fill_n(by_z, n, T(0));
      f_.immediate(at, i, h + in, T(1), by_z);
      for (index_t k = every ? 0 : i % h; k < n; k += every ? 1 : h)
        for (index_t j = 0; j < in; ++j) B[j * n + k] += by_z[k] * w[j * rows + i];
    }
  }

 protected:
  recurrent_jacobians(const typename E::options_type& options, index_t width, const lane_strides& strides)
      : recurrent_places<E>(options, width, strides) {}

  using places = recurrent_places<E>;  ///< where numbers lie
  using places::f_, places::hidden, places::kept, places::lanes, places::own, places::states, places::w_x,
      places::w_y, places::weights;

  /// The step of the edge.
  recurrent_step<T> made(const const_edge<T>& e) const {
    return {weights(e.theta.data()), states(e.s.data()), states(e.next.data()), kept(e.tape.data())};
  }

  affine_input<T> input_;  ///< z of x

 private:
  // everything a unit holds reaches others in the same step
  static constexpr bool mixes_units = requires { requires E::mixes_units; };

  // Whether row i of [w_h w_x b] moves more than its own unit.
  bool reaches_every(index_t i) const {
    if constexpr (requires { f_.reaches_every_unit(i); }) return f_.reaches_every_unit(i);
    return false;
  }

  auto matrices() const {
    const index_t h = hidden(), rows = E::gates * h, x = f_.options.in + 1;
    if constexpr (E::apart)
      return std::array<weight_matrix, 3>{
          {{0, rows, h, rows}, {w_x(), rows, x, rows}, {own(), w_y() - own(), 1, w_y() - own()}}};
    else
      return std::array<weight_matrix, 1>{{{0, rows, h + x, rows}}};
  }
  // What the matrices of lane l multiply, [h; x; 1] or h, [x; 1], 1; returns the end of a.
  T* multiplied(const input& x, const recurrent_step<T>& at, index_t l, matrix<const T> below, T* a) const {
    a = std::copy_n(at.s.data, hidden(), a);
    a = input_.copy(x, below, l, a);
    *a++ = 1;
    if (E::apart && w_y() > own()) *a++ = 1;
    return a;
  }
};

}  // namespace unroll::cells
