#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/readout.hpp"
#include "unroll/cells/recurrent_places.hpp"
#include "unroll/cells/recurrent_step.hpp"
#include "unroll/cells/slices.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::cells {

/// A recurrent network whose units do not listen to each other:
///
///   z = W_x x + b,   s'_u = f(s_u, z_u, v_u) for every unit u apart,   y = W_y s' + b_y
///
/// so that ds'/ds and ds'/dtheta have only blocks of a unit, which a step writes to its tape: all derivatives
/// are read from there. `Equations` is an aggregate of its `options` and says of one unit, in units of
/// hidden:
///
///   scalar, options_type   float or double; options with the members of simple_recurrent_options
///   const char* name       of the cell, for messages
///   index_t states         numbers of s
///   index_t gates          numbers of z
///   own                    an array of names, of the parameters of a unit beside W_x and b
///   void unit(const V* s, const V* v, V* next, V* J, V* D) const
///     with V a vector of units, v = [z; own]. WRITES s', its derivatives by s, states x states column-major,
///     and by v, states x (gates + own) column-major.
///   void init_own(T* to, key k) const       WRITES them, hidden numbers each, one behind the other
///   bool is_complex     may be there: s and z are one complex number each, s' an analytic function of them
///
/// State of a lane: `states` vectors of hidden numbers. Parameters: w_x (gates hidden x in), b, the own ones
/// (hidden each), then w_y (out x states hidden) and b_y; where out = 0, y is the first hidden numbers of s'.
/// A step costs lanes x hidden x (gates in + states out) multiply-adds and what f takes, a vjp twice that; of
/// a window the products with W_x and W_y are one each.
template <class Equations>
class diagonal_cell {
  using E = Equations;
  using T = typename E::scalar;

 public:
  using scalar = T;
  using options_type = typename E::options_type;  ///< sizes and loss
  using input = example<T>;

  explicit diagonal_cell(const options_type& options) : diagonal_cell(options, {}, true) {}

  const options_type& options() const { return f_.options; }
  dims size() const {
    return {w_y() + readout_.params(), lanes() * n(), lanes() * tape_size(), window_workspace(1), lanes()};
  }
  unroll::layout layout() const {
    unroll::layout l;
    l.add("w_x", G * hidden(), f_.options.in);
    l.add("b", G * hidden());
    for (const char* name : E::own) l.add(name, hidden());
    readout_.describe(l);
    return l;
  }
  /// Uniform in +-1/sqrt(hidden), but for the own parameters of the cell.
  void init(params<T> theta, key k) const {
    check_size(E::name, "theta", theta.size(), size().params);
    uniform_init(theta, 1 / std::sqrt(double(hidden())), k);
    if constexpr (requires { f_.init_own(theta.data(), k); }) f_.init_own(theta.data() + own(), k);
  }
  /// False when x or the target holds NaN or infinity; throws unroll::error on an invalid token or label.
  bool finite(const input& x) const { return input_.finite(E::name, x) && readout_.finite(E::name, x); }
  index_t scored(const input& x) const { return readout_.scored(x); }
  /// WRITES y of the states s, lane after lane.
  void output(params<const T> theta, unroll::state<const T> s, view<T> y) const {
    check_size(E::name, "y", y.size(), readout_.workspace(1));
    readout_.output(theta.data() + w_y(), read_by_loss(s.data(), state_stride()),
                    {y.data(), readout_.width(), lanes()});
  }
  /// The same cell over `lanes` lanes, and the part of an input that belongs to the lanes from `i` on.
  diagonal_cell with_lanes(index_t lanes) const {
    return diagonal_cell(cells::with_lanes(f_.options, lanes));
  }
  input lanes_from(const input& x, index_t i) const {
    return cells::lanes_from(x, i, f_.options.in, readout_.width());
  }

  /// The same cell as a layer of a stack (recurrent_cell::layer), to which it hands up all of its state. What
  /// follows takes `below`, where it is given, for x: in x lanes.
  diagonal_cell layer(const lane_strides& strides, bool last) const {
    return diagonal_cell(f_.options, strides, last);
  }
  /// Numbers of the state that a stack hands up as x of the next layer: all.
  index_t handed_up() const { return n(); }
  /// WRITES, or ADDS, W_x' dz to dx, in x (lanes x steps), from what vjp, lane_vjp or backward have left in
  /// `workspace`.
  void input_vjp(params<const T> theta, T* workspace, index_t steps, bool add, matrix<T> dx) const {
    linalg::gemm<T>(op::transpose, {theta.data(), G * hidden(), dx.rows}, op::none,
                    columns_of_z(workspace, steps), add, dx);
  }
  /// Where backward of a layer that is not the last finds the cotangents of its s', n x (lanes x steps).
  matrix<T> from_above(T* workspace, index_t steps) const { return columns_of_s(workspace, steps); }

  void step(const input& x, const edge<T>& e, matrix<const T> below = {}) const { run({&x, 1}, e, below); }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss_weight, dstate<T> ds,
           dparams<T> dtheta, matrix<const T> below = {}) const {
    T* dw = dtheta.data();
    const matrix<T> d = owed(x, e, dnext, dloss_weight, dw), dz = columns_of_z(e.workspace.data(), 1);
    for (index_t l = 0; l < lanes(); ++l)
      pull(jacobians(e, l), column(d, l), ds.empty() ? nullptr : ds.data() + l * state_stride(),
           column(dz, l), dw ? dw + own() : nullptr);
    if (dw) input_backward({&x, 1}, dz, dw, below, nullptr);
  }
  void factored_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
                    dparams<T> dtheta, view<T> dz) const {
    const matrix<T> d = owed(x, e, dnext, dloss, dtheta.data());
    std::fill(dz.begin(), dz.end(), T(0));
    for (index_t l = 0; l < lanes(); ++l) {
      T* to = dz.data() + l * (G + K) * hidden();
      pull(jacobians(e, l), column(d, l), ds.empty() ? nullptr : ds.data() + l * state_stride(), to,
           to + G * hidden());
    }
  }

  /// Workspace of a window: z of all steps, or its cotangents | the cotangents of s' | the readout's | the
  /// gathered inputs.
  index_t window_workspace(index_t steps) const {
    return (G * hidden() + n()) * lanes() * steps + readout_.workspace(steps) + input_.workspace(steps);
  }
  void forward(std::span<const input> xs, const window<T>& w, matrix<const T> below = {}) const {
    const index_t step = lanes() * state_stride();
    run(xs.first(std::size_t(w.steps)),
        {w.theta,
         {w.states, step},
         {w.states + step, step},
         {w.tape, lanes() * tape_stride()},
         w.loss,
         w.workspace,
         w.t},
        below);
  }
  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta, matrix<const T> below = {}) const {
    T *dw = dtheta.data(), *work = w.workspace.data();
    const matrix<T> d = columns_of_s(work, w.steps), dz = columns_of_z(work, w.steps);
    xs = xs.first(std::size_t(w.steps));
    if (last_) zero(d);  // otherwise the cotangents of s' stand there already: from_above()
    by_loss(xs, w.theta, w.states + lanes() * state_stride(), w.tape, in.loss_weight, work, dw);
    for (index_t k = d.cols - 1; k >= 0; --k) {
      T* const dsl = ds.data() + k % lanes() * state_stride();  // of s_{i+1}, then of s_i
      if (const T carry = in.carry ? in.carry[k / lanes()] : T(1); carry != T(0))
        linalg::axpy<T>(carry, dsl, column(d, k), n());
      std::fill_n(dsl, n(), T(0));
      pull(w.tape + k * tape_stride(), column(d, k), dsl, column(dz, k), dw ? dw + own() : nullptr);
    }
    if (dw) input_backward(xs, dz, dw, below, inputs_of(work, w.steps));
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss_out, matrix<const T> below = {},
           matrix<const T> dbelow = {}) const {
    const index_t h = hidden();
    const T* dw = dtheta.data();
    const matrix<T> dz = columns_of_z(e.workspace.data(), 1);
    if (dw)
      input_forward(dw, {&x, 1}, dz, below, nullptr);
    else
      zero(dz);
    if (dbelow.data)
      linalg::gemm<T>(op::none, {e.theta.data(), G * h, dbelow.rows}, op::none, dbelow, true, dz);
    for (index_t l = 0; l < lanes(); ++l) {
      const T *J = jacobians(e, l), *D = J + m * n();
      for (index_t a = 0; a < m; ++a)
        for (index_t u = 0; u < h; ++u) {
          T sum = 0;
          for (index_t b = 0; b < m && !ds.empty(); ++b)
            sum += J[(b * m + a) * h + u] * ds[l * state_stride() + b * h + u];
          for (index_t g = 0; g < (dw ? G + K : G); ++g)
            sum += D[slot(a, g) * h + u] *
                   (g < G ? dz.data[l * dz.stride + g * h + u] : dw[own() + (g - G) * h + u]);
          dnext[l * state_stride() + a * h + u] = sum;
        }
    }
    if (dloss_out)
      *dloss_out = readout_.jvp(e.theta.data() + w_y(), read_by_loss(e.next.data(), state_stride()),
                                dloss(e.tape.data(), 1), dw ? dw + w_y() : nullptr,
                                read_by_loss(dnext.data(), state_stride()), readouts(e.workspace.data(), 1));
  }

  index_t units() const { return hidden(); }
  bool units_apart() const { return true; }
  index_t complex_matrices() const { return complex; }
  /// [w_x b], which multiplies [x; 1], and the own parameters, which multiply 1.
  std::vector<weight_matrix> weight_matrices() const {
    const index_t h = hidden();
    std::vector<weight_matrix> all{{0, G * h, f_.options.in + 1, G * h}};
    if (K > 0) all.push_back({own(), K * h, 1, K * h});
    return all;
  }
  void diag_jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    for (index_t l = 0; l < lanes(); ++l) std::copy_n(jacobians(e, l), m * n(), J.data() + l * m * n());
  }
  void diag_factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d,
                    matrix<const T> below = {}) const {
    for (index_t l = 0, columns = a.size() / lanes(); l < lanes(); ++l)
      multiplied(x, l, below, a.data() + l * columns);
    for (index_t l = 0; l < lanes(); ++l)
      std::copy_n(jacobians(e, l) + m * n(), (G + K) * n(), d.data() + l * (G + K) * n());
  }

  void factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    const index_t rows = (G + K) * hidden(), columns = a.size() / lanes();
    std::fill(d.begin(), d.end(), T(0));
    for (index_t l = 0; l < lanes(); ++l)
      lane_factors(x, e, l, {}, a.data() + l * columns, {d.data() + l * rows * n(), n(), rows});
  }
  void jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    for (index_t l = 0; l < lanes(); ++l) lane_jacobian(e, l, J.data() + l * n() * n());
  }
  void immediate(const input& x, const const_edge<T>& e, view<T> M, index_t p0, index_t p1) const {
    const index_t P = size().params;
    for (index_t l = 0; l < lanes(); ++l)
      lane_immediate(x, e, l, {}, p0, p1, {M.data() + (l * P + p0) * n(), n(), p1 - p0});
  }

  /// WRITES ds'/ds of lane l to J, n x n for the n numbers of its state, column-major.
  void lane_jacobian(const const_edge<T>& e, index_t l, T* J) const {
    const index_t h = hidden();
    std::fill_n(J, n() * n(), T(0));
    for (index_t b = 0; b < m; ++b)
      for (index_t a = 0; a < m; ++a)
        for (index_t u = 0; u < h; ++u)
          J[(b * h + u) * n() + a * h + u] = jacobians(e, l)[(b * m + a) * h + u];
  }
  /// ADDS columns [p0, p1) of ds'/dtheta of lane l to M, n rows.
  void lane_immediate(const input& x, const const_edge<T>& e, index_t l, matrix<const T> below, index_t p0,
                      index_t p1, matrix<T> M) const {
    const index_t rows = G * hidden(), in = f_.options.in;
    for (index_t p = p0; p < std::min(p1, w_y()); ++p) {  // entry (p % rows, j) of [w_x b]
      const index_t j = p / rows, row = p < own() ? p % rows : rows + p - own();
      add_entry(e, l, row, j < in ? input_.at(x, below, l, j) : T(1), M.data + (p - p0) * M.stride);
    }
  }
  /// WRITES what the matrices multiply in lane l to a, and ADDS to d, n rows, the column of each row of each
  /// matrix.
  void lane_factors(const input& x, const const_edge<T>& e, index_t l, matrix<const T> below, T* a,
                    matrix<T> d) const {
    multiplied(x, l, below, a);
    for (index_t row = 0; row < (G + K) * hidden(); ++row)
      add_entry(e, l, row, T(1), d.data + row * d.stride);
  }
  /// WRITES ds'/dx of lane l to B, n x in, column-major.
  void lane_input_jacobian(const const_edge<T>& e, index_t l, T* B) const {
    const index_t h = hidden(), rows = G * h;
    std::fill_n(B, n() * f_.options.in, T(0));
    for (index_t j = 0; j < f_.options.in; ++j)
      for (index_t row = 0; row < rows; ++row) add_entry(e, l, row, e.theta[j * rows + row], B + j * n());
  }
  void row_norms(const input& x, const const_edge<T>& e, view<T> out) const {
    const index_t h = hidden();
    for (index_t l = 0; l < lanes(); ++l) {
      const T *D = jacobians(e, l) + m * n(), x2 = input_.squared_norm(x, l) + 1;
      for (index_t a = 0; a < m; ++a)
        for (index_t u = 0; u < h; ++u) {
          T sum = 0;
          for (index_t g = 0; g < G + K; ++g) {
            const T v = D[slot(a, g) * h + u];
            sum += v * v * (g < G ? x2 : T(1));
          }
          out[l * n() + a * h + u] = std::sqrt(sum);
        }
    }
  }
  void jacobian_mask(view<std::uint8_t> J) const {
    for (index_t k = 0; k < n() * n(); ++k) J[k] = k / n() % hidden() == k % n() % hidden();
  }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    for (index_t p = p0; p < p1; ++p)
      for (index_t i = 0; i < n(); ++i) mask[(p - p0) * n() + i] = p < w_y() && i % hidden() == p % hidden();
  }
  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta,
                matrix<const T> below = {}) const {
    const index_t P = strides_.params > 0 ? strides_.params : size().params;
    const matrix<T> dz = columns_of_z(e.workspace.data(), 1);
    for (index_t l = 0; l < lanes(); ++l) {
      T *dw = dtheta.data() + l * P, *dzl = column(dz, l);
      pull(jacobians(e, l), dnext.data() + l * state_stride(), nullptr, dzl, dw + own());
      if (below.data)
        affine_input<T>(below.rows, G * hidden(), 1)
            .backward(columns_of(below, l, 1), {dzl, G * hidden(), 1}, dw);
      else
        input_.backward_lane(x, l, dzl, dw);
    }
  }

 private:
  // Only the last layer of a stack has a readout.
  diagonal_cell(const options_type& options, const lane_strides& strides, bool last)
      : f_{options}, strides_(strides), last_(last) {
    check_options(E::name, options);
    if constexpr (requires { f_.check(); }) f_.check();
    input_ = affine_input<T>(options.in, G * hidden(), lanes());
    readout_ = last ? readout<T>(options.out == 0 ? hidden() : n(), options.out, options.loss, lanes())
                    : readout<T>(0, 0, options.loss, lanes());
  }

  static constexpr bool complex = requires { requires E::is_complex; };  // weights of [w_x b], too
  static constexpr index_t m = E::states, G = E::gates, K = index_t(std::size(E::own));
  static constexpr auto states = std::size_t(m), own_and_gates = std::size_t(G + K);

  index_t hidden() const { return f_.options.hidden; }
  index_t lanes() const { return f_.options.lanes; }
  index_t n() const { return m * hidden(); }  // numbers of the state of a lane
  // Where parameters begin; w_x does at 0.
  index_t own() const { return input_.params(); }
  index_t w_y() const { return own() + K * hidden(); }

  // Tape of a lane: J, units x m x m | D of [w_x b], G units x m | D of the own, K units x m | dloss/dy.
  index_t tape_size() const { return (m + G + K) * n() + readout_.width(); }
  const T* jacobians(const const_edge<T>& e, index_t l) const { return e.tape.data() + l * tape_stride(); }
  // From a lane to the next.
  index_t state_stride() const { return strides_.state > 0 ? strides_.state : n(); }
  index_t tape_stride() const { return strides_.state > 0 ? strides_.tape : tape_size(); }
  // Number a of s' by number g of [z; own], in D.
  static constexpr index_t slot(index_t a, index_t g) { return g < G ? a * G + g : m * G + a * K + (g - G); }
  // Of `steps` steps: dloss/dy in their tapes, and what the loss reads in their states.
  template <class U>
  matrix<U> dloss(U* tape, index_t steps) const {
    return {tape + (m + G + K) * n(), readout_.width(), lanes() * steps, tape_stride()};
  }
  template <class U>
  matrix<U> read_by_loss(U* s, index_t stride, index_t steps = 1) const {
    return {s, f_.options.out == 0 ? hidden() : n(), lanes() * steps, stride};
  }
  // The parts of the workspace of a window (window_workspace), of which that of one step is one.
  matrix<T> columns_of_z(T* workspace, index_t steps) const {
    return {workspace, G * hidden(), lanes() * steps};
  }
  matrix<T> columns_of_s(T* workspace, index_t steps) const {
    return {workspace + G * hidden() * lanes() * steps, n(), lanes() * steps};
  }
  T* readouts(T* workspace, index_t steps) const {
    return workspace + (G * hidden() + n()) * lanes() * steps;
  }
  T* inputs_of(T* workspace, index_t steps) const {
    return readouts(workspace, steps) + readout_.workspace(steps);
  }

  void input_forward(const T* w, std::span<const input> xs, matrix<T> z, matrix<const T> below,
                     T* workspace) const {
    if (below.data)
      input_.forward(w, below, z);
    else
      input_.forward(w, xs, z, workspace);
  }
  void input_backward(std::span<const input> xs, matrix<const T> dz, T* dw, matrix<const T> below,
                      T* workspace) const {
    if (below.data)
      input_.backward(below, dz, dw);
    else
      input_.backward(xs, dz, dw, workspace);
  }

  // Steps of which `e` is the first edge, the others behind it in memory.
  void run(std::span<const input> xs, const edge<T>& e, matrix<const T> below) const {
    const index_t h = hidden(), steps = index_t(xs.size());
    const T *w = e.theta.data(), *v = w + own();
    const matrix<T> z = columns_of_z(e.workspace.data(), steps);
    input_forward(w, xs, z, below, inputs_of(e.workspace.data(), steps));
    for (index_t k = 0; k < z.cols; ++k) {  // a lane of a step
      const T *zk = column(z, k), *s = k < lanes() ? e.s.data() + k * state_stride()
                                                   : e.next.data() + (k - lanes()) * state_stride();
      T *next = e.next.data() + k * state_stride(), *J = e.tape.data() + k * tape_stride(), *D = J + m * n();
      for_each_slice<T>(h, [&](auto u) UNROLL_INLINE {
        using V = decltype(u.load(s));
        V sv[states], vv[own_and_gates], nv[states], Jv[states * states], Dv[states * own_and_gates];
        for (index_t a = 0; a < m; ++a) sv[a] = u.load(s + a * h);
        for (index_t g = 0; g < G + K; ++g) vv[g] = u.load(g < G ? zk + g * h : v + (g - G) * h);
        f_.unit(sv, vv, nv, Jv, Dv);
        for (index_t a = 0; a < m; ++a) u.store(nv[a], next + a * h);
        for (index_t i = 0; i < m * m; ++i) u.store(Jv[i], J + i * h);
        for (index_t g = 0; g < G + K; ++g)
          for (index_t a = 0; a < m; ++a) u.store(Dv[g * m + a], D + slot(a, g) * h);
      });
    }
    if (last_)
      readout_.forward(w + w_y(), xs, read_by_loss(e.next.data(), state_stride(), steps),
                       dloss(e.tape.data(), steps), e.loss);
  }
  // The cotangents of s' by the losses of steps whose first s' is `next`: WRITES the rows that the readout
  // reads, of columns_of_s.
  void by_loss(std::span<const input> xs, params<const T> theta, const T* next, const T* tape,
               const T* weight, T* workspace, T* dw) const {
    if (!last_) return;
    const index_t steps = index_t(xs.size());
    readout_.backward(theta.data() + w_y(), xs, read_by_loss(next, state_stride(), steps), dloss(tape, steps),
                      weight, read_by_loss(columns_of_s(workspace, steps).data, n(), steps),
                      dw ? dw + w_y() : nullptr, readouts(workspace, steps));
  }

  // The cotangents of s' of a vjp, in columns_of_s.
  matrix<T> owed(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, T* dw) const {
    const matrix<T> d = columns_of_s(e.workspace.data(), 1);
    zero(d);
    by_loss({&x, 1}, e.theta, e.next.data(), e.tape.data(), &dloss, e.workspace.data(), dw);
    for (index_t l = 0; l < lanes() && !dnext.empty(); ++l)
      linalg::axpy<T>(1, dnext.data() + l * state_stride(), column(d, l), n());
    return d;
  }

  // Column of ds'/dtheta of lane l: ADDS v times D of row r of the matrices.
  void add_entry(const const_edge<T>& e, index_t l, index_t r, T v, T* column) const {
    const index_t h = hidden(), u = r % h;
    for (index_t a = 0; a < m; ++a)
      column[a * h + u] += jacobians(e, l)[m * n() + slot(a, r / h) * h + u] * v;
  }
  // What the matrices of lane l multiply, [x; 1] and 1.
  void multiplied(const input& x, index_t l, matrix<const T> below, T* a) const {
    a = input_.copy(x, below, l, a);
    *a++ = 1;
    if (K > 0) *a++ = 1;
  }
  // Of a lane with the derivatives J of its tape, from the cotangent d of s': ADDS to ds and dv, which may be
  // null, and WRITES dz.
  void pull(const T* J, const T* d, T* ds, T* dz, T* dv) const {
    const index_t h = hidden();
    const T* D = J + m * n();
    for_each_slice<T>(h, [&](auto u) UNROLL_INLINE {
      const auto times = [&](const T* column, index_t stride) UNROLL_INLINE {
        auto sum = u.load(d) * u.load(column);
        for (index_t a = 1; a < m; ++a) sum += u.load(d + a * h) * u.load(column + a * stride);
        return sum;
      };
      for (index_t b = 0; b < m && ds; ++b) u.store(u.load(ds + b * h) + times(J + b * m * h, h), ds + b * h);
      for (index_t g = 0; g < G; ++g) u.store(times(D + slot(0, g) * h, G * h), dz + g * h);
      for (index_t k = 0; k < K && dv; ++k)
        u.store(u.load(dv + k * h) + times(D + slot(0, G + k) * h, K * h), dv + k * h);
    });
  }

  Equations f_;
  lane_strides strides_;
  bool last_ = true;
  affine_input<T> input_;
  readout<T> readout_;
};

}  // namespace unroll::cells
