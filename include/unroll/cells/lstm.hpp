#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/readout.hpp"
#include "unroll/cells/slices.hpp"
#include "unroll/core/block.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::cells {

struct lstm_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units; the state has twice as many numbers
  index_t out = 1;      ///< size of y; 0: y = h' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;       ///< independent sequences side by side
  double forget_bias = 0;  ///< what init() adds to the bias of f; 1 or more keeps memory early in training
};

/// Long short-term memory (Hochreiter and Schmidhuber, 1997) with forget gate (Gers et al., 2000).
///
///   (i, f, g, o) = W_x x + b + W_h h, then logistic for i, f, o and tanh for g
///   c' = f c + i g      h' = o tanh(c')      y = W_y h' + b_y
///
/// The state of a lane is [h; c]. Parameters: w_h (4 hidden x hidden, rows i, f, g, o as in PyTorch), w_x
/// (4 hidden x in), b, then w_y and b_y unless out = 0. Since w_h, w_x and b have the same rows they are also
/// one matrix W that multiplies [h; x; 1]. Everything about one step costs lanes x hidden x
/// (4 hidden + 4 in + out) multiply-adds, a vjp twice that.
template <class T>
class lstm {
 public:
  using scalar = T;
  using input = example<T>;

  explicit lstm(const lstm_options& options) : o_(options) {
    check_options("lstm", o_);
    input_ = affine_input<T>(o_.in, 4 * o_.hidden, o_.lanes);
    readout_ = readout<T>(o_.hidden, o_.out, o_.loss, o_.lanes);
  }

  const lstm_options& options() const { return o_; }
  dims size() const {
    return {w_y() + readout_.params(), 2 * n(), o_.lanes * tape_stride(), 6 * n() + readout_.scratch(1),
            o_.lanes};
  }
  unroll::layout layout() const {
    unroll::layout l;
    l.add("w_h", 4 * o_.hidden, o_.hidden);
    l.add("w_x", 4 * o_.hidden, o_.in);
    l.add("b", 4 * o_.hidden);
    readout_.describe(l);
    return l;
  }
  /// Uniform in +-1/sqrt(hidden), every parameter; then adds forget_bias to the bias of f.
  void init(params<T> theta, key k) const {
    check_size("lstm", "theta", theta.size(), size().params);
    uniform_init(theta, 1 / std::sqrt(double(o_.hidden)), k);
    T* b = theta.data() + w_x() + 4 * o_.hidden * o_.in;
    for (index_t i = o_.hidden; i < 2 * o_.hidden; ++i) b[i] += T(o_.forget_bias);
  }
  /// False when x or the target holds NaN or infinity; throws unroll::error on an invalid token or label.
  bool finite(const input& x) const { return input_.finite("lstm", x) && readout_.finite("lstm", x); }
  index_t scored(const input& x) const { return readout_.scored(x); }
  /// WRITES y of the states s, lane after lane.
  void output(params<const T> theta, state<const T> s, view<T> y) const {
    check_size("lstm", "y", y.size(), readout_.scratch(1));
    readout_.output(theta.data() + w_y(), hiddens(s.data()), {y.data(), readout_.width(), o_.lanes});
  }

  /// The same cell over `lanes` lanes, and the part of an input that belongs to the lanes from `i` on.
  lstm with_lanes(index_t lanes) const { return lstm(cells::with_lanes(o_, lanes)); }
  input lanes_from(const input& x, index_t i) const {
    return cells::lanes_from(x, i, o_.in, readout_.width());
  }

  void step(const input& x, const edge<T>& e) const {
    const T* w = e.theta.data();
    input_.forward(w + w_x(), {&x, 1}, gates(e.tape.data()), nullptr);
    update(w, e.s.data(), e.tape.data(), e.next.data());
    readout_.forward(w + w_y(), {&x, 1}, hiddens(e.next.data()), outputs(e.tape.data()), e.loss);
  }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const T* w = e.theta.data();
    T* dw = dtheta.data();
    T* d = e.scratch.data();
    T* delta = d + 4 * n();
    readout_.backward(w + w_y(), {&x, 1}, hiddens(e.next.data()), outputs(e.tape.data()), &dloss,
                      from_loss(d), dw ? dw + w_y() : nullptr, delta + 2 * n());
    enter(dnext, delta);
    through_gates(e.s.data(), e.tape.data(), T(1), delta, d);
    if (!ds.empty()) {
      linalg::gemm<T>(op::transpose, w_h(w), op::none, cotangents(d), false, hiddens(delta));
      linalg::axpy<T>(1, delta, ds.data(), ds.size());
    }
    if (dw) collect({&x, 1}, e.s.data(), d, dw, nullptr);
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    const index_t h = o_.hidden;
    const T* w = e.theta.data();
    const T* dw = dtheta.data();
    const matrix<T> p = cotangents(e.scratch.data());  // tangents of the arguments of the gates
    if (dw) {
      input_.forward(dw + w_x(), {&x, 1}, p, nullptr);
      linalg::gemm<T>(op::none, w_h(dw), op::none, hiddens(e.s.data()), true, p);
    } else {
      std::fill_n(p.data, 4 * n(), T(0));
    }
    if (!ds.empty()) linalg::gemm<T>(op::none, w_h(w), op::none, hiddens(ds.data()), true, p);
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> q = of_lane(e.tape.data(), l);
      const T* s = e.s.data() + 2 * h * l;
      const T* s_t = ds.empty() ? nullptr : ds.data() + 2 * h * l;
      const T* pl = p.data + 4 * h * l;
      T* next = dnext.data() + 2 * h * l;
      for (index_t j = 0; j < h; ++j) {
        const slopes k = slopes_of(q, s, j);
        const T c = k.i * pl[j] + k.f * pl[h + j] + k.g * pl[2 * h + j] + (s_t ? q.f[j] * s_t[h + j] : T(0));
        next[h + j] = c;
        next[j] = k.c * c + k.o * pl[3 * h + j];
      }
    }
    if (dloss)
      *dloss = readout_.jvp(w + w_y(), hiddens(e.next.data()), outputs(e.tape.data()),
                            dw ? dw + w_y() : nullptr, hiddens(dnext.data()), e.scratch.data() + 4 * n());
  }

  // scratch of a window: the cotangents of all steps | the readout's | the gathered inputs | W_h'
  index_t window_scratch(index_t steps) const {
    return 4 * n() * steps + readout_.scratch(steps) + input_.scratch(steps) +
           (transposes(steps) ? 4 * o_.hidden * o_.hidden : 0);
  }

  void forward(std::span<const input> xs, const window<T>& w) const {
    const T* theta = w.theta.data();
    xs = xs.first(std::size_t(w.steps));
    input_.forward(theta + w_x(), xs, gates(w.tape, w.steps), w.scratch.data());
    for (index_t t = 0; t < w.steps; ++t) {
      T* s = w.states + 2 * n() * t;
      update(theta, s, w.tape + t * o_.lanes * tape_stride(), s + 2 * n());
    }
    readout_.forward(theta + w_y(), xs, hiddens(w.states + 2 * n(), w.steps), outputs(w.tape, w.steps),
                     w.loss);
  }

  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const {
    const T* theta = w.theta.data();
    T* dw = dtheta.data();
    T* d = w.scratch.data();
    T* readout_scratch = d + 4 * n() * w.steps;
    T* input_scratch = readout_scratch + readout_.scratch(w.steps);
    xs = xs.first(std::size_t(w.steps));
    readout_.backward(theta + w_y(), xs, hiddens(w.states + 2 * n(), w.steps), outputs(w.tape, w.steps),
                      in.loss_weight, from_loss(d, w.steps), dw ? dw + w_y() : nullptr, readout_scratch);
    matrix<const T> wt = w_h(theta);
    const bool copied = transposes(w.steps);
    if (copied) {
      T* copy = input_scratch + input_.scratch(w.steps);
      linalg::transpose<T>(wt, {copy, o_.hidden, 4 * o_.hidden});
      wt = {copy, o_.hidden, 4 * o_.hidden};
    }
    for (index_t t = w.steps - 1; t >= 0; --t) {  // ds: cotangent of s_{t+1}, then of s_t
      T* dt = d + 4 * n() * t;
      through_gates(w.states + 2 * n() * t, w.tape + t * o_.lanes * tape_stride(),
                    in.carry ? in.carry[t] : T(1), ds.data(), dt);
      linalg::gemm<T>(copied ? op::none : op::transpose, wt, op::none, cotangents(dt), false,
                      hiddens(ds.data()));
    }
    if (dw) collect(xs, w.states, d, dw, input_scratch);
  }

  void jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const index_t h = o_.hidden;
    const T* w = e.theta.data();
    std::fill(J.begin(), J.end(), T(0));
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> q = of_lane(e.tape.data(), l);
      T* block = J.data() + 4 * h * h * l;
      for (index_t i = 0; i < h; ++i) {
        const slopes k = slopes_of(q, e.s.data() + 2 * h * l, i);
        for (index_t j = 0; j < h; ++j) {
          const T* u = w + 4 * h * j + i;
          const T c = k.i * u[0] + k.f * u[h] + k.g * u[2 * h];
          block[2 * h * j + h + i] = c;
          block[2 * h * j + i] = k.c * c + k.o * u[3 * h];
        }
        block[2 * h * (h + i) + h + i] = q.f[i];
        block[2 * h * (h + i) + i] = k.c * q.f[i];
      }
    }
  }

  void immediate(const input& x, const const_edge<T>& e, view<T> M, index_t p0, index_t p1) const {
    const index_t h = o_.hidden, P = size().params;
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> q = of_lane(e.tape.data(), l);
      const T* s = e.s.data() + 2 * h * l;
      for (index_t p = p0; p < std::min(p1, w_y()); ++p) {  // p = W(row, j)
        const index_t row = p % (4 * h), j = p / (4 * h), i = row % h, gate = row / h;
        const T v = j < h ? s[j] : j < h + o_.in ? input_.at(x, l, j - h) : T(1);
        const slopes k = slopes_of(q, s, i);
        const T c = gate == 0 ? k.i : gate == 1 ? k.f : gate == 2 ? k.g : T(0);
        T* column = M.data() + (l * P + p) * 2 * h;
        column[i] += (gate == 3 ? k.o : k.c * c) * v;
        column[h + i] += c * v;
      }
    }
  }

  void row_norms(const input& x, const const_edge<T>& e, view<T> out) const {
    const index_t h = o_.hidden;
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> q = of_lane(e.tape.data(), l);
      const T* s = e.s.data() + 2 * h * l;
      const T norm = std::sqrt(linalg::dot<T>(s, s, h) + input_.squared_norm(x, l) + 1);
      for (index_t i = 0; i < h; ++i) {
        const slopes k = slopes_of(q, s, i);
        const T c2 = k.i * k.i + k.f * k.f + k.g * k.g;
        out[2 * h * l + i] = norm * std::sqrt(k.c * k.c * c2 + k.o * k.o);
        out[2 * h * l + h + i] = norm * std::sqrt(c2);
      }
    }
  }

  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta) const {
    const index_t h = o_.hidden, P = size().params;
    T* d = e.scratch.data();
    T* delta = d + 4 * n();
    std::fill_n(d, 4 * n(), T(0));
    enter(dnext, delta);
    through_gates(e.s.data(), e.tape.data(), T(1), delta, d);
    for (index_t l = 0; l < o_.lanes; ++l) {
      T* dw = dtheta.data() + l * P;
      linalg::ger<T>(1, d + 4 * h * l, e.s.data() + 2 * h * l, w_h(dw));
      input_.backward_lane(x, l, d + 4 * h * l, dw + w_x());
    }
  }

 private:
  // One lane of the tape; tc = tanh(c').
  template <class U>
  struct lane {
    U *i, *f, *g, *o, *tc;
  };
  // Derivatives of one c' by the arguments of its i, f and g, of h' by the argument of o, and of h' by c'.
  struct slopes {
    T i, f, g, o, c;
  };
  static slopes slopes_of(const lane<const T>& q, const T* s, index_t j) {
    const T i = q.i[j], f = q.f[j], g = q.g[j], o = q.o[j], tc = q.tc[j];
    const T c = s[q.f - q.i + j];
    return {g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), tc * o * (1 - o), o * (1 - tc * tc)};
  }

  // Whether a copy of W_h' pays: always for a product of matrices; for a product with a vector when W_h stays
  // in the second-level cache and the copy is read often enough.
  bool transposes(index_t steps) const { return o_.lanes >= 4 || (o_.hidden <= 128 && steps >= 16); }
  index_t n() const { return o_.hidden * o_.lanes; }
  index_t w_x() const { return 4 * o_.hidden * o_.hidden; }
  index_t w_y() const { return w_x() + input_.params(); }
  // A lane of the tape: i, f, g, o, tanh(c'), then dloss/dy.
  index_t tape_stride() const { return 5 * o_.hidden + readout_.width(); }

  template <class U>
  matrix<U> w_h(U* theta) const {
    return {theta, 4 * o_.hidden, o_.hidden};
  }
  /// The h of the states.
  template <class U>
  matrix<U> hiddens(U* s, index_t steps = 1) const {
    return {s, o_.hidden, o_.lanes * steps, 2 * o_.hidden};
  }
  template <class U>
  matrix<U> gates(U* tape, index_t steps = 1) const {
    return {tape, 4 * o_.hidden, o_.lanes * steps, tape_stride()};
  }
  template <class U>
  matrix<U> outputs(U* tape, index_t steps = 1) const {
    return {tape + 5 * o_.hidden, readout_.width(), o_.lanes * steps, tape_stride()};
  }
  matrix<T> cotangents(T* d, index_t steps = 1) const { return {d, 4 * o_.hidden, o_.lanes * steps}; }
  /// Where the cotangent of h' from the loss waits, in the place of that of o.
  matrix<T> from_loss(T* d, index_t steps = 1) const {
    return {d + 3 * o_.hidden, o_.hidden, o_.lanes * steps, 4 * o_.hidden};
  }
  template <class U>
  lane<U> of_lane(U* tape, index_t l) const {
    const index_t h = o_.hidden;
    U* q = tape + l * tape_stride();
    return {q, q + h, q + 2 * h, q + 3 * h, q + 4 * h};
  }

  // The rest of a step whose tape holds W_x x + b.
  void update(const T* w, const T* s, T* tape, T* next) const {
    const index_t h = o_.hidden;
    linalg::gemm<T>(op::none, w_h(w), op::none, hiddens(s), true, gates(tape));
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<T> q = of_lane(tape, l);
      const T* c = s + 2 * h * l + h;
      T* next_h = next + 2 * h * l;
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto i = simd::logistic(v.load(q.i)), f = simd::logistic(v.load(q.f));
        const auto g = simd::tanh(v.load(q.g)), o = simd::logistic(v.load(q.o));
        const auto next_c = f * v.load(c) + i * g, tc = simd::tanh(next_c);
        v.store(i, q.i);
        v.store(f, q.f);
        v.store(g, q.g);
        v.store(o, q.o);
        v.store(tc, q.tc);
        v.store(o * tc, next_h);
        v.store(next_c, next_h + h);
      });
    }
  }

  void enter(dstate<const T> dnext, T* delta) const {
    if (dnext.empty())
      std::fill_n(delta, 2 * n(), T(0));
    else
      std::copy(dnext.begin(), dnext.end(), delta);
  }

  // ds enters as the cotangent of [h'; c'] from behind, d holds that of the loss by h' in its last part; d
  // leaves as the cotangents of the arguments of the gates, the c of ds as that of c; the h of ds is left to
  // the caller: W_h' d. A carry of zero drops what comes from behind even where that is not finite.
  void through_gates(const T* s, const T* tape, T carry, T* ds_all, T* d_all) const {
    const index_t h = o_.hidden;
    if (carry == T(0)) std::fill_n(ds_all, 2 * n(), T(0));
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> q = of_lane(tape, l);
      const T* const c = s + 2 * h * l + h;
      const T* const gate = q.i;
      const T* const dh = ds_all + 2 * h * l;
      T* const dc = ds_all + 2 * h * l + h;
      T* const d = d_all + 4 * h * l;
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto i = v.load(gate), f = v.load(gate + h), g = v.load(gate + 2 * h), o = v.load(gate + 3 * h);
        const auto tc = v.load(gate + 4 * h);
        const auto delta_h = v.load(d + 3 * h) + carry * v.load(dh);
        const auto delta_c = carry * v.load(dc) + delta_h * o * (T(1) - tc * tc);
        v.store(delta_c * f, dc);
        v.store(delta_c * g * i * (T(1) - i), d);
        v.store(delta_c * v.load(c) * f * (T(1) - f), d + h);
        v.store(delta_c * i * (T(1) - g * g), d + 2 * h);
        v.store(delta_h * tc * o * (T(1) - o), d + 3 * h);
      });
    }
  }

  // ADDS the parameter gradient of the steps whose cotangents are in d.
  void collect(std::span<const input> xs, const T* s, T* d, T* dw, T* scratch) const {
    const index_t steps = index_t(xs.size());
    linalg::gemm<T>(op::none, cotangents(d, steps), op::transpose, hiddens(s, steps), true, w_h(dw));
    input_.backward(xs, cotangents(d, steps), dw + w_x(), scratch);
  }

  lstm_options o_;
  affine_input<T> input_;
  readout<T> readout_;
};

}  // namespace unroll::cells
