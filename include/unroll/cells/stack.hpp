#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "unroll/cells/recurrent_cell.hpp"
#include "unroll/cells/stack_layers.hpp"

namespace unroll::cells {

/// Layers of one kind of recurrent_cell, or of diagonal_cell, one above the other, as one system: the h' of a
/// step of a layer, of diagonal_cell all of its s', is the x of the layer above in the same step, y and the
/// loss are those of the last. As nn.LSTM(num_layers) of PyTorch.
///
///   s'_0 = F_0(theta_0, s_0, x),   s'_k = F_k(theta_k, s_k, h'_{k-1})
///
/// Every layer has its own theta, "l0.w_h" ... in layout(), one behind the other; the state of a lane holds
/// those of its layers likewise, and each layer works in that memory. It costs what its layers cost and, for
/// each above the first, lanes x gates hidden x in multiply-adds of a vjp, for the cotangent of its x.
/// ds'/ds and ds'/dtheta are those of one system, with D_k = ds'_k/dx, M_k a mask and x_k = M_k h'_{k-1}:
///
///   ds'_k/ds_j = D_k M_k dh'_{k-1}/ds_j for j < k, likewise by theta_j
///
/// so that rtrl is exact, snap keeps what theta reaches through the layers above, and kf_rtrl, ok_rtrl,
/// preuoro and random_path are unbiased: theta_j still is matrices that multiply vectors, of which the D
/// reach the layers above. There is no unit that holds numbers of several layers: rflo, eprop, kernl, sk_rtrl
/// and diagonal_rtrl, which keep traces of units of one layer, refuse a stack; layerwise_rtrl keeps those of
/// every layer of a stack of diagonal_cell, which is biased.
///
/// With dropout x_k is multiplied by a mask, which is a function of the key that the example draws from
/// (example::draws), the step and the place alone: every estimator, and every pass over the same step, sees
/// the same one, so that it is a part of F and gradients are those of the loss with these masks. Examples
/// without a key are refused: steps are counted from 0 in every sequence, and all of them would have the same
/// masks. A stack without dropout, with the same theta, is the one to evaluate.
template <class Cell>
class stack final : stack_layers<Cell> {
  using T = typename Cell::scalar;

 public:
  using scalar = T;
  using options_type = typename Cell::options_type;  ///< sizes and loss of a layer
  using input = example<T>;

  /// Layers with options of their own, the lowest first: `in` of each is what the one below hands up, its
  /// `hidden`, of diagonal_cell all numbers of its state; `out` and `loss` are read of the last. Throws
  /// unroll::error, with the layer, where sizes do not fit.
  explicit stack(const std::vector<options_type>& options, const dropout_options& dropout = {})
      : stack_layers<Cell>(options, dropout) {}
  /// `layers` equal ones: `in` is that of the first.
  stack(const options_type& options, index_t layers, const dropout_options& dropout = {})
      : stack(repeated(options, layers), dropout) {}

  /// What the stack looks like from outside: `in` of the first layer, the rest of the last.
  options_type options() const {
    options_type o = cells_.back().options();
    o.in = cells_.front().options().in;
    return o;
  }
  /// How many there are.
  index_t layers() const { return index_t(cells_.size()); }
  /// Layer k alone, as a cell.
  const Cell& layer(index_t k) const { return cells_[std::size_t(k)]; }
  dims size() const { return size_; }
  unroll::layout layout() const {
    unroll::layout all;
    for (std::size_t k = 0; k < layers_.size(); ++k) {
      const unroll::layout alone = layers_[k].cell.layout();
      for (const layout_block& b : alone.blocks()) {
        const bool of_readout = b.name == "w_y" || b.name == "b_y";
        all.add(of_readout ? b.name : "l" + std::to_string(k) + "." + b.name, b.rows, b.cols);
      }
    }
    return all;
  }
  /// That of every layer, with a key of its own.
  void init(params<T> theta, key k) const {
    check_size("stack", "theta", theta.size(), size_.params);
    for (std::size_t i = 0; i < layers_.size(); ++i)
      layers_[i].cell.init(theta.part(layers_[i].params, layers_[i].cell.size().params), fold(k, i));
  }
  /// False when x or the target holds NaN or infinity; throws unroll::error on an invalid token or label, and
  /// where dropout has no key to draw from.
  bool finite(const input& x) const {
    const options_type o = options();
    if (drops()) dropout_key(x);
    return affine_input<T>(o.in, 0, o.lanes).finite("stack", x) &&
           readout<T>(o.hidden, o.out, o.loss, o.lanes).finite("stack", x);
  }
  index_t scored(const input& x) const { return cells_.back().scored(x); }
  /// WRITES y of the states s, lane after lane.
  void output(params<const T> theta, state<const T> s, view<T> y) const {
    const part& p = layers_.back();
    p.cell.output(own(theta, p), {s.data() + p.state, size_.state - p.state}, y);
  }

  /// The same stack over `lanes` lanes; throws unroll::error with dropout, since other lanes have other
  /// masks.
  stack with_lanes(index_t lanes) const {
    if (drops() && lanes != size_.lanes)
      fail("stack", "lanes",
           "is " + std::to_string(lanes) + ", but dropout has masks for " + std::to_string(size_.lanes) +
               " together: lanes cannot be dealt out");
    std::vector<options_type> all;
    for (const Cell& c : cells_) all.push_back(cells::with_lanes(c.options(), lanes));
    return stack(all, dropout_);
  }
  input lanes_from(const input& x, index_t i) const {
    const options_type o = options();
    return cells::lanes_from(x, i, o.in, o.out == 0 ? o.hidden : o.out);
  }

  void step(const input& x, const edge<T>& e) const {
    for (std::size_t k = 0; k < layers_.size(); ++k) {
      const part& p = layers_[k];
      drop(x, e.tape.data(), e.next.data(), k, e.t);
      edge<T> at = e;
      at.theta = own(e.theta, p), at.s = moved(e.s, p), at.next = moved(e.next, p);
      at.tape = {e.tape.data() + p.tape, e.tape.size() - p.tape};
      p.cell.step(x, at, below(e.next.data(), e.tape.data(), k, 1));
    }
  }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const dstate<T> delta = entering(e, dnext);
    for (std::size_t k = layers_.size(); k-- > 0;) {
      const part& p = layers_[k];
      p.cell.vjp(x, made(e, p), moved(dstate<const T>(delta), p), dloss, moved(ds, p),
                 dtheta.empty() ? dtheta : own(dtheta, p), below(e.next.data(), e.tape.data(), k, 1));
      if (k > 0) hand_down(e, k);
    }
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    for (std::size_t k = 0; k < layers_.size(); ++k) {
      const part& p = layers_[k];
      p.cell.jvp(x, made(e, p), dtheta.empty() ? dtheta : own(dtheta, p), moved(ds, p), moved(dnext, p),
                 k + 1 == layers_.size() ? dloss : nullptr, below(e.next.data(), e.tape.data(), k, 1),
                 handed_up(e, dnext.data(), k));
    }
  }

  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta) const {
    const dstate<T> delta = entering(e, dnext);
    for (std::size_t k = layers_.size(); k-- > 0;) {
      const part& p = layers_[k];
      p.cell.lane_vjp(x, made(e, p), moved(dstate<const T>(delta), p),
                      {dtheta.data() + p.params, dtheta.size() - p.params},
                      below(e.next.data(), e.tape.data(), k, 1));
      if (k > 0) hand_down(e, k);
    }
  }

  index_t window_workspace(index_t steps) const {  // that of every layer, one behind the other
    index_t all = 0;
    for (const part& p : layers_) all += p.cell.window_workspace(steps);
    return all;
  }
  void forward(std::span<const input> xs, const window<T>& w) const {
    T* const next = w.states + size_.state;
    for (std::size_t k = 0; k < layers_.size(); ++k) {
      for (index_t i = 0; i < w.steps && drops(k); ++i)
        drop(xs[std::size_t(i)], w.tape + i * size_.tape, next + i * size_.state, k, w.t + i);
      layers_[k].cell.forward(xs, part_of(w, k), below(next, w.tape, k, w.steps));
    }
  }
  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const {
    T* const next = w.states + size_.state;
    for (std::size_t k = layers_.size(); k-- > 0;) {
      const part& p = layers_[k];
      const window<T> own_window = part_of(w, k);
      p.cell.backward(xs, own_window, in, moved(ds, p), dtheta.empty() ? dtheta : own(dtheta, p),
                      below(next, w.tape, k, w.steps));
      if (k == 0) return;
      const matrix<T> above = layers_[k - 1].cell.from_above(part_of(w, k - 1).workspace.data(), w.steps);
      p.cell.input_vjp(own_window.theta, own_window.workspace.data(), w.steps, false, above);
      if (drops(k)) times_mask<T>(mask_of(w.tape, k, w.steps), above, false, above);
    }
  }

  void jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const index_t n = stride_;
    for (index_t l = 0; l < size_.lanes; ++l) {
      find_input_jacobians(e, l);
      for (std::size_t k = 0; k < layers_.size(); ++k) {
        const part& p = layers_[k];
        const index_t own_n = p.cell.size().state / size_.lanes;
        T* const block =
            J.data() + (l * n + p.state) * n;  // of layer k, n rows; its own are made at the front
        p.cell.lane_jacobian(made(e, p), l, block);
        for (index_t c = own_n - 1; c >= 0; --c) {  // and go to their place from the last column on
          T* const to = block + c * n;
          if (c + p.state > 0)  // else it is there
            std::copy_backward(block + c * own_n, block + (c + 1) * own_n, to + p.state + own_n);
          std::fill_n(to, p.state, T(0));
          std::fill(to + p.state + own_n, to + n, T(0));
          push_up(e, k, to);
        }
      }
    }
  }
  void immediate(const input& x, const const_edge<T>& e, view<T> M, index_t p0, index_t p1) const {
    const index_t n = stride_;
    T* const made_here = e.workspace.data() + delta_;  // a column of ds'/dtheta
    for (index_t l = 0; l < size_.lanes; ++l) {
      find_input_jacobians(e, l);
      for (index_t p = p0; p < p1; ++p) {
        const std::size_t k = layer_of(p);
        const part& at = layers_[k];
        const matrix<const T> x_here = below(e.next.data(), e.tape.data(), k, 1);
        T* const to = M.data() + (l * size_.params + p) * n;
        if (k + 1 == layers_.size()) {  // the columns that are left move nothing above
          at.cell.lane_immediate(x, made(e, at), l, x_here, p - at.params, p1 - at.params,
                                 {to + at.state, n - at.state, p1 - p, n});
          break;
        }
        std::fill_n(made_here, n, T(0));
        at.cell.lane_immediate(x, made(e, at), l, x_here, p - at.params, p - at.params + 1,
                               {made_here + at.state, n - at.state, 1});
        push_up(e, k, made_here);
        linalg::axpy<T>(1, made_here, to, n);
      }
    }
  }

  void jacobian_mask(view<std::uint8_t> J) const {
    std::fill(J.begin(), J.end(), std::uint8_t(0));
    for (std::size_t k = 0; k < layers_.size(); ++k) {
      const part& p = layers_[k];
      const index_t n = p.cell.size().state / size_.lanes;
      std::vector<std::uint8_t> alone(std::size_t(n * n));
      p.cell.jacobian_mask(view<std::uint8_t>(alone));
      for (index_t c = 0; c < n; ++c) reach_up(alone.data() + c * n, k, J.data() + (p.state + c) * stride_);
    }
  }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    std::fill(mask.begin(), mask.end(), std::uint8_t(0));
    for (index_t p = p0; p < p1; ++p) {
      const std::size_t k = layer_of(p);
      const part& at = layers_[k];
      std::vector<std::uint8_t> alone(std::size_t(at.cell.size().state / size_.lanes));
      at.cell.immediate_mask(view<std::uint8_t>(alone), p - at.params, p - at.params + 1);
      reach_up(alone.data(), k, mask.data() + (p - p0) * stride_);
    }
  }

  /// What its layers have.
  bool supports(hook h) const {
    if (h == hook::row_norms || h == hook::diag_jacobian) return false;
    for (const Cell& c : cells_)
      if (!unroll::supports(c, h == hook::unit_layers ? hook::diag_jacobian : h)) return false;
    return true;
  }
  /// Those of its layers, from the lowest on.
  std::vector<weight_matrix> weight_matrices() const {
    std::vector<weight_matrix> all;
    for (const part& p : layers_)
      for (weight_matrix w : p.cell.weight_matrices()) {
        w.first += p.params;
        all.push_back(w);
      }
    return all;
  }
  void factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    std::fill(d.begin(), d.end(), T(0));
    T *to = a.data(), *column = d.data();
    for (index_t l = 0; l < size_.lanes; ++l) {
      find_input_jacobians(e, l);
      for (std::size_t k = 0; k < layers_.size(); ++k) {
        const part& p = layers_[k];
        p.cell.lane_factors(x, made(e, p), l, below(e.next.data(), e.tape.data(), k, 1), to,
                            {column + p.state, stride_ - p.state, p.rows, stride_});
        for (index_t r = 0; r < p.rows; ++r, column += stride_) push_up(e, k, column);
        to += p.columns;
      }
    }
  }

  /// Those of its layers, whose units are those of the cells.
  std::vector<unit_layer> unit_layers() const {
    std::vector<unit_layer> all;
    for (const part& p : layers_)
      all.push_back({p.state, p.cell.size().state / size_.lanes, p.cell.units(),
                     index_t(p.cell.weight_matrices().size()), p.cell.units_apart()});
    return all;
  }
  void layer_diag_jacobian(index_t k, const input& x, const const_edge<T>& e, view<T> J) const {
    const part& p = layers_[std::size_t(k)];
    p.cell.diag_jacobian(x, made(e, p), J);
  }
  void layer_diag_factors(index_t k, const input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    const part& p = layers_[std::size_t(k)];
    p.cell.diag_factors(x, made(e, p), a, d, below(e.next.data(), e.tape.data(), std::size_t(k), 1));
  }

 private:
  // The layer that parameter p belongs to.
  std::size_t layer_of(index_t p) const {
    std::size_t k = layers_.size() - 1;
    while (layers_[k].params > p) --k;
    return k;
  }
  // A column of a mask, from that of layer k alone: where something moves what a layer hands up, it moves
  // every number above.
  void reach_up(const std::uint8_t* alone, std::size_t k, std::uint8_t* to) const {
    const index_t first = layers_[k].state, n = layers_[k].cell.size().state / size_.lanes;
    std::copy_n(alone, n, to + first);
    const bool up = std::any_of(alone, alone + cells_[k].handed_up(), [](std::uint8_t v) { return v != 0; });
    std::fill(to + first + n, to + stride_, std::uint8_t(up));
  }

  using layers_type = stack_layers<Cell>;
  using layers_type::below, layers_type::cells_, layers_type::drop, layers_type::dropout_, layers_type::drops,
      layers_type::entering, layers_type::find_input_jacobians, layers_type::hand_down,
      layers_type::handed_up, layers_type::h_of, layers_type::layers_, layers_type::made,
      layers_type::mask_of, layers_type::moved, layers_type::own, layers_type::part_of, layers_type::push_up,
      layers_type::repeated, layers_type::size_, layers_type::stride_, layers_type::delta_;
  using typename layers_type::part;
};

}  // namespace unroll::cells
