#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/dropout.hpp"
#include "unroll/cells/recurrent_places.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::cells {

/// The layers of a stack and where the numbers of each lie: its parameters one behind the other, its states
/// and tapes so within every lane. A layer works in that memory, from its first number on, with the strides
/// of the stack. Where x of a layer is dropped out, the tape of a lane holds its mask and behind that x with
/// it.
template <class Cell>
class stack_layers {
  static_assert(
      requires(const Cell& c, const lane_strides& within) {
        c.options();
        c.layer(within, true);
        c.handed_up();
      },
      "cells::stack takes cells that are a recurrent_cell or a diagonal_cell of some equations (elman, relu, "
      "gru, "
      "lstm, leaky, lru, rtu, min_gru, ...); of another cell, layers are part of its own step");

 protected:
  using T = typename Cell::scalar;                   ///< of its numbers
  using options_type = typename Cell::options_type;  ///< of a layer

  /// One layer.
  struct part {
    Cell cell;               ///< in the memory of the stack
    index_t params = 0;      ///< where it begins in theta
    index_t state = 0;       ///< where in the state of a lane
    index_t tape = 0;        ///< where in its tape
    double dropped = 0;      ///< the probability with which a number of its x is dropped
    index_t mask = 0;        ///< where the mask of x stands in the tape of a lane
    index_t first_draw = 0;  ///< the number of the first draw of the mask in a step
    index_t columns = 0;     ///< of its weight matrices, together
    index_t by_x = 0;        ///< where ds'/dx of a lane stands in the workspace of a step
    index_t rows = 0;        ///< likewise
  };

  /// Throws unroll::error where sizes do not fit.
  stack_layers(const std::vector<options_type>& options, const dropout_options& dropout) : dropout_(dropout) {
    check_dropout(dropout);
    if (options.empty()) fail("stack", "options", "has no layer, must have 1 or more");
    index_t tape = 0;
    for (std::size_t k = 0; k < options.size(); ++k) {
      check_layer(options, k);
      cells_.emplace_back(options[k]);
      layers_.push_back({cells_.back().layer({}, k + 1 == options.size())});
      part& p = layers_.back();
      const dims own = p.cell.size();
      p.params = size_.params, p.state = size_.state, p.tape = tape;
      for (const weight_matrix& w : p.cell.weight_matrices()) p.columns += w.columns, p.rows += w.rows;
      p.dropped = k == 0 ? dropout.input : dropout.probability;
      size_.params += own.params;
      size_.state += own.state / own.lanes;
      tape += own.tape / own.lanes;
      size_.workspace = std::max(size_.workspace, own.workspace);
    }
    size_.lanes = options[0].lanes;
    index_t widest = 0;
    for (std::size_t k = 0; k < options.size(); ++k) {
      const index_t in = options[k].in;
      if (layers_[k].dropped == 0 || in == 0) continue;
      layers_[k].mask = tape, layers_[k].first_draw = draws_;
      tape += 2 * in, draws_ += in * size_.lanes, widest = std::max(widest, in);
    }
    for (std::size_t k = 0; k < layers_.size(); ++k)
      layers_[k].cell = cells_[k].layer({size_.state, tape, size_.params}, k + 1 == layers_.size());
    stride_ = size_.state, tape_stride_ = tape, delta_ = size_.workspace;
    size_.state *= size_.lanes;
    size_.tape = tape * size_.lanes;
    size_.workspace += size_.state + widest * size_.lanes;
    for (std::size_t k = 1; k < layers_.size(); ++k) {
      layers_[k].by_x = size_.workspace;
      size_.workspace += cells_[k].size().state / size_.lanes * options[k].in;
    }
  }

  /// The options of `layers` equal layers, the first of which has o.in.
  static std::vector<options_type> repeated(options_type o, index_t layers) {
    check_at_least("stack", "layers", layers, 1);
    std::vector<options_type> all{o};
    o.in = Cell(o).handed_up();
    all.resize(std::size_t(layers), o);
    return all;
  }

  /// Of theta, or its gradient or tangent, that of a layer.
  template <class U, class Space>
  view<U, Space> own(view<U, Space> theta, const part& p) const {
    return theta.part(p.params, p.cell.size().params);
  }
  /// A state from where that of a layer begins; empty stays empty.
  template <class U, class Space>
  view<U, Space> moved(view<U, Space> s, const part& p) const {
    return s.empty() ? s : view<U, Space>(s.data() + p.state, s.size() - p.state);
  }
  /// The edge of a layer.
  const_edge<T> made(const const_edge<T>& e, const part& p) const {
    const_edge<T> at = e;
    at.theta = own(e.theta, p), at.s = moved(e.s, p), at.next = moved(e.next, p);
    at.tape = {e.tape.data() + p.tape, e.tape.size() - p.tape};
    return at;
  }
  /// What layer k hands up, in the states of `steps` steps, of which s is the first.
  template <class U>
  matrix<U> h_of(U* s, std::size_t k, index_t steps) const {
    return {s + layers_[k].state, cells_[k].handed_up(), size_.lanes * steps, stride_};
  }
  /// x of layer k, which lies in the states that the steps have made, or in their tapes with dropout; nothing
  /// where it is that of the examples.
  matrix<const T> below(const T* next, const T* tape, std::size_t k, index_t steps) const {
    if (drops(k)) {
      const matrix<const T> m = mask_of(tape, k, steps);
      return {m.data + m.rows, m.rows, m.cols, m.stride};
    }
    return k == 0 ? matrix<const T>{} : h_of(next, k - 1, steps);
  }

  /// Whether anything is dropped out.
  bool drops() const { return draws_ > 0; }
  /// Whether x of layer k is dropped out.
  bool drops(std::size_t k) const { return layers_[k].dropped > 0 && cells_[k].options().in > 0; }
  /// The masks of x of layer k in the tapes of `steps` steps.
  template <class U>
  matrix<U> mask_of(U* tape, std::size_t k, index_t steps) const {
    return {tape + layers_[k].mask, cells_[k].options().in, size_.lanes * steps, tape_stride_};
  }
  /// Where x of layer k is dropped out: draws its mask for step t and WRITES it and x to the tape of the
  /// step.
  void drop(const example<T>& x, T* tape, const T* next, std::size_t k, std::int64_t t) const {
    if (!drops(k)) return;
    const matrix<T> m = mask_of(tape, k, 1), to{m.data + m.rows, m.rows, m.cols, m.stride};
    draw_mask<T>(dropout_key(x), t * draws_ + layers_[k].first_draw, layers_[k].dropped, m);
    if (k > 0) return times_mask<T>(m, h_of(next, k - 1, 1), false, to);
    const affine_input<T> given(m.rows, 0, m.cols);
    for (index_t l = 0; l < m.cols; ++l)
      for (index_t i = 0; i < m.rows; ++i) column(to, l)[i] = column(m, l)[i] * given.at(x, l, i);
  }
  /// The tangent of x of layer k, from that of s'.
  matrix<const T> handed_up(const const_edge<T>& e, const T* dnext, std::size_t k) const {
    if (k == 0) return {};
    const matrix<const T> dh = h_of(dnext, k - 1, 1);
    if (!drops(k)) return dh;
    const matrix<T> dx{e.workspace.data() + delta_ + size_.state, dh.rows, dh.cols};
    times_mask<T>(mask_of(e.tape.data(), k, 1), dh, false, dx);
    return dx;
  }
  /// From what layer k has left in the workspace: ADDS to the cotangent of h of the layer below.
  void hand_down(const const_edge<T>& e, std::size_t k) const {
    const part& p = layers_[k];
    T* const delta = e.workspace.data() + delta_;
    const matrix<T> dh = h_of(delta, k - 1, 1);
    if (!drops(k)) return p.cell.input_vjp(own(e.theta, p), e.workspace.data(), 1, true, dh);
    const matrix<T> dx{delta + size_.state, dh.rows, dh.cols};
    p.cell.input_vjp(own(e.theta, p), e.workspace.data(), 1, false, dx);
    times_mask<T>(mask_of(e.tape.data(), k, 1), dx, true, dh);
  }
  /// A copy of dnext behind the workspace of the layers, to which they add the cotangents of their x.
  dstate<T> entering(const const_edge<T>& e, dstate<const T> dnext) const {
    const dstate<T> delta{e.workspace.data() + delta_, size_.state};
    if (dnext.empty())
      std::fill(delta.begin(), delta.end(), T(0));
    else
      std::copy(dnext.begin(), dnext.end(), delta.begin());
    return delta;
  }
  /// The window of layer k.
  window<T> part_of(window<T> w, std::size_t k) const {
    const part& p = layers_[k];
    index_t before = 0;
    for (std::size_t i = 0; i < k; ++i) before += layers_[i].cell.window_workspace(w.steps);
    w.theta = own(w.theta, p);
    w.states += p.state;
    w.tape += p.tape;
    w.workspace = w.workspace.part(before, p.cell.window_workspace(w.steps));
    return w;
  }
  /// WRITES D_k M_k of lane l, of every layer but the first, to the workspace, where push_up finds them.
  void find_input_jacobians(const const_edge<T>& e, index_t l) const {
    for (std::size_t k = 1; k < layers_.size(); ++k) {
      const matrix<T> by_x = by_x_of(e, k);
      layers_[k].cell.lane_input_jacobian(made(e, layers_[k]), l, by_x.data);
      if (!drops(k)) continue;
      const T* const mask = column(mask_of(e.tape.data(), k, 1), l);
      for (index_t j = 0; j < by_x.cols; ++j)
        for (index_t i = 0; i < by_x.rows; ++i) column(by_x, j)[i] *= mask[j];
    }
  }
  /// A column of ds'/ds or ds'/dtheta of a lane, of which the numbers of layer k are there and those of the
  /// layers above 0: ADDS to those what comes up from k.
  void push_up(const const_edge<T>& e, std::size_t k, T* to) const {
    for (++k; k < layers_.size(); ++k) {
      const matrix<T> by_x = by_x_of(e, k);
      const T* const h = to + layers_[k - 1].state;
      for (index_t j = 0; j < by_x.cols; ++j)
        if (h[j] != T(0)) linalg::axpy<T>(h[j], column(by_x, j), to + layers_[k].state, by_x.rows);
    }
  }

  std::vector<Cell> cells_;   ///< each alone
  std::vector<part> layers_;  ///< and in the stack
  dims size_;                 ///< of the stack
  dropout_options dropout_;   ///< as given
  index_t stride_ = 0;        ///< numbers of the state of a lane
  index_t tape_stride_ = 0;   ///< numbers of its tape
  index_t delta_ = 0;         ///< where in the workspace of a step that of the layers ends
  index_t draws_ = 0;         ///< of a step; 0: no dropout

 private:
  // D_k M_k of a lane.
  matrix<T> by_x_of(const const_edge<T>& e, std::size_t k) const {
    return {e.workspace.data() + layers_[k].by_x, cells_[k].size().state / size_.lanes,
            cells_[k].options().in};
  }
  void check_layer(const std::vector<options_type>& options, std::size_t k) const {
    const options_type& o = options[k];
    const std::string layer = "options of layer " + std::to_string(k);
    if (k > 0 && o.in != cells_[k - 1].handed_up()) {
      const index_t hidden = options[k - 1].hidden, each = cells_[k - 1].handed_up() / hidden;
      fail("stack", layer,
           "in is " + std::to_string(o.in) + ", the layer below has hidden " + std::to_string(hidden) +
               (each > 1 ? ", each of " + std::to_string(each) + " numbers" : ""));
    }
    if (o.lanes != options[0].lanes)
      fail("stack", layer,
           "lanes is " + std::to_string(o.lanes) + ", the first layer has " +
               std::to_string(options[0].lanes));
  }
};

}  // namespace unroll::cells
