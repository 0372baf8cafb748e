#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/readout.hpp"
#include "unroll/cells/recurrent_jacobians.hpp"
#include "unroll/cells/recurrent_places.hpp"
#include "unroll/cells/recurrent_step.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::cells {

/// A recurrent network as a system:
///
///   z = W_x x + b,   u = W_h h,   s' = f(z + u, s)  or  f(z, u, s),   y = W_y h' + b_y
///
/// `Equations` is f with its derivatives (recurrent_step.hpp says what it has to have). What is the same for
/// every f is here: the input products, readouts and parameter gradients of a window, each at once; the loop
/// over its steps; where everything lies. The state of a lane is `states` vectors of hidden numbers, the
/// first of which is h. Parameters: w_h (gates hidden x hidden), w_x (gates hidden x in) and b, which have
/// the same rows and so are also one matrix that multiplies [h; x; 1]; then the cell's own; then w_y (out x
/// hidden) and b_y unless out = 0. A step costs lanes x hidden x (gates hidden + gates in + out)
/// multiply-adds, a vjp twice that.
template <class Equations>
class recurrent_cell : public recurrent_jacobians<Equations> {
  using E = Equations;
  using T = typename E::scalar;

 public:
  using scalar = T;
  using options_type = typename E::options_type;  ///< sizes and loss
  using input = example<T>;
  static constexpr const char* name = E::name;  ///< of the cell, for messages
  /// Whether all that moves s' is one matrix, [w_h w_x b], whose gradient is that of its product.
  static constexpr bool one_product = !E::apart && !requires(const E& f, matrix<const T> d, T* dw) {
    f.gradient(d, d, d, dw, dw);
  };

  explicit recurrent_cell(const options_type& options)
      : recurrent_cell(options, readout<T>(options.hidden, options.out, options.loss, options.lanes), {}) {}

  const options_type& options() const { return f_.options; }
  dims size() const {
    return {w_y() + readout_.params(), state_size(), tape_size(), step_workspace() + readout_.workspace(1),
            lanes()};
  }
  unroll::layout layout() const {
    unroll::layout l;
    l.add("w_h", E::gates * hidden(), hidden());
    l.add("w_x", E::gates * hidden(), f_.options.in);
    l.add("b", E::gates * hidden());
    if constexpr (requires { f_.describe_own(l); }) f_.describe_own(l);
    readout_.describe(l);
    return l;
  }
  /// Uniform in +-1/sqrt(hidden), every parameter; then what the cell adds to its biases.
  void init(params<T> theta, key k) const {
    check_size(E::name, "theta", theta.size(), size().params);
    uniform_init(theta, 1 / std::sqrt(double(hidden())), k);
    if constexpr (requires(T * b) { f_.init_biases(b); })
      f_.init_biases(theta.data() + own() - E::gates * hidden());
  }
  /// False when x or the target holds NaN or infinity; throws unroll::error on an invalid token or label.
  bool finite(const input& x) const { return input_.finite(E::name, x) && readout_.finite(E::name, x); }
  index_t scored(const input& x) const { return readout_.scored(x); }
  /// WRITES y of the states s, lane after lane.
  void output(params<const T> theta, unroll::state<const T> s, view<T> y) const {
    check_size(E::name, "y", y.size(), readout_.workspace(1));
    readout_.output(theta.data() + w_y(), h_of(s.data()), {y.data(), readout_.width(), lanes()});
  }

  /// The same cell over `lanes` lanes, and the part of an input that belongs to the lanes from `i` on.
  recurrent_cell with_lanes(index_t count) const {
    return recurrent_cell(cells::with_lanes(f_.options, count));
  }
  input lanes_from(const input& x, index_t i) const {
    return cells::lanes_from(x, i, f_.options.in, readout_.width());
  }

  /// The same cell as a layer of a stack: a lane lies in the memory of the stack as `strides` say, and only
  /// the last layer has a readout. What follows takes `below`, where it is given, for x: in x columns.
  recurrent_cell layer(const lane_strides& strides, bool last) const {
    const readout<T> none(0, 0, f_.options.loss, lanes());
    return recurrent_cell(f_.options, last ? readout_ : none, strides);
  }
  /// WRITES, or ADDS, W_x' dz to dx, in x (lanes x steps), from what vjp, lane_vjp or backward have left in
  /// `workspace`.
  void input_vjp(params<const T> theta, T* workspace, index_t steps, bool add, matrix<T> dx) const {
    const matrix<T> dz = rows_of(cotangents(workspace, steps), 0, E::gates * hidden());
    linalg::gemm<T>(op::transpose, {theta.data() + w_x(), dz.rows, dx.rows}, op::none, dz, add, dx);
  }
  /// Where backward of a layer that is not the last finds the cotangents of its h', hidden x (lanes x steps).
  matrix<T> from_above(T* workspace, index_t steps) const { return from_loss(cotangents(workspace, steps)); }

  void step(const input& x, const edge<T>& e, matrix<const T> below = {}) const { run({&x, 1}, e, below); }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta, matrix<const T> below = {}) const {
    const matrix<T> d = pull(x, e, dnext, dloss, ds, dtheta.data());
    if (T* dw = dtheta.data()) collect({&x, 1}, d, e.s.data(), e.tape.data(), dw, nullptr, below);
  }
  void factored_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
                    dparams<T> dtheta, view<T> dz) const requires(one_product) {
    const matrix<T> d = pull(x, e, dnext, dloss, ds, dtheta.data());
    for (index_t l = 0, rows = E::gates * hidden(); l < lanes(); ++l)
      std::copy_n(column(d, l), rows, dz.data() + l * rows);
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss, matrix<const T> below = {}, matrix<const T> dbelow = {}) const {
    const T* w = e.theta.data();
    const T* dw = dtheta.data();
    const matrix<T> d = cotangents(e.workspace.data());
    const matrix<T> dz = elementwise ? states(dnext.data()) : rows_of(d, 0, E::gates * hidden());
    const matrix<T> du = of_products(dz, e.workspace.data() + d.rows * d.cols);
    const recurrent_step<T> at = made(e);
    const recurrent_weights<T> dweights = dw ? weights(dw) : recurrent_weights<T>{};
    if (dw)
      input_forward(dw, {&x, 1}, dz, nullptr, below);
    else
      zero(dz);
    if (dbelow.data) linalg::gemm<T>(op::none, {w + w_x(), dz.rows, dbelow.rows}, op::none, dbelow, true, dz);
    if (E::apart) std::fill_n(du.data, du.rows * du.cols, T(0));
    if (dw) product(dweights, e.s.data(), true, du);
    if (!ds.empty()) product(at.w, ds.data(), true, du);
    f_.tangent(at, dweights, states(ds.data()), dz, du, states(dnext.data()));
    if (dloss)
      *dloss = readout_.jvp(w + w_y(), h_of(e.next.data()), outputs(e.tape.data()), dw ? dw + w_y() : nullptr,
                            h_of(dnext.data()), e.workspace.data() + step_workspace());
  }

  index_t window_workspace(index_t steps) const {
    return window_parts(steps) + readout_.workspace(steps) + input_.workspace(steps) +
           (transposes(steps) ? w_x() : 0);
  }

  void forward(std::span<const input> xs, const window<T>& w, matrix<const T> below = {}) const {
    run(xs.first(std::size_t(w.steps)), first_edge(w), below);
  }

  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta, matrix<const T> below = {}) const {
    const T* theta = w.theta.data();
    T* dw = dtheta.data();
    T* next = w.states + state_step();
    T* readout_workspace = w.workspace.data() + window_parts(w.steps);
    T* input_workspace = readout_workspace + readout_.workspace(w.steps);
    const matrix<T> d = cotangents(w.workspace.data(), w.steps);
    xs = xs.first(std::size_t(w.steps));
    if (last())  // otherwise the cotangents of h' stand there already: from_above()
      readout_.backward(theta + w_y(), xs, h_of(next, w.steps), outputs(w.tape, w.steps), in.loss_weight,
                        from_loss(d), dw ? dw + w_y() : nullptr, readout_workspace);
    recurrent_weights<T> u = weights(theta);
    if (transposes(w.steps)) {
      T* copy = input_workspace + input_.workspace(w.steps);
      linalg::transpose<T>({theta, E::gates * hidden(), hidden()}, {copy, hidden(), E::gates * hidden()});
      u.transposed = copy;
    }
    retreat(u, w, in.carry, d, ds.data());
    if (dw) collect(xs, d, w.states, w.tape, dw, input_workspace, below);
  }

  bool supports(hook k) const {
    if constexpr (requires { f_.shares_rows(); })
      if ((k == hook::factors || k == hook::diag_jacobian) && f_.shares_rows()) return false;
    return has_hook<recurrent_cell>(k);
  }
  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta,
                matrix<const T> below = {}) const {
    const index_t P = lane_params(size().params);
    const matrix<T> d = cotangents(e.workspace.data());
    std::fill_n(d.data, d.rows * d.cols, T(0));
    const recurrent_step<T> all = made(e);
    f_.backward(all, T(1), entering(dnext, e.workspace.data()), d,
                of_products(d, e.workspace.data() + d.rows * d.cols));
    for (index_t l = 0; l < lanes(); ++l) {
      const recurrent_step<T> at = all.lane(l);
      T* dw = dtheta.data() + l * P;
      recurrent_gradient(columns_of(d, l, 1), rows_of(at.s, 0, hidden()), at.tape, dw);
      if (below.data)
        affine_input<T>(below.rows, E::gates * hidden(), 1)
            .backward(columns_of(below, l, 1), {column(d, l), E::gates * hidden(), 1}, dw + w_x());
      else
        input_.backward_lane(x, l, column(d, l), dw + w_x());
    }
  }

 private:
  recurrent_cell(const options_type& options, const readout<T>& y, const lane_strides& strides)
      : recurrent_jacobians<E>(options, y.width(), strides), readout_(y) {
    check_options(E::name, options);
    if constexpr (requires { f_.check(); }) f_.check();
    input_ = affine_input<T>(options.in, E::gates * hidden(), lanes());
  }

  using recurrent_jacobians<E>::input_, recurrent_jacobians<E>::made;
  using places = recurrent_places<E>;
  using places::arguments, places::cotangents, places::elementwise, places::entering, places::f_,
      places::from_loss, places::h_of, places::hidden, places::kept, places::lane_params, places::lanes,
      places::of_products, places::outputs, places::own, places::placed, places::product_rows,
      places::state_size, places::state_step, places::states, places::step_workspace, places::tape_size,
      places::tape_step, places::transposes, places::w_x, places::w_y, places::weights, places::window_parts;
  // h reaches h' beside u
  static constexpr bool beside = E::apart || requires { requires E::beside; };

  // vjp but for the parameters in front of the readout's. Returns the cotangents of z, which lie in the
  // workspace; dw, all parameters, may be null.
  matrix<T> pull(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
                 T* dw) const {
    const matrix<T> d = cotangents(e.workspace.data());
    if (last())
      readout_.backward(e.theta.data() + w_y(), {&x, 1}, h_of(e.next.data()), outputs(e.tape.data()), &dloss,
                        from_loss(d), dw ? dw + w_y() : nullptr, e.workspace.data() + step_workspace());
    else
      zero(from_loss(d));
    const recurrent_step<T> at = made(e);
    const matrix<T> du = of_products(d, e.workspace.data() + d.rows * d.cols);
    const auto delta = entering(dnext, e.workspace.data());
    f_.backward(at, T(1), delta, d, du);
    if (ds.empty()) return d;
    if constexpr (elementwise) {
      through_product(at.w, du, true, h_of(ds.data()));
    } else {
      through_product(at.w, du, beside, rows_of(delta, 0, hidden()));
      add(delta, states(ds.data()));
    }
    return d;
  }

  // A window as the edge of its first step, behind which the others lie.
  edge<T> first_edge(const window<T>& w) const {
    return {w.theta,
            {w.states, state_size()},
            {w.states + state_step(), state_size()},
            {w.tape, tape_size()},
            w.loss,
            w.workspace,
            w.t};
  }

  // u = W_h h, or u += W_h h; s: a state, u: gates hidden x lanes.
  UNROLL_INLINE void product(const recurrent_weights<T>& w, const T* s, bool add, matrix<T> u) const {
    w.product(0, product_rows() / hidden(), h_of(s), add, rows_of(u, 0, product_rows()));
  }
  // dh = W_h' du, or dh += W_h' du; du: gates hidden x lanes, dh: hidden x lanes.
  UNROLL_INLINE void through_product(const recurrent_weights<T>& w, matrix<const T> du, bool add,
                                     matrix<T> dh) const {
    w.transposed_product(0, product_rows() / hidden(), rows_of(du, 0, product_rows()), add, dh);
  }

  // Steps of which `e` is the first edge, the others behind it in memory.
  void run(std::span<const input> xs, const edge<T>& e, matrix<const T> below) const {
    const T* theta = e.theta.data();
    const index_t steps = index_t(xs.size());
    input_forward(theta, xs, arguments(e.tape.data(), e.next.data(), steps), e.workspace.data(), below);
    advance(weights(theta), e, steps);
    if (last())
      readout_.forward(theta + w_y(), xs, h_of(e.next.data(), steps), outputs(e.tape.data(), steps), e.loss);
  }

  // Whether there is a readout; below in a stack there is none.
  bool last() const { return readout_.width() > 0; }

  // z = W_x x + b, or its tangent, with w all parameters.
  void input_forward(const T* w, std::span<const input> xs, matrix<T> z, T* workspace,
                     matrix<const T> below) const {
    if (below.data)
      input_.forward(w + w_x(), below, z);
    else
      input_.forward(w + w_x(), xs, z, workspace);
  }

  // From z to s', step after step.
  void advance(const recurrent_weights<T>& w, const edge<T>& e, index_t steps) const {
    const T* s = e.s.data();
    T* next = e.next.data();
    T* tape = e.tape.data();
    if constexpr (requires { f_.forward_one_lane(s, s, next, steps); })
      if (lanes() == 1 && !placed()) return f_.forward_one_lane(w.w_h, s, next, steps);
    for (; steps > 0; --steps, s = next, next += state_step(), tape += tape_step()) {
      const matrix<T> u = of_products(arguments(tape, next), e.workspace.data());
      product(w, s, !E::apart, u);
      f_.forward(w, states(s), kept(tape), u, states(next));
    }
  }

  // The steps of a window backwards; ds, a state, is the cotangent of s_{i+1}, then of s_i. carry: one a
  // step, or null; d: cotangents hidden x (lanes x steps).
  void retreat(const recurrent_weights<T>& w, const window<T>& steps, const T* carry, matrix<T> d,
               T* ds) const {
    if constexpr (requires { f_.backward_one_lane(ds, carry, ds, ds, ds, state_size()); })
      if (lanes() == 1 && !placed() && w.transposed)
        return f_.backward_one_lane(w.transposed, carry, steps.states + state_size(), d.data, ds,
                                    steps.steps);
    T* apart = d.data + d.rows * d.cols;
    for (index_t i = steps.steps - 1; i >= 0; --i) {
      const T* s = steps.states + i * state_step();
      const matrix<T> di = columns_of(d, i * lanes(), lanes()), du = of_products(di, apart);
      f_.backward({w, states(s), states(s + state_step()), kept(steps.tape + i * tape_step())},
                  carry ? carry[i] : T(1), states(ds), di, du);
      through_product(w, du, beside, h_of(ds));
    }
  }

  // ADDS the parameter gradient of the steps whose cotangents are d, cotangents hidden x (lanes x steps), to
  // dw, all parameters. s, tape: of all steps; workspace: input_.workspace(steps) numbers.
  void collect(std::span<const input> xs, matrix<T> d, const T* s, const T* tape, T* dw, T* workspace,
               matrix<const T> below) const {
    const index_t steps = index_t(xs.size());
    recurrent_gradient(d, h_of(s, steps), kept(tape, steps), dw);
    const matrix<T> dz = rows_of(d, 0, E::gates * hidden());
    if (below.data)
      input_.backward(below, dz, dw + w_x());
    else
      input_.backward(xs, dz, dw + w_x(), workspace);
  }
  // That of w_h and the cell's own; h: hidden x columns, d and tape: as many columns.
  void recurrent_gradient(matrix<const T> d, matrix<const T> h, matrix<const T> tape, T* dw) const {
    if constexpr (requires { f_.gradient(d, h, tape, dw, dw); })
      f_.gradient(d, h, tape, dw, dw + own());
    else
      linalg::gemm<T>(op::none, d, op::transpose, h, true, {dw, E::gates * hidden(), hidden()});
  }

  readout<T> readout_;
};

}  // namespace unroll::cells
