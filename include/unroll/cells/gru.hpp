#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/readout.hpp"
#include "unroll/cells/slices.hpp"
#include "unroll/core/block.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::cells {

/// Where the reset gate acts: on U_n s + c_n (PyTorch, cuDNN) or on s in front of the product (Cho et al.).
enum class reset_kind { after, before };

struct gru_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units
  index_t out = 1;      ///< size of y; 0: y = s' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;  ///< independent sequences side by side
  reset_kind reset = reset_kind::after;
};

/// Gated recurrent unit (Cho et al., 2014).
///
///   r = logistic(W_r x + b_r + U_r s)      z = logistic(W_z x + b_z + U_z s)
///   n = tanh(W_n x + b_n + r (U_n s + c))     with reset_kind::after
///   n = tanh(W_n x + b_n + U_n (r s))         with reset_kind::before
///   s' = n + z (s - n),   y = W_y s' + b_y
///
/// Parameters: w_h (U; 3 hidden x hidden, rows r, z, n), w_x (W; 3 hidden x in), b, then b_hn (c) with
/// reset_kind::after, then w_y and b_y unless out = 0. Everything about one step costs
/// lanes x hidden x (3 hidden + 3 in + out) multiply-adds, a vjp twice that.
template <class T>
class gru {
 public:
  using scalar = T;
  using input = example<T>;

  explicit gru(const gru_options& options) : o_(options) {
    check_options("gru", o_);
    input_ = affine_input<T>(o_.in, 3 * o_.hidden, o_.lanes);
    readout_ = readout<T>(o_.hidden, o_.out, o_.loss, o_.lanes);
  }

  const gru_options& options() const { return o_; }
  dims size() const {
    return {w_y() + readout_.params(), n(), o_.lanes * tape_stride(), 8 * n() + readout_.scratch(1),
            o_.lanes};
  }
  unroll::layout layout() const {
    unroll::layout l;
    l.add("w_h", 3 * o_.hidden, o_.hidden);
    l.add("w_x", 3 * o_.hidden, o_.in);
    l.add("b", 3 * o_.hidden);
    if (after()) l.add("b_hn", o_.hidden);
    readout_.describe(l);
    return l;
  }
  /// Uniform in +-1/sqrt(hidden), every parameter.
  void init(params<T> theta, key k) const {
    check_size("gru", "theta", theta.size(), size().params);
    uniform_init(theta, 1 / std::sqrt(double(o_.hidden)), k);
  }
  /// False when x or the target holds NaN or infinity; throws unroll::error on an invalid token or label.
  bool finite(const input& x) const { return input_.finite("gru", x) && readout_.finite("gru", x); }
  index_t scored(const input& x) const { return readout_.scored(x); }
  /// WRITES y of the states s, lane after lane.
  void output(params<const T> theta, state<const T> s, view<T> y) const {
    check_size("gru", "y", y.size(), readout_.scratch(1));
    readout_.output(theta.data() + w_y(), states(s.data()), {y.data(), readout_.width(), o_.lanes});
  }

  /// The same cell over `lanes` lanes, and the part of an input that belongs to the lanes from `i` on.
  gru with_lanes(index_t lanes) const { return gru(cells::with_lanes(o_, lanes)); }
  input lanes_from(const input& x, index_t i) const {
    return cells::lanes_from(x, i, o_.in, readout_.width());
  }

  void step(const input& x, const edge<T>& e) const {
    const T* w = e.theta.data();
    input_.forward(w + w_x(), {&x, 1}, gates(e.tape.data(), 0, 3), nullptr);
    update(w, e.s.data(), e.tape.data(), e.next.data(), e.scratch.data());
    readout_.forward(w + w_y(), {&x, 1}, states(e.next.data()), outputs(e.tape.data()), e.loss);
  }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const T* w = e.theta.data();
    T* dw = dtheta.data();
    T* d = e.scratch.data();
    T* back = d + 4 * n();
    T* delta = back + 3 * n();
    readout_.backward(w + w_y(), {&x, 1}, states(e.next.data()), outputs(e.tape.data()), &dloss,
                      cotangents(d, 3, 1), dw ? dw + w_y() : nullptr, delta + n());
    enter(dnext, delta);
    retreat({op::transpose, w_h(w)}, e.s.data(), e.tape.data(), T(1), delta, d, back);
    linalg::axpy<T>(1, delta, ds.data(), ds.size());
    if (dw) collect({&x, 1}, e.s.data(), e.tape.data(), d, dw, nullptr);
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    const index_t h = o_.hidden;
    const T* w = e.theta.data();
    const T* dw = dtheta.data();
    T* p_t = e.scratch.data();
    T* u_t = p_t + 3 * n();
    const index_t rows = after() ? 3 : 2;  // gates whose product reads s itself
    const matrix<T> u{u_t, rows * h, o_.lanes, 3 * h};
    std::fill_n(p_t, 6 * n(), T(0));
    if (dw) {
      input_.forward(dw + w_x(), {&x, 1}, {p_t, 3 * h, o_.lanes}, nullptr);
      linalg::gemm<T>(op::none, w_h(dw, 0, rows), op::none, states(e.s.data()), true, u);
    }
    if (!ds.empty()) linalg::gemm<T>(op::none, w_h(w, 0, rows), op::none, states(ds.data()), true, u);
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> g = of_lane(e.tape.data(), l);
      T* p = p_t + 3 * h * l;
      T* a = u_t + 3 * h * l;
      for (index_t i = 0; i < 2 * h; ++i) p[i] = (p[i] + a[i]) * g.r[i] * (1 - g.r[i]);
      for (index_t i = 0; i < h; ++i)
        a[2 * h + i] = after() ? a[2 * h + i] + (dw ? dw[b_hn() + i] : T(0))
                               : p[i] * e.s[l * h + i] + (ds.empty() ? T(0) : g.r[i] * ds[l * h + i]);
    }
    if (!after()) {
      const matrix<T> p_n{p_t + 2 * h, h, o_.lanes, 3 * h};
      if (dw) linalg::gemm<T>(op::none, w_h(dw, 2, 1), op::none, gates(e.tape.data(), 3, 1), true, p_n);
      linalg::gemm<T>(op::none, w_h(w, 2, 1), op::none, {u_t + 2 * h, h, o_.lanes, 3 * h}, true, p_n);
    }
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> g = of_lane(e.tape.data(), l);
      const T* p = p_t + 3 * h * l;
      const T* a = u_t + 3 * h * l + 2 * h;
      for (index_t i = 0; i < h; ++i) {
        const T inner = p[2 * h + i] + (after() ? p[i] * g.a[i] + g.r[i] * a[i] : T(0));
        const T n_t = (1 - g.n[i] * g.n[i]) * inner;
        const T s_t = ds.empty() ? T(0) : ds[l * h + i];
        dnext[l * h + i] = n_t + p[h + i] * (e.s[l * h + i] - g.n[i]) + g.z[i] * (s_t - n_t);
      }
    }
    if (dloss)
      *dloss = readout_.jvp(w + w_y(), states(e.next.data()), outputs(e.tape.data()),
                            dw ? dw + w_y() : nullptr, states(dnext.data()), u_t + 3 * n());
  }

  // cotangents of all steps | those of one step | the readout's scratch | the gathered inputs | U'
  index_t window_scratch(index_t steps) const {
    return 4 * n() * steps + 3 * n() + readout_.scratch(steps) + input_.scratch(steps) +
           (transposes(steps) ? 3 * o_.hidden * o_.hidden : 0);
  }

  void forward(std::span<const input> xs, const window<T>& w) const {
    const T* theta = w.theta.data();
    xs = xs.first(std::size_t(w.steps));
    input_.forward(theta + w_x(), xs, gates(w.tape, 0, 3, w.steps), w.scratch.data());
    for (index_t i = 0; i < w.steps; ++i) {
      T* s = w.states + i * n();
      update(theta, s, w.tape + i * o_.lanes * tape_stride(), s + n(), w.scratch.data());
    }
    readout_.forward(theta + w_y(), xs, states(w.states + n(), w.steps), outputs(w.tape, w.steps), w.loss);
  }

  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const {
    const T* theta = w.theta.data();
    T* dw = dtheta.data();
    T* d = w.scratch.data();
    T* back = d + 4 * n() * w.steps;
    T* readout_scratch = back + 3 * n();
    T* input_scratch = readout_scratch + readout_.scratch(w.steps);
    xs = xs.first(std::size_t(w.steps));
    readout_.backward(theta + w_y(), xs, states(w.states + n(), w.steps), outputs(w.tape, w.steps),
                      in.loss_weight, cotangents(d, 3, 1, w.steps), dw ? dw + w_y() : nullptr,
                      readout_scratch);
    back_weights u{op::transpose, w_h(theta)};
    if (transposes(w.steps)) {
      T* copy = input_scratch + input_.scratch(w.steps);
      linalg::transpose<T>(u.m, {copy, o_.hidden, 3 * o_.hidden});
      u = {op::none, {copy, o_.hidden, 3 * o_.hidden}};
    }
    for (index_t i = w.steps - 1; i >= 0; --i)  // ds: cotangent of s_{i+1}, then of s_i
      retreat(u, w.states + i * n(), w.tape + i * o_.lanes * tape_stride(), in.carry ? in.carry[i] : T(1),
              ds.data(), d + 4 * n() * i, back);
    if (dw) collect(xs, w.states, w.tape, d, dw, input_scratch);
  }

  void jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const index_t h = o_.hidden;
    const T* w = e.theta.data();
    T* v = e.scratch.data();
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> g = of_lane(e.tape.data(), l);
      const T* s = e.s.data() + l * h;
      for (index_t j = 0; j < h; ++j) {
        const T* u = w + 3 * h * j;  // column j of U_r, U_z and U_n
        T* column = J.data() + (l * h + j) * h;
        for (index_t i = 0; i < h; ++i)  // the derivative of what n's product gives, by s_j
          v[i] = after() ? g.r[i] * u[2 * h + i] + slope_r(g, i) * g.a[i] * u[i]
                         : slope_r(g, i) * s[i] * u[i] + (i == j ? g.r[i] : T(0));
        if (after())
          std::copy(v, v + h, column);
        else
          linalg::gemv<T>(op::none, w_h(w, 2, 1), v, false, column);
        for (index_t i = 0; i < h; ++i)
          column[i] = slope_n(g, i) * column[i] + slope_z(g, s, i) * u[h + i] + (i == j ? g.z[i] : T(0));
      }
    }
  }

  void immediate(const input& x, const const_edge<T>& e, view<T> M, index_t p0, index_t p1) const {
    const index_t h = o_.hidden, P = size().params;
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> g = of_lane(e.tape.data(), l);
      const T* s = e.s.data() + l * h;
      for (index_t p = p0; p < std::min(p1, w_y()); ++p) {  // w_h, w_x and b are one matrix of 3 h rows
        T* column = M.data() + (l * P + p) * h;
        const index_t q = p % (3 * h), j = p / (3 * h), i = q % h;
        if (p >= b_hn()) {
          column[i] += slope_n(g, i) * g.r[i];
          continue;
        }
        const T v = j < h ? s[j] : j < h + o_.in ? input_.at(x, l, j - h) : T(1);
        if (q >= 2 * h)
          column[i] += slope_n(g, i) * (j >= h ? v : after() ? g.r[i] * v : g.a[j]);
        else if (q >= h)
          column[i] += slope_z(g, s, i) * v;
        else if (after())
          column[i] += slope_n(g, i) * g.a[i] * slope_r(g, i) * v;
        else  // r_i reaches every n
          for (index_t k = 0; k < h; ++k)
            column[k] += slope_n(g, k) * e.theta[3 * h * i + 2 * h + k] * s[i] * slope_r(g, i) * v;
      }
    }
  }

  void row_norms(const input& x, const const_edge<T>& e, view<T> out) const {
    const index_t h = o_.hidden;
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> g = of_lane(e.tape.data(), l);
      const T* s = e.s.data() + l * h;
      const T x2 = input_.squared_norm(x, l) + 1, s2 = linalg::dot<T>(s, s, h);
      const T a2 = after() ? s2 + 1 : linalg::dot<T>(g.a, g.a, h);
      for (index_t i = 0; i < h; ++i) {
        T r = 0, n_a = 1;
        if (after())
          r = square(slope_r(g, i) * g.a[i]), n_a = square(g.r[i]);
        else
          for (index_t k = 0; k < h; ++k) r += square(e.theta[3 * h * k + 2 * h + i] * s[k] * slope_r(g, k));
        out[l * h + i] = std::sqrt(square(slope_n(g, i)) * (x2 + n_a * a2 + r * (s2 + x2)) +
                                   square(slope_z(g, s, i)) * (s2 + x2));
      }
    }
  }

  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta) const {
    const index_t h = o_.hidden, P = size().params;
    const T* w = e.theta.data();
    T* d = e.scratch.data();
    T* back = d + 4 * n();
    T* delta = back + 3 * n();
    std::fill_n(d, 4 * n(), T(0));
    enter(dnext, delta);
    retreat({op::transpose, w_h(w)}, e.s.data(), e.tape.data(), T(1), delta, d, back);
    for (index_t l = 0; l < o_.lanes; ++l) {
      const T* dl = d + 4 * h * l;
      const T* s = e.s.data() + h * l;
      T* dw = dtheta.data() + l * P;
      linalg::ger<T>(1, dl, s, w_h(dw, 0, 2));
      linalg::ger<T>(1, dl + (after() ? 3 : 2) * h, after() ? s : of_lane(e.tape.data(), l).a, w_h(dw, 2, 1));
      input_.backward_lane(x, l, dl, dw + w_x());
      if (after()) linalg::axpy<T>(1, dl + 3 * h, dw + b_hn(), h);
    }
  }

 private:
  template <class U>
  struct lane {  // of the tape; `a` is what r multiplies, U_n s + c, or what it has made, r s
    U *r, *z, *n, *a;
  };
  // U' as it lies in theta or as a copy: columns [first, first + count) x hidden.
  struct back_weights {
    op o;
    matrix<const T> m;
    matrix<const T> part(index_t h, index_t first, index_t count) const {
      return o == op::none ? matrix<const T>{m.data + first * h * h, h, count * h}
                           : matrix<const T>{m.data + first * h, count * h, h, 3 * h};
    }
  };

  bool after() const { return o_.reset == reset_kind::after; }
  // Whether a copy of U' pays: with a vector only where U stays in the cache and the copy is read often.
  bool transposes(index_t steps) const { return o_.lanes >= 4 || (o_.hidden <= 128 && steps >= 16); }
  index_t n() const { return o_.hidden * o_.lanes; }
  index_t w_x() const { return 3 * o_.hidden * o_.hidden; }
  index_t b_hn() const { return w_x() + input_.params(); }
  index_t w_y() const { return b_hn() + (after() ? o_.hidden : 0); }
  // A lane of the tape: r, z, n, a, then dloss/dy.
  index_t tape_stride() const { return 4 * o_.hidden + readout_.width(); }

  /// Gates [first, first + count) of w_h.
  template <class U>
  matrix<U> w_h(U* theta, index_t first = 0, index_t count = 3) const {
    return {theta + first * o_.hidden, count * o_.hidden, o_.hidden, 3 * o_.hidden};
  }
  template <class U>
  matrix<U> states(U* s, index_t steps = 1) const {
    return {s, o_.hidden, o_.lanes * steps};
  }
  template <class U>
  matrix<U> gates(U* tape, index_t first, index_t count, index_t steps = 1) const {
    return {tape + first * o_.hidden, count * o_.hidden, o_.lanes * steps, tape_stride()};
  }
  template <class U>
  matrix<U> outputs(U* tape, index_t steps = 1) const {
    return {tape + 4 * o_.hidden, readout_.width(), o_.lanes * steps, tape_stride()};
  }
  matrix<T> cotangents(T* d, index_t first, index_t count, index_t steps = 1) const {
    return {d + first * o_.hidden, count * o_.hidden, o_.lanes * steps, 4 * o_.hidden};
  }
  template <class U>
  lane<U> of_lane(U* tape, index_t l) const {
    U* g = tape + l * tape_stride();
    return {g, g + o_.hidden, g + 2 * o_.hidden, g + 3 * o_.hidden};
  }

  static T square(T v) { return v * v; }
  // ds'_i by the argument of n_i and of z_i, and dr_i by its argument.
  static T slope_n(const lane<const T>& g, index_t i) { return (1 - g.z[i]) * (1 - g.n[i] * g.n[i]); }
  static T slope_z(const lane<const T>& g, const T* s, index_t i) {
    return (s[i] - g.n[i]) * g.z[i] * (1 - g.z[i]);
  }
  static T slope_r(const lane<const T>& g, index_t i) { return g.r[i] * (1 - g.r[i]); }

  // The rest of a step whose tape holds W x + b.
  void update(const T* w, const T* s, T* tape, T* next, T* u) const {
    const index_t h = o_.hidden;
    linalg::gemm<T>(op::none, w_h(w, 0, after() ? 3 : 2), op::none, states(s), false,
                    {u, (after() ? 3 : 2) * h, o_.lanes, 3 * h});
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<T> g = of_lane(tape, l);
      const T* ul = u + 3 * h * l;
      const T* sl = s + h * l;
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto r = simd::logistic(v.load(g.r) + v.load(ul));
        const auto z = simd::logistic(v.load(g.z) + v.load(ul + h));
        v.store(r, g.r);
        v.store(z, g.z);
        if (!after()) {
          v.store(r * v.load(sl), g.a);
          return;
        }
        const auto a = v.load(ul + 2 * h) + v.load(w + b_hn());
        const auto n = simd::tanh(v.load(g.n) + r * a);
        v.store(a, g.a);
        v.store(n, g.n);
        v.store(n + z * (v.load(sl) - n), next + h * l);
      });
    }
    if (after()) return;
    const matrix<T> u_n{u + 2 * h, h, o_.lanes, 3 * h};
    linalg::gemm<T>(op::none, w_h(w, 2, 1), op::none, gates(tape, 3, 1), false, u_n);
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<T> g = of_lane(tape, l);
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto n = simd::tanh(v.load(g.n) + v.load(u_n.data + 3 * h * l));
        v.store(n, g.n);
        v.store(n + v.load(g.z) * (v.load(s + h * l) - n), next + h * l);
      });
    }
  }

  void enter(dstate<const T> dnext, T* delta) const {
    if (dnext.empty())
      std::fill_n(delta, n(), T(0));
    else
      std::copy(dnext.begin(), dnext.end(), delta);
  }

  // One step back. ds enters as the cotangent of s' from behind, d holds that of the loss in its last part; d
  // leaves as the cotangents of the arguments of r, z, n and of a, ds as that of s. A carry of zero drops
  // what comes from behind even where that is not finite.
  void retreat(const back_weights& u, const T* s_all, const T* tape, T carry, T* ds_all, T* d_all,
               T* back) const {
    const index_t h = o_.hidden;
    if (carry == T(0)) std::fill_n(ds_all, n(), T(0));
    for (index_t l = 0; l < o_.lanes; ++l) {
      const lane<const T> g = of_lane(tape, l);
      const T* const sl = s_all + l * h;
      T* const ds = ds_all + l * h;
      T* const d = d_all + 4 * h * l;
      T* const b = back + 3 * h * l;
      for_each_slice<T>(h, [&](auto v) UNROLL_INLINE {
        const auto r = v.load(g.r), z = v.load(g.z), n = v.load(g.n);
        const auto delta = v.load(d + 3 * h) + carry * v.load(ds);
        const auto dn = delta * (T(1) - z) * (T(1) - n * n);
        const auto dz = delta * (v.load(sl) - n) * z * (T(1) - z);
        const auto da = dn * r, dr = dn * v.load(g.a) * r * (T(1) - r);
        v.store(delta * z, ds);
        v.store(dr, d);
        v.store(dr, b);
        v.store(dz, d + h);
        v.store(dz, b + h);
        v.store(dn, d + 2 * h);
        v.store(da, d + 3 * h);
        v.store(da, b + 2 * h);
      });
    }
    if (!after()) {
      const matrix<T> da{back + 2 * h, h, o_.lanes, 3 * h};
      linalg::gemm<T>(u.o, u.part(h, 2, 1), op::none, cotangents(d_all, 2, 1), false, da);
      for (index_t l = 0; l < o_.lanes; ++l) {
        const T* r = of_lane(tape, l).r;
        const T* s = s_all + l * h;
        T* d = d_all + 4 * h * l;
        T* b = back + 3 * h * l;
        for (index_t i = 0; i < h; ++i) {
          ds_all[l * h + i] += b[2 * h + i] * r[i];
          d[i] = b[i] = b[2 * h + i] * s[i] * r[i] * (1 - r[i]);
        }
      }
    }
    const index_t rows = after() ? 3 : 2;
    linalg::gemm<T>(u.o, u.part(h, 0, rows), op::none, {back, rows * h, o_.lanes, 3 * h}, true,
                    states(ds_all));
  }

  // ADDS the parameter gradient of the steps whose cotangents are in d.
  void collect(std::span<const input> xs, const T* s, const T* tape, T* d, T* dw, T* scratch) const {
    const index_t steps = index_t(xs.size());
    const matrix<const T> da = cotangents(d, after() ? 3 : 2, 1, steps);
    linalg::gemm<T>(op::none, cotangents(d, 0, 2, steps), op::transpose, states(s, steps), true,
                    w_h(dw, 0, 2));
    linalg::gemm<T>(op::none, da, op::transpose, after() ? states(s, steps) : gates(tape, 3, 1, steps), true,
                    w_h(dw, 2, 1));
    input_.backward(xs, cotangents(d, 0, 3, steps), dw + w_x(), scratch);
    if (after()) linalg::sum_columns<T>(da, dw + b_hn());
  }

  gru_options o_;
  affine_input<T> input_;
  readout<T> readout_;
};

}  // namespace unroll::cells
