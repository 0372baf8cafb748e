#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/affine_input.hpp"
#include "unroll/cells/readout.hpp"
#include "unroll/core/block.hpp"
#include "unroll/system/concepts.hpp"

namespace unroll::cells {

struct simple_recurrent_options {
  index_t in = 1;       ///< size of x, or number of tokens; 0: no input
  index_t hidden = 16;  ///< units
  index_t out = 1;      ///< size of y; 0: y = s' without readout matrix
  loss_kind loss = loss_kind::squared_error;
  index_t lanes = 1;  ///< independent sequences side by side
};

/// s' = phi(W_h s + W_x x + b), y = W_y s' + b_y. What `elman` and `linear` are, for two choices of phi.
///
///   Phi::name                     the name of the cell, for messages
///   Phi::apply_on<Isa>(z, n)      z = phi(z), n numbers, inside of a kernel
///   Phi::slope(y)                 phi'(z) as a function of y = phi(z)
///   Phi::times_slope(dy, y)       dy phi'(z), vectors of numbers
///
/// Parameters: w_h (hidden x hidden), w_x (hidden x in), b, then w_y (out x hidden) and b_y unless out = 0.
/// Since all of w_h, w_x and b have `hidden` rows they are also one matrix W with z = W [s; x; 1]. The tape
/// is dloss/dy. Everything about one step costs lanes x hidden x (hidden + in + out) multiply-adds.
template <class T, class Phi>
class simple_recurrent {
 public:
  using scalar = T;
  using input = example<T>;

  explicit simple_recurrent(const simple_recurrent_options& options) : o_(options) {
    check_options(Phi::name, o_);
    input_ = affine_input<T>(o_.in, o_.hidden, o_.lanes);
    readout_ = readout<T>(o_.hidden, o_.out, o_.loss, o_.lanes);
  }

  const simple_recurrent_options& options() const { return o_; }
  dims size() const {
    return {w_y() + readout_.params(), n(), readout_.scratch(1), n() + readout_.scratch(1), o_.lanes};
  }
  unroll::layout layout() const {
    unroll::layout l;
    l.add("w_h", o_.hidden, o_.hidden);
    l.add("w_x", o_.hidden, o_.in);
    l.add("b", o_.hidden);
    readout_.describe(l);
    return l;
  }
  /// Uniform in +-1/sqrt(hidden), every parameter.
  void init(params<T> theta, key k) const {
    check_size(Phi::name, "theta", theta.size(), size().params);
    uniform_init(theta, 1 / std::sqrt(double(o_.hidden)), k);
  }
  /// False when x or the target holds NaN or infinity; throws unroll::error on an invalid token or label.
  bool finite(const input& x) const { return input_.finite(Phi::name, x) && readout_.finite(Phi::name, x); }
  index_t scored(const input& x) const { return readout_.scored(x); }
  /// WRITES y of the states s, lane after lane.
  void output(params<const T> theta, state<const T> s, view<T> y) const {
    check_size(Phi::name, "y", y.size(), readout_.scratch(1));
    readout_.output(theta.data() + w_y(), columns(s.data()), outputs(y.data()));
  }

  /// The same cell over `lanes` lanes, and the part of an input that belongs to the lanes from `i` on.
  simple_recurrent with_lanes(index_t lanes) const { return simple_recurrent(cells::with_lanes(o_, lanes)); }
  input lanes_from(const input& x, index_t i) const {
    return cells::lanes_from(x, i, o_.in, readout_.width());
  }

  void step(const input& x, const edge<T>& e) const {
    const T* w = e.theta.data();
    const matrix<T> next = columns(e.next.data());
    input_.forward(w + w_x(), {&x, 1}, next, nullptr);
    recur(w, e.s.data(), next.data, 1);
    readout_.forward(w + w_y(), {&x, 1}, next, outputs(e.tape.data()), e.loss);
  }

  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const T* w = e.theta.data();
    T* dw = dtheta.data();
    const matrix<T> dz = columns(e.scratch.data());
    readout_.backward(w + w_y(), {&x, 1}, columns(e.next.data()), outputs(e.tape.data()), &dloss, dz,
                      dw ? dw + w_y() : nullptr, e.scratch.data() + n());
    through_phi(dnext.data(), T(1), e.next.data(), dz.data);
    if (!ds.empty()) linalg::gemm<T>(op::transpose, w_h(w), op::none, dz, true, columns(ds.data()));
    if (!dw) return;
    linalg::gemm<T>(op::none, dz, op::transpose, columns(e.s.data()), true, w_h(dw));
    input_.backward({&x, 1}, dz, dw + w_x(), nullptr);
  }

  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    const T* w = e.theta.data();
    const T* dw = dtheta.data();
    const matrix<T> dz = columns(dnext.data());
    if (dw) {
      input_.forward(dw + w_x(), {&x, 1}, dz, nullptr);
      linalg::gemm<T>(op::none, w_h(dw), op::none, columns(e.s.data()), true, dz);
    } else {
      std::fill(dnext.begin(), dnext.end(), T(0));
    }
    if (!ds.empty()) linalg::gemm<T>(op::none, w_h(w), op::none, columns(ds.data()), true, dz);
    through_phi(nullptr, T(0), e.next.data(), dz.data);
    if (dloss)
      *dloss = readout_.jvp(w + w_y(), columns(e.next.data()), outputs(e.tape.data()),
                            dw ? dw + w_y() : nullptr, dz, e.scratch.data());
  }

  // scratch of a window: dz of all steps | the readout's | the gathered inputs | W_h'
  index_t window_scratch(index_t steps) const {
    return n() * steps + readout_.scratch(steps) + input_.scratch(steps) +
           (transposes(steps) ? o_.hidden * o_.hidden : 0);
  }

  void forward(std::span<const input> xs, const window<T>& w) const {
    const T* theta = w.theta.data();
    T* s = w.states;
    xs = xs.first(std::size_t(w.steps));
    input_.forward(theta + w_x(), xs, columns(s + n(), w.steps), w.scratch.data());
    recur(theta, s, s + n(), w.steps);
    readout_.forward(theta + w_y(), xs, columns(w.states + n(), w.steps), outputs(w.tape, w.steps), w.loss);
  }

  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const {
    const T* theta = w.theta.data();
    T* dw = dtheta.data();
    T* readout_scratch = w.scratch.data() + n() * w.steps;
    T* input_scratch = readout_scratch + readout_.scratch(w.steps);
    const matrix<T> dz = columns(w.scratch.data(), w.steps);
    xs = xs.first(std::size_t(w.steps));
    readout_.backward(theta + w_y(), xs, columns(w.states + n(), w.steps), outputs(w.tape, w.steps),
                      in.loss_weight, dz, dw ? dw + w_y() : nullptr, readout_scratch);

    matrix<const T> wt = w_h(theta);
    if (transposes(w.steps)) {
      T* copy = input_scratch + input_.scratch(w.steps);
      linalg::transpose<T>(wt, {copy, o_.hidden, o_.hidden});
      wt.data = copy;
    }
    const T* next = w.states + n();
    if (o_.lanes == 1 && transposes(w.steps))
      simd::dispatch<backward_kernel>(wt.data, n(), in.carry, next, dz.data, ds.data(), w.steps);
    else
      for (index_t i = w.steps - 1; i >= 0; --i) {  // ds: cotangent of s_{i+1}, then of s_i
        T* dzi = dz.data + i * n();
        through_phi(ds.data(), in.carry ? in.carry[i] : T(1), next + i * n(), dzi);
        linalg::gemm<T>(transposes(w.steps) ? op::none : op::transpose, wt, op::none, columns(dzi), false,
                        columns(ds.data()));
      }
    if (!dw) return;
    linalg::gemm<T>(op::none, dz, op::transpose, columns(w.states, w.steps), true, w_h(dw));
    input_.backward(xs, dz, dw + w_x(), input_scratch);
  }

  void jacobian(const input&, const const_edge<T>& e, view<T> J) const {
    const index_t h = o_.hidden;
    const T* w = e.theta.data();
    for (index_t l = 0; l < o_.lanes; ++l)
      for (index_t j = 0; j < h; ++j)
        for (index_t i = 0; i < h; ++i) J[(l * h + j) * h + i] = Phi::slope(e.next[l * h + i]) * w[j * h + i];
  }

  void immediate(const input& x, const const_edge<T>& e, view<T> M, index_t p0, index_t p1) const {
    const index_t h = o_.hidden, P = size().params, end = std::min(p1, w_y());
    for (index_t l = 0; l < o_.lanes; ++l)
      for (index_t p = p0; p < end;) {  // p = W(i, j) moves s'_i by slope_i [s; x; 1]_j
        const index_t j = p / h, first = p - j * h, last = std::min(h, end - j * h);
        const T a = j < h ? e.s[l * h + j] : j < h + o_.in ? input_.at(x, l, j - h) : T(1);
        T* column = M.data() + (l * P + j * h) * h;
        for (index_t i = first; i < last; ++i) column[i * (h + 1)] += Phi::slope(e.next[l * h + i]) * a;
        p = j * h + last;
      }
  }

  void row_norms(const input& x, const const_edge<T>& e, view<T> out) const {
    const index_t h = o_.hidden;
    for (index_t l = 0; l < o_.lanes; ++l) {
      const T* s = e.s.data() + l * h;
      const T norm = std::sqrt(linalg::dot<T>(s, s, h) + input_.squared_norm(x, l) + 1);
      for (index_t i = l * h; i < (l + 1) * h; ++i) out[i] = std::abs(Phi::slope(e.next[i])) * norm;
    }
  }

  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta) const {
    const index_t h = o_.hidden, P = size().params;
    T* dz = e.scratch.data();
    std::fill_n(dz, n(), T(0));
    through_phi(dnext.data(), T(1), e.next.data(), dz);
    for (index_t l = 0; l < o_.lanes; ++l) {
      T* dw = dtheta.data() + l * P;
      linalg::ger<T>(1, dz + l * h, e.s.data() + l * h, w_h(dw));
      input_.backward_lane(x, l, dz + l * h, dw + w_x());
    }
  }

 private:
  index_t n() const { return o_.hidden * o_.lanes; }
  index_t w_x() const { return o_.hidden * o_.hidden; }
  index_t w_y() const { return w_x() + input_.params(); }
  template <class U>
  matrix<U> w_h(U* theta) const {
    return {theta, o_.hidden, o_.hidden};
  }
  template <class U>
  matrix<U> columns(U* h, index_t steps = 1) const {
    return {h, o_.hidden, o_.lanes * steps};
  }
  template <class U>
  matrix<U> outputs(U* y, index_t steps = 1) const {
    return {y, readout_.width(), o_.lanes * steps};
  }
  // The backward products want W_h' in order. A copy pays for itself after some steps; with one lane and a
  // matrix beyond the second-level cache the transposed product in place is as fast.
  bool transposes(index_t steps) const { return o_.lanes >= 4 || (o_.hidden <= 256 && steps >= 8); }

  // Steps of one lane one after the other, without leaving the kernel: z = phi(z + W_h s).
  struct forward_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const T* w, index_t h, const T* s, T* z, index_t steps) {
      for (; steps > 0; --steps, s = z, z += h) {
        linalg::detail::gemv_plain<T, simd::width<Isa, T>>::template run<Isa>(w, h, h, h, s, true, z);
        Phi::template apply_on<Isa>(z, h);
      }
    }
  };
  struct apply_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(T* z, index_t n) {
      Phi::template apply_on<Isa>(z, n);
    }
  };
  // z holds W_x x + b of `steps` steps, of which s is the state before the first.
  void recur(const T* w, const T* s, T* z, index_t steps) const {
    if (o_.lanes == 1) return simd::dispatch<forward_kernel>(w, n(), s, z, steps);
    for (; steps > 0; --steps, s = z, z += n()) {
      linalg::gemm<T>(op::none, w_h(w), op::none, columns(s), true, columns(z));
      simd::dispatch<apply_kernel>(z, n());
    }
  }

  // dz = (dz + carry ds) phi'; a carry of zero drops ds even where it is not finite.
  template <class Isa>
  UNROLL_INLINE static void through_phi_on(const T* ds, T carry, const T* next, T* dz, index_t n) {
    if (!ds || carry == T(0))
      simd::map_on<Isa>([](const auto& z, const auto& y) UNROLL_INLINE { return Phi::times_slope(z, y); }, n,
                        dz, dz, next);
    else
      simd::map_on<Isa>([carry](const auto& z, const auto& a, const auto& y)
                            UNROLL_INLINE { return Phi::times_slope(z + carry * a, y); },
                        n, dz, dz, ds, next);
  }
  struct through_phi_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const T* ds, T carry, const T* next, T* dz, index_t n) {
      through_phi_on<Isa>(ds, carry, next, dz, n);
    }
  };
  void through_phi(const T* ds, T carry, const T* next, T* dz) const {
    simd::dispatch<through_phi_kernel>(ds, carry, next, dz, n());
  }
  // The same as forward_kernel, backwards: ds is the cotangent of s_{i+1}, then of s_i = W_h' dz_i.
  struct backward_kernel {
    template <class Isa>
    UNROLL_INLINE static void run(const T* wt, index_t h, const T* carry, const T* next, T* dz, T* ds,
                                  index_t steps) {
      for (index_t i = steps - 1; i >= 0; --i) {
        through_phi_on<Isa>(ds, carry ? carry[i] : T(1), next + i * h, dz + i * h, h);
        linalg::detail::gemv_plain<T, simd::width<Isa, T>>::template run<Isa>(wt, h, h, h, dz + i * h, false,
                                                                              ds);
      }
    }
  };

  simple_recurrent_options o_;
  affine_input<T> input_;
  readout<T> readout_;
};

}  // namespace unroll::cells
