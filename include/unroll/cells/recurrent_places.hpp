#pragma once

#include <algorithm>

#include "unroll/cells/recurrent_step.hpp"
#include "unroll/core/view.hpp"

namespace unroll::cells {

/// Numbers from one lane to the next where a cell is a layer of a stack, whose lanes hold more than its own.
/// From a step to the next it is `lanes` times as many.
struct lane_strides {
  index_t state =
      0;  ///< of states, and their tangents and cotangents; 0: as many as the cell has, side by side
  index_t tape = 0;    ///< of tapes
  index_t params = 0;  ///< of gradients that are kept lane by lane
};

/// Where the numbers of a recurrent_cell lie: in theta, in states, tapes and workspaces. A column is a lane
/// of a step. `width` numbers of the tape of a lane are the readout's.
template <class Equations>
class recurrent_places {
  using E = Equations;
  using T = typename E::scalar;

 public:
  recurrent_places(const typename E::options_type& options, index_t width, const lane_strides& strides)
      : f_{options}, width_(width), strides_(strides) {}

 protected:
  static constexpr bool elementwise = E::taped == 0;  ///< s' = f(z + u)

  index_t hidden() const { return f_.options.hidden; }  ///< units
  index_t lanes() const { return f_.options.lanes; }
  index_t n() const { return hidden() * lanes(); }        ///< units of all lanes
  index_t state_size() const { return E::states * n(); }  ///< numbers of a state, without strides
  /// Numbers of a tape, without strides.
  index_t tape_size() const { return lanes() * (E::taped * hidden() + width_); }
  /// Whether it is a layer of a stack.
  bool placed() const { return strides_.state > 0; }
  /// From a lane to the next.
  index_t state_stride() const { return placed() ? strides_.state : E::states * hidden(); }
  /// Likewise of tapes.
  index_t tape_stride() const { return placed() ? strides_.tape : E::taped * hidden() + width_; }
  index_t state_step() const { return lanes() * state_stride(); }  ///< from a step to the next
  index_t tape_step() const { return lanes() * tape_stride(); }    ///< likewise of tapes

  /// Where w_x begins in theta; w_h does at 0.
  index_t w_x() const { return E::gates * hidden() * hidden(); }
  /// Where the cell's own parameters begin.
  index_t own() const { return w_x() + E::gates * hidden() * (f_.options.in + 1); }
  /// Where those of the readout begin.
  index_t w_y() const {
    if constexpr (requires { f_.own_params(); }) return own() + f_.own_params();
    return own();
  }
  /// Numbers from the gradient of a lane to the next.
  index_t lane_params(index_t params) const { return placed() ? strides_.params : params; }
  /// Rows of u that are W_h h.
  index_t product_rows() const {
    if constexpr (requires { f_.product_gates(); }) return f_.product_gates() * hidden();
    return E::gates * hidden();
  }

  /// Workspace of a step: d | du if it is apart | the cotangent of s', which backward changes | the
  /// readout's.
  index_t step_workspace() const { return window_parts(1) + (elementwise ? 0 : state_size()); }
  /// Workspace of a window: d of all steps | du if it is apart | the readout's | the gathered inputs | W_h'.
  index_t window_parts(index_t steps) const {
    return E::cotangents * n() * steps + (E::apart ? E::gates * n() : 0);
  }
  /// Whether backward reads W_h' from a copy, whose columns lie in order: with several lanes always, with one
  /// only where W_h stays in the second-level cache and there are steps enough to pay for the copy.
  bool transposes(index_t steps) const {
    return lanes() >= 4 || (hidden() <= (E::gates == 1 ? 256 : 128) && steps >= (E::gates == 1 ? 8 : 16));
  }

  /// Of theta, all parameters.
  recurrent_weights<T> weights(const T* theta) const { return {theta, theta + own(), hidden(), E::gates}; }
  /// States, tapes and cotangents of `steps` steps side by side.
  template <class U>
  matrix<U> states(U* s, index_t steps = 1) const {
    return {s, E::states * hidden(), lanes() * steps, state_stride()};
  }
  /// h of them, hidden x (lanes x steps).
  template <class U>
  matrix<U> h_of(U* s, index_t steps = 1) const {
    return {s, hidden(), lanes() * steps, state_stride()};
  }
  /// What the equations keep in a tape, taped hidden x (lanes x steps).
  template <class U>
  matrix<U> kept(U* tape, index_t steps = 1) const {
    return {tape, E::taped * hidden(), lanes() * steps, tape_stride()};
  }
  /// What the readout keeps there.
  template <class U>
  matrix<U> outputs(U* tape, index_t steps = 1) const {
    return {tape + E::taped * hidden(), width_, lanes() * steps, tape_stride()};
  }
  /// z, gates hidden x (lanes x steps).
  matrix<T> arguments(T* tape, T* next, index_t steps = 1) const {
    return elementwise ? states(next, steps) : rows_of(kept(tape, steps), 0, E::gates * hidden());
  }
  /// d, cotangents hidden x (lanes x steps).
  matrix<T> cotangents(T* d, index_t steps = 1) const {
    return {d, E::cotangents * hidden(), lanes() * steps};
  }
  /// The rows of d, cotangents hidden x columns, where that of h' from outside of the recurrence stands.
  matrix<T> from_loss(matrix<T> d) const { return rows_of(d, d.rows - hidden(), hidden()); }
  /// Where u lies, its tangent and its cotangent, gates hidden x lanes: with those of z, in d, or in memory
  /// of its own.
  matrix<T> of_products(matrix<T> d, T* apart) const {
    if (E::apart) return {apart, E::gates * hidden(), lanes()};
    return d;
  }
  /// The cotangent of s' as backward wants it, where it changes it in its part of the workspace of a step.
  auto entering(dstate<const T> dnext, T* workspace) const {
    if constexpr (elementwise) {
      return states(dnext.data());
    } else {
      const matrix<T> ds{workspace + window_parts(1), E::states * hidden(), lanes()};
      if (dnext.empty())
        zero(ds);
      else
        for (index_t l = 0; l < lanes(); ++l)
          std::copy_n(dnext.data() + l * state_stride(), ds.rows, column(ds, l));
      return ds;
    }
  }

  Equations f_;  ///< with the options

 private:
  index_t width_;
  lane_strides strides_;
};

}  // namespace unroll::cells
