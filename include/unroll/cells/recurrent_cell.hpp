#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/readout.hpp"
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
class recurrent_cell {
  using E = Equations;
  using T = typename E::scalar;

 public:
  using scalar = T;
  using options_type = typename E::options_type;  ///< sizes and loss
  using input = example<T>;

  explicit recurrent_cell(const options_type& options) : f_{options} {
    check_options(E::name, options);
    if constexpr (requires { f_.check(); }) f_.check();
    input_ = affine_input<T>(options.in, E::gates * hidden(), lanes());
    readout_ = readout<T>(hidden(), options.out, options.loss, lanes());
  }

  const options_type& options() const { return f_.options; }
  dims size() const {
    return {w_y() + readout_.params(), state_size(), lanes() * tape_stride(),
            step_workspace() + readout_.workspace(1), lanes()};
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
  recurrent_cell with_lanes(index_t lanes) const {
    return recurrent_cell(cells::with_lanes(f_.options, lanes));
  }
  input lanes_from(const input& x, index_t i) const {
    return cells::lanes_from(x, i, f_.options.in, readout_.width());
  }

  void step(const input& x, const edge<T>& e) const { run({&x, 1}, e); }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const T* w = e.theta.data();
    T* dw = dtheta.data();
    const matrix<T> d = cotangents(e.workspace.data());
    readout_.backward(w + w_y(), {&x, 1}, h_of(e.next.data()), outputs(e.tape.data()), &dloss, from_loss(d),
                      dw ? dw + w_y() : nullptr, e.workspace.data() + step_workspace());
    const recurrent_step<T> at = made(e);
    const matrix<T> du = of_products(d, e.workspace.data() + d.rows * d.cols);
    const auto delta = entering(dnext, e.workspace.data());
    f_.backward(at, T(1), delta, d, du);
    if (!ds.empty()) {
      if constexpr (elementwise) {
        through_product(at.w, du, true, h_of(ds.data()));
      } else {
        through_product(at.w, du, beside, rows_of(delta, 0, hidden()));
        linalg::axpy<T>(1, delta.data, ds.data(), ds.size());
      }
    }
    if (dw) collect({&x, 1}, d, e.s.data(), e.tape.data(), dw, nullptr);
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    const T* w = e.theta.data();
    const T* dw = dtheta.data();
    const matrix<T> d = cotangents(e.workspace.data());
    const matrix<T> dz = elementwise ? states(dnext.data()) : rows_of(d, 0, E::gates * hidden());
    const matrix<T> du = of_products(dz, e.workspace.data() + d.rows * d.cols);
    const recurrent_step<T> at = made(e);
    const recurrent_weights<T> dweights = dw ? weights(dw) : recurrent_weights<T>{};
    if (dw)
      input_.forward(dw + w_x(), {&x, 1}, dz, nullptr);
    else
      std::fill_n(dz.data, dz.stride * dz.cols, T(0));
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

  void forward(std::span<const input> xs, const window<T>& w) const {
    run(xs.first(std::size_t(w.steps)), {w.theta,
                                         {w.states, state_size()},
                                         {w.states + state_size(), state_size()},
                                         {w.tape, lanes() * tape_stride()},
                                         w.loss,
                                         w.workspace,
                                         w.t});
  }

  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const {
    const T* theta = w.theta.data();
    T* dw = dtheta.data();
    T* next = w.states + state_size();
    T* readout_workspace = w.workspace.data() + window_parts(w.steps);
    T* input_workspace = readout_workspace + readout_.workspace(w.steps);
    const matrix<T> d = cotangents(w.workspace.data(), w.steps);
    xs = xs.first(std::size_t(w.steps));
    readout_.backward(theta + w_y(), xs, h_of(next, w.steps), outputs(w.tape, w.steps), in.loss_weight,
                      from_loss(d), dw ? dw + w_y() : nullptr, readout_workspace);
    recurrent_weights<T> u = weights(theta);
    if (transposes(w.steps)) {
      T* copy = input_workspace + input_.workspace(w.steps);
      linalg::transpose<T>({theta, E::gates * hidden(), hidden()}, {copy, hidden(), E::gates * hidden()});
      u.transposed = copy;
    }
    retreat(u, w, in.carry, d, ds.data());
    if (dw) collect(xs, d, w.states, w.tape, dw, input_workspace);
  }

  void jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const recurrent_step<T> at = made(e);
    const index_t block = E::states * hidden() * E::states * hidden();
    for (index_t l = 0; l < lanes(); ++l) f_.jacobian(at.lane(l), J.data() + l * block, e.workspace.data());
  }

  void immediate(const input& x, const const_edge<T>& e, view<T> M, index_t p0, index_t p1) const {
    const index_t h = hidden(), rows = E::gates * h, n = E::states * h;
    const index_t P = size().params, end = std::min(p1, w_y());
    const recurrent_step<T> all = made(e);
    for (index_t l = 0; l < lanes(); ++l) {
      const recurrent_step<T> at = all.lane(l);
      for (index_t p = p0; p < end;) {  // parameter p is entry (i, j)
        const index_t j = p / rows, first = p - j * rows, last = std::min(rows, end - j * rows);
        const T v = j < h ? at.s.data[j] : j < h + f_.options.in ? input_.at(x, l, j - h) : T(1);
        for (index_t i = first; i < last; ++i, ++p) f_.immediate(at, i, j, v, M.data() + (l * P + p) * n);
      }
    }
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
      for (index_t i = 0; i < n; ++i) J[j * n + i] = j < h || i % h == j % h;
  }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {  // weights of a unit reach it
    const index_t h = hidden(), n = E::states * h;
    for (index_t p = p0; p < p1; ++p) {
      bool every = false;
      if constexpr (requires { f_.reaches_every_unit(p); }) every = f_.reaches_every_unit(p % (E::gates * h));
      for (index_t i = 0; i < n; ++i) mask[(p - p0) * n + i] = p < w_y() && (every || i % h == p % h);
    }
  }

  bool supports(hook k) const {
    if constexpr (requires { f_.shares_rows(); })
      if ((k == hook::factors || k == hook::diag_jacobian) && f_.shares_rows()) return false;
    return has_hook<recurrent_cell>(k);
  }
  /// [w_h w_x b], which multiplies [h; x; 1]; where u stands apart, w_h, [w_x b] and what the cell has of its
  /// own.
  std::vector<weight_matrix> weight_matrices() const {
    const auto all = matrices();
    return {all.begin(), all.end()};
  }
  void factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    const index_t h = hidden(), n = E::states * h;
    std::fill(d.begin(), d.end(), T(0));
    T *al = a.data(), *column = d.data();
    const recurrent_step<T> all = made(e);
    for (index_t l = 0; l < lanes(); ++l) {
      const recurrent_step<T> at = all.lane(l);
      al = multiplied(x, at, l, al);
      for (const weight_matrix& w : matrices()) {
        const index_t j = w.first / (E::gates * h);  // of [h; x; 1; own], any that multiplies this matrix
        for (index_t i = 0; i < w.rows; ++i, column += n) f_.immediate(at, i, j, T(1), column);
      }
    }
  }

  index_t units() const { return hidden(); }
  bool units_apart() const { return false; }  // they listen to each other by W_h
  void diag_jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const recurrent_step<T> all = made(e);
    const index_t block = E::states * E::states * hidden();
    for (index_t l = 0; l < lanes(); ++l) f_.diag_jacobian(all.lane(l), J.data() + l * block);
  }
  void diag_factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    const index_t h = hidden();
    T *al = a.data(), *to = d.data(), *column = e.workspace.data();
    const recurrent_step<T> all = made(e);
    for (index_t l = 0; l < lanes(); ++l) {
      const recurrent_step<T> at = all.lane(l);
      al = multiplied(x, at, l, al);
      for (const weight_matrix& w : matrices()) {
        for (index_t i = 0; i < w.rows; ++i) {
          for (index_t k = i % h; k < E::states * h; k += h) column[k] = 0;
          f_.immediate(at, i, w.first / (E::gates * h), T(1), column);
          for (index_t k = 0; k < E::states; ++k) to[k * w.rows + i] = column[k * h + i % h];
        }
        to += w.rows * E::states;
      }
    }
  }

  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta) const {
    const index_t P = size().params;
    const matrix<T> d = cotangents(e.workspace.data());
    std::fill_n(d.data, d.rows * d.cols, T(0));
    const recurrent_step<T> all = made(e);
    f_.backward(all, T(1), entering(dnext, e.workspace.data()), d,
                of_products(d, e.workspace.data() + d.rows * d.cols));
    for (index_t l = 0; l < lanes(); ++l) {
      const recurrent_step<T> at = all.lane(l);
      T* dw = dtheta.data() + l * P;
      recurrent_gradient(columns_of(d, l, 1), rows_of(at.s, 0, hidden()), at.tape, dw);
      input_.backward_lane(x, l, column(d, l), dw + w_x());
    }
  }

 private:
  static constexpr bool elementwise = E::taped == 0;  // s' = f(z + u)
  // h reaches h' beside u
  static constexpr bool beside = E::apart || requires { requires E::beside; };

  auto matrices() const {
    const index_t h = hidden(), rows = E::gates * h, x = f_.options.in + 1;
    if constexpr (E::apart)
      return std::array<weight_matrix, 3>{
          {{0, rows, h, rows}, {w_x(), rows, x, rows}, {own(), w_y() - own(), 1, w_y() - own()}}};
    else
      return std::array<weight_matrix, 1>{{{0, rows, h + x, rows}}};
  }

  // What the matrices of lane l multiply, [h; x; 1] or h, [x; 1], 1; returns the end of a.
  T* multiplied(const input& x, const recurrent_step<T>& at, index_t l, T* a) const {
    a = std::copy_n(at.s.data, hidden(), a);
    for (index_t j = 0; j < f_.options.in; ++j) *a++ = input_.at(x, l, j);
    *a++ = 1;
    if (E::apart) *a++ = 1;
    return a;
  }

  index_t hidden() const { return f_.options.hidden; }
  index_t lanes() const { return f_.options.lanes; }
  index_t n() const { return hidden() * lanes(); }
  index_t state_size() const { return E::states * n(); }
  index_t tape_stride() const { return E::taped * hidden() + readout_.width(); }
  // Where parameters begin; w_h does at 0.
  index_t w_x() const { return E::gates * hidden() * hidden(); }
  index_t own() const { return w_x() + input_.params(); }
  index_t w_y() const {
    if constexpr (requires { f_.own_params(); }) return own() + f_.own_params();
    return own();
  }
  index_t product_rows() const {
    if constexpr (requires { f_.product_gates(); }) return f_.product_gates() * hidden();
    return E::gates * hidden();
  }

  // Workspace of a step: d | du if it is apart | the cotangent of s', which backward changes | the readout's.
  index_t step_workspace() const { return window_parts(1) + (elementwise ? 0 : state_size()); }
  // Workspace of a window: d of all steps | du if it is apart | the readout's | the gathered inputs | W_h'.
  index_t window_parts(index_t steps) const {
    return E::cotangents * n() * steps + (E::apart ? E::gates * n() : 0);
  }
  // Whether backward reads W_h' from a copy, whose columns lie in order: with several lanes always, with one
  // only where W_h stays in the second-level cache and there are steps enough to pay for the copy.
  bool transposes(index_t steps) const {
    return lanes() >= 4 || (hidden() <= (E::gates == 1 ? 256 : 128) && steps >= (E::gates == 1 ? 8 : 16));
  }

  // theta: all parameters.
  recurrent_weights<T> weights(const T* theta) const { return {theta, theta + own(), hidden(), E::gates}; }
  recurrent_step<T> made(const const_edge<T>& e) const {
    return {weights(e.theta.data()), states(e.s.data()), states(e.next.data()), kept(e.tape.data())};
  }
  // States, tapes and cotangents of `steps` steps side by side, as many numbers as size() says for each; a
  // column is a lane of a step.
  template <class U>
  matrix<U> states(U* s, index_t steps = 1) const {
    return {s, E::states * hidden(), lanes() * steps};
  }
  template <class U>
  matrix<U> h_of(U* s, index_t steps = 1) const {
    return {s, hidden(), lanes() * steps, E::states * hidden()};
  }
  template <class U>
  matrix<U> kept(U* tape, index_t steps = 1) const {
    return {tape, E::taped * hidden(), lanes() * steps, tape_stride()};
  }
  template <class U>
  matrix<U> outputs(U* tape, index_t steps = 1) const {
    return {tape + E::taped * hidden(), readout_.width(), lanes() * steps, tape_stride()};
  }
  matrix<T> arguments(T* tape, T* next, index_t steps = 1) const {  // z
    return elementwise ? states(next, steps) : rows_of(kept(tape, steps), 0, E::gates * hidden());
  }
  matrix<T> cotangents(T* d, index_t steps = 1) const {
    return {d, E::cotangents * hidden(), lanes() * steps};
  }
  // The rows of d, cotangents hidden x columns, where that of the loss stands.
  matrix<T> from_loss(matrix<T> d) const { return rows_of(d, d.rows - hidden(), hidden()); }
  // Where u lies, its tangent and its cotangent, gates hidden x lanes: with those of z, in d, or in memory of
  // its own.
  matrix<T> of_products(matrix<T> d, T* apart) const {
    if (E::apart) return {apart, E::gates * hidden(), lanes()};
    return d;
  }
  // The cotangent of s' as backward wants it, where it changes it in its part of the workspace of a step.
  auto entering(dstate<const T> dnext, T* workspace) const {
    if constexpr (elementwise) {
      return states(dnext.data());
    } else {
      const matrix<T> ds = states(workspace + window_parts(1));
      if (dnext.empty())
        std::fill_n(ds.data, state_size(), T(0));
      else
        std::copy(dnext.begin(), dnext.end(), ds.data);
      return ds;
    }
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
  void run(std::span<const input> xs, const edge<T>& e) const {
    const T* theta = e.theta.data();
    const index_t steps = index_t(xs.size());
    input_.forward(theta + w_x(), xs, arguments(e.tape.data(), e.next.data(), steps), e.workspace.data());
    advance(weights(theta), e, steps);
    readout_.forward(theta + w_y(), xs, h_of(e.next.data(), steps), outputs(e.tape.data(), steps), e.loss);
  }

  // From z to s', step after step.
  void advance(const recurrent_weights<T>& w, const edge<T>& e, index_t steps) const {
    const T* s = e.s.data();
    T* next = e.next.data();
    T* tape = e.tape.data();
    if constexpr (requires { f_.forward_one_lane(s, s, next, steps); })
      if (lanes() == 1) return f_.forward_one_lane(w.w_h, s, next, steps);
    for (; steps > 0; --steps, s = next, next += state_size(), tape += lanes() * tape_stride()) {
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
      if (lanes() == 1 && w.transposed)
        return f_.backward_one_lane(w.transposed, carry, steps.states + state_size(), d.data, ds,
                                    steps.steps);
    T* apart = d.data + d.rows * d.cols;
    for (index_t i = steps.steps - 1; i >= 0; --i) {
      const T* s = steps.states + i * state_size();
      const matrix<T> di = columns_of(d, i * lanes(), lanes()), du = of_products(di, apart);
      f_.backward({w, states(s), states(s + state_size()), kept(steps.tape + i * lanes() * tape_stride())},
                  carry ? carry[i] : T(1), states(ds), di, du);
      through_product(w, du, beside, h_of(ds));
    }
  }

  // ADDS the parameter gradient of the steps whose cotangents are d, cotangents hidden x (lanes x steps), to
  // dw, all parameters. s, tape: of all steps; workspace: input_.workspace(steps) numbers.
  void collect(std::span<const input> xs, matrix<T> d, const T* s, const T* tape, T* dw, T* workspace) const {
    const index_t steps = index_t(xs.size());
    recurrent_gradient(d, h_of(s, steps), kept(tape, steps), dw);
    input_.backward(xs, rows_of(d, 0, E::gates * hidden()), dw + w_x(), workspace);
  }
  // That of w_h and the cell's own; h: hidden x columns, d and tape: as many columns.
  void recurrent_gradient(matrix<const T> d, matrix<const T> h, matrix<const T> tape, T* dw) const {
    if constexpr (requires { f_.gradient(d, h, tape, dw, dw); })
      f_.gradient(d, h, tape, dw, dw + own());
    else
      linalg::gemm<T>(op::none, d, op::transpose, h, true, {dw, E::gates * hidden(), hidden()});
  }

  Equations f_;
  affine_input<T> input_;
  readout<T> readout_;
};

}  // namespace unroll::cells
