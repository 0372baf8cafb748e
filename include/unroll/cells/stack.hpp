#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "unroll/cells/recurrent_cell.hpp"
#include "unroll/rng/chooser.hpp"

namespace unroll::cells {

/// Dropout between the layers of a stack: every h' that a layer hands up, not what it keeps as its state, is
/// zero with this probability and else divided by 1 - probability (as nn.LSTM(dropout) of PyTorch in
/// training).
struct dropout_options {
  double probability = 0;  ///< in [0, 1); 0: none, as in evaluation
  unroll::key key = {};    ///< of the masks, where an example brings none
};

/// Layers of one kind of recurrent_cell, one above the other, as one system: the h' of a step of a layer is
/// the x of the layer above in the same step, y and the loss are those of the last. As nn.LSTM(num_layers) of
/// PyTorch.
///
///   s'_0 = F_0(theta_0, s_0, x),   s'_k = F_k(theta_k, s_k, h'_{k-1})
///
/// Every layer has its own theta, "l0.w_h" ... in layout(), one behind the other; the state of a lane holds
/// those of its layers likewise, and each layer works in that memory. It costs what its layers cost and, for
/// each above the first, lanes x gates hidden x in multiply-adds of a vjp, for the cotangent of its x.
/// Jacobians of a whole stack are not kept: rtrl and its kin refuse it by their concepts.
///
/// With dropout h'_{k-1} is multiplied by a mask, which is a function of the key, the step and the place
/// alone: every estimator, and every pass over the same step, sees the same one, so that it is a part of F
/// and gradients are those of the loss with these masks. A stack without it, with the same theta, is the one
/// to evaluate.
template <class Cell>
class stack final {
  using T = typename Cell::scalar;

 public:
  using scalar = T;
  using options_type = typename Cell::options_type;  ///< sizes and loss of a layer
  using input = example<T>;

  /// Layers with options of their own, the lowest first: `in` of each is `hidden` of the one below, `out` and
  /// `loss` are read of the last. Throws unroll::error, with the layer, where sizes do not fit.
  explicit stack(const std::vector<options_type>& options, const dropout_options& dropout = {})
      : dropout_(dropout) {
    if (!(dropout.probability >= 0 && dropout.probability < 1))
      fail("stack", "dropout.probability",
           "is " + std::to_string(dropout.probability) + ", must be in [0, 1)");
    if (options.empty()) fail("stack", "options", "has no layer, must have 1 or more");
    index_t tape = 0;
    for (std::size_t k = 0; k < options.size(); ++k) {
      const options_type& o = options[k];
      const std::string layer = "options of layer " + std::to_string(k);
      if (k > 0 && o.in != options[k - 1].hidden)
        fail("stack", layer,
             "in is " + std::to_string(o.in) + ", the layer below has hidden " +
                 std::to_string(options[k - 1].hidden));
      if (o.lanes != options[0].lanes)
        fail("stack", layer,
             "lanes is " + std::to_string(o.lanes) + ", the first layer has " +
                 std::to_string(options[0].lanes));
      const bool last = k + 1 == options.size();
      cells_.emplace_back(o);
      layers_.push_back({cells_.back().layer({}, last)});
      part& p = layers_.back();
      const dims own = p.cell.size();
      p.params = size_.params, p.state = size_.state, p.tape = tape;
      size_.params += own.params;
      size_.state += own.state / o.lanes;
      tape += own.tape / o.lanes;
      size_.workspace = std::max(size_.workspace, own.workspace);
    }
    size_.lanes = options[0].lanes;
    index_t widest = 0;
    for (std::size_t k = 1; k < options.size() && dropout.probability > 0; ++k) {
      const index_t in = options[k].in;
      layers_[k].mask = tape, layers_[k].first_draw = draws_;
      tape += 2 * in, draws_ += in * size_.lanes, widest = std::max(widest, in);
    }
    for (std::size_t k = 0; k < layers_.size(); ++k)
      layers_[k].cell = cells_[k].layer({size_.state, tape, size_.params}, k + 1 == layers_.size());
    stride_ = size_.state, tape_stride_ = tape, delta_ = size_.workspace;
    size_.state *= size_.lanes;
    size_.tape = tape * size_.lanes;
    size_.workspace += size_.state + widest * size_.lanes;
  }
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
      const unroll::layout own = layers_[k].cell.layout();
      for (const layout_block& b : own.blocks()) {
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
  /// False when x or the target holds NaN or infinity; throws unroll::error on an invalid token or label.
  bool finite(const input& x) const {
    const options_type o = options();
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
      if (k > 0 && drops()) drop(x, e.tape.data(), e.next.data(), k, e.t);
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
      for (index_t i = 0; i < w.steps && k > 0 && drops(); ++i)
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
      if (drops()) times(mask_of(w.tape, k, w.steps), above, false, above);
    }
  }

 private:
  struct part {
    Cell cell;  // in the memory of the stack
    // where it begins in theta, and in what a lane has of states and tapes
    index_t params = 0, state = 0, tape = 0;
    // where the mask of its x stands in the tape of a lane, in front of the x; the number of its first draw
    index_t mask = 0, first_draw = 0;
  };

  static std::vector<options_type> repeated(options_type o, index_t layers) {
    check_at_least("stack", "layers", layers, 1);
    std::vector<options_type> all{o};
    o.in = o.hidden;
    all.resize(std::size_t(layers), o);
    return all;
  }

  template <class U, class Space>
  view<U, Space> own(view<U, Space> theta, const part& p) const {
    return theta.part(p.params, p.cell.size().params);
  }
  // A state from where that of a layer begins; empty stays empty.
  template <class U, class Space>
  view<U, Space> moved(view<U, Space> s, const part& p) const {
    return s.empty() ? s : view<U, Space>(s.data() + p.state, s.size() - p.state);
  }
  const_edge<T> made(const const_edge<T>& e, const part& p) const {
    const_edge<T> at = e;
    at.theta = own(e.theta, p), at.s = moved(e.s, p), at.next = moved(e.next, p);
    at.tape = {e.tape.data() + p.tape, e.tape.size() - p.tape};
    return at;
  }
  // h of layer k in the states of `steps` steps, of which s is the first.
  template <class U>
  matrix<U> h_of(U* s, std::size_t k, index_t steps) const {
    return {s + layers_[k].state, cells_[k].options().hidden, size_.lanes * steps, stride_};
  }
  // x of layer k, which lies in the states that the steps have made, or in their tapes with dropout; nothing
  // where it is that of the examples.
  matrix<const T> below(const T* next, const T* tape, std::size_t k, index_t steps) const {
    if (k == 0) return {};
    const matrix<const T> m = mask_of(tape, k, steps);
    return drops() ? matrix<const T>{m.data + m.rows, m.rows, m.cols, m.stride} : h_of(next, k - 1, steps);
  }

  bool drops() const { return draws_ > 0; }
  // 0 or 1 / (1 - probability), for the x of layer k.
  template <class U>
  matrix<U> mask_of(U* tape, std::size_t k, index_t steps) const {
    return {tape + layers_[k].mask, cells_[k].options().in, size_.lanes * steps, tape_stride_};
  }
  // Draws the mask of x of layer k for step t and WRITES it and x to the tape of the step.
  void drop(const input& x, T* tape, const T* next, std::size_t k, std::int64_t t) const {
    const philox_chooser draw(x.draws ? *x.draws : dropout_.key);
    const T kept = T(1 / (1 - dropout_.probability));
    const matrix<T> m = mask_of(tape, k, 1);
    const matrix<const T> h = h_of(next, k - 1, 1);
    std::int64_t number = t * draws_ + layers_[k].first_draw;
    for (index_t l = 0; l < m.cols; ++l) {
      T* const to = column(m, l);
      for (index_t i = 0; i < m.rows; ++i, ++number) {
        to[i] = draw.coin(number, dropout_.probability) ? T(0) : kept;
        to[m.rows + i] = to[i] * column(h, l)[i];
      }
    }
  }
  // to = m a, or to += m a, element by element.
  static void times(const matrix<const T>& m, const matrix<const T>& a, bool add, const matrix<T>& to) {
    for (index_t l = 0; l < m.cols; ++l)
      for (index_t i = 0; i < m.rows; ++i) {
        const T v = column(m, l)[i] * column(a, l)[i];
        column(to, l)[i] = add ? column(to, l)[i] + v : v;
      }
  }
  // The tangent of x of layer k, from that of s'.
  matrix<const T> handed_up(const const_edge<T>& e, const T* dnext, std::size_t k) const {
    if (k == 0) return {};
    const matrix<const T> dh = h_of(dnext, k - 1, 1);
    if (!drops()) return dh;
    const matrix<T> dx{e.workspace.data() + delta_ + size_.state, dh.rows, dh.cols};
    times(mask_of(e.tape.data(), k, 1), dh, false, dx);
    return dx;
  }
  // From what layer k has left in the workspace: ADDS to the cotangent of h of the layer below.
  void hand_down(const const_edge<T>& e, std::size_t k) const {
    const part& p = layers_[k];
    T* const delta = e.workspace.data() + delta_;
    const matrix<T> dh = h_of(delta, k - 1, 1);
    if (!drops()) return p.cell.input_vjp(own(e.theta, p), e.workspace.data(), 1, true, dh);
    const matrix<T> dx{delta + size_.state, dh.rows, dh.cols};
    p.cell.input_vjp(own(e.theta, p), e.workspace.data(), 1, false, dx);
    times(mask_of(e.tape.data(), k, 1), dx, true, dh);
  }
  // A copy of dnext behind the workspace of the layers, to which they add the cotangents of their x.
  dstate<T> entering(const const_edge<T>& e, dstate<const T> dnext) const {
    const dstate<T> delta{e.workspace.data() + delta_, size_.state};
    if (dnext.empty())
      std::fill(delta.begin(), delta.end(), T(0));
    else
      std::copy(dnext.begin(), dnext.end(), delta.begin());
    return delta;
  }
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

  std::vector<Cell> cells_;  // each alone
  std::vector<part> layers_;
  dims size_;
  dropout_options dropout_;
  index_t stride_ = 0, tape_stride_ = 0;  // numbers of the state and the tape of a lane
  index_t delta_ = 0;                     // where in the workspace of a step that of the layers ends
  index_t draws_ = 0;                     // of a step; 0: no dropout
};

}  // namespace unroll::cells
