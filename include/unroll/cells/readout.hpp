#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "unroll/cells/example.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/kernels/softmax.hpp"

namespace unroll::cells {

/// Output layer and loss, shared by the cells: y = W_y h + b_y, or y = h when `out` is 0 (then there are no
/// parameters). A step without target (squared_error) or label (cross_entropy) has no loss.
///
/// Every function works on `steps` steps of all lanes at once, so that a window costs one product. Hidden
/// vectors, outputs and their cotangents are matrices of steps x lanes columns, column step * lanes + lane;
/// the stride of the matrix is what one lane of the state (or tape, or workspace) takes. For one step pass
/// one example. `w` and `dw` point to the readout's `params()` parameters: w_y (width x hidden), then b_y.
///
///   tape        width() scalars a lane: forward leaves dloss/dy there, backward and jvp read it
///   workspace     workspace(steps) scalars, for backward and jvp
template <class T>
class readout {
 public:
  readout() = default;
  readout(index_t hidden, index_t out, loss_kind loss, index_t lanes)
      : hidden_(hidden), out_(out), lanes_(lanes), loss_(loss) {}

  index_t width() const { return out_ == 0 ? hidden_ : out_; }  ///< length of y
  index_t params() const { return out_ * (hidden_ + 1); }
  index_t workspace(index_t steps) const { return width() * lanes_ * steps; }

  /// Appends "w_y" and "b_y", if there are any.
  void describe(layout& l) const {
    if (out_ == 0) return;
    l.add("w_y", out_, hidden_);
    l.add("b_y", out_);
  }

  /// WRITES y, width x columns, from h, hidden x columns. Null w with `out` = 0 alone.
  void output(const T* w, matrix<const T> h, matrix<T> y) const {
    if (out_ == 0) return weigh(h, nullptr, y);
    linalg::set_columns<T>(w + out_ * hidden_, y);
    linalg::gemm<T>(op::none, {w, out_, hidden_}, op::none, h, true, y);
  }

  /// WRITES the loss of each step, summed over its lanes, and dy = dloss/dy, width rows. loss: one a step.
  void forward(const T* w, std::span<const example<T>> xs, matrix<const T> h, matrix<T> dy, T* loss) const {
    for (index_t i = 0, n = index_t(xs.size()); i < n;) {
      const index_t end = run_end(xs, nullptr, i);
      if (end == i) {
        clear(steps_of(dy, i, i + 1));
        loss[i++] = 0;
        continue;
      }
      if (out_ > 0) output(w, steps_of(h, i, end), steps_of(dy, i, end));
      for (; i < end; ++i) {
        const auto to = steps_of(dy, i, i + 1);
        const matrix<const T> y = out_ == 0 ? steps_of(h, i, i + 1) : matrix<const T>(to);
        loss[i] = loss_ == loss_kind::squared_error ? squared_error(xs[std::size_t(i)], y, to)
                                                    : cross_entropy(xs[std::size_t(i)].label, y, to);
      }
    }
  }

  /// The gradient of sum_i weight[i] loss[i]; weight, one a step, may be null: one everywhere. WRITES dh, the
  /// cotangent of h, from dy, which forward has left; ADDS to dw, which may be null: not wanted.
  void backward(const T* w, std::span<const example<T>> xs, matrix<const T> h, matrix<const T> dy,
                const T* weight, matrix<T> dh, T* dw, T* workspace) const {
    for (index_t i = 0, n = index_t(xs.size()); i < n;) {
      const index_t end = run_end(xs, weight, i);
      if (end == i) {
        clear(steps_of(dh, i, i + 1));
        ++i;
        continue;
      }
      const auto h_run = steps_of(h, i, end);
      const auto dh_run = steps_of(dh, i, end);
      auto dy_run = steps_of(dy, i, end);
      if (out_ == 0) {
        weigh(dy_run, weight ? weight + i : nullptr, dh_run);
      } else {
        if (weight && std::any_of(weight + i, weight + end, [](T v) { return v != T(1); })) {
          const matrix<T> weighted{workspace, out_, (end - i) * lanes_};
          weigh(dy_run, weight + i, weighted);
          dy_run = weighted;
        }
        linalg::gemm<T>(op::transpose, {w, out_, hidden_}, op::none, dy_run, false, dh_run);
        if (dw) {
          linalg::gemm<T>(op::none, dy_run, op::transpose, h_run, true, {dw, out_, hidden_});
          linalg::sum_columns<T>(dy_run, dw + out_ * hidden_);
        }
      }
      i = end;
    }
  }

  /// The directional derivative of the loss of one step along (dw, dh). dw may be null and dh.data may be
  /// null: zero.
  T jvp(const T* w, matrix<const T> h, matrix<const T> dy, const T* dw, matrix<const T> dh,
        T* workspace) const {
    T sum = 0;
    matrix<T> y_tangent{workspace, width(), lanes_};
    if (out_ == 0) {
      if (!dh.data) return 0;
      output(nullptr, dh, y_tangent);
    } else {
      if (dw)
        output(dw, h, y_tangent);
      else
        clear(y_tangent);
      if (dh.data) linalg::gemm<T>(op::none, {w, out_, hidden_}, op::none, dh, true, y_tangent);
    }
    for (index_t l = 0; l < lanes_; ++l)
      sum += linalg::dot<T>(dy.data + l * dy.stride, y_tangent.data + l * y_tangent.stride, width());
    return sum;
  }

  /// Lanes that have a loss at this step.
  index_t scored(const example<T>& x) const {
    if (loss_ == loss_kind::squared_error) {
      if (!x.target || !x.mask) return x.target ? lanes_ : 0;
      return index_t(std::count_if(x.mask, x.mask + lanes_, [](auto m) { return m != 0; }));
    }
    return x.label ? index_t(std::count_if(x.label, x.label + lanes_, [](auto l) { return l >= 0; })) : 0;
  }

  /// False when a target holds NaN or infinity, in a lane that has a loss. Throws unroll::error when a label
  /// is not below width() or when the example has a label for squared_error, a target or a mask for
  /// cross_entropy.
  bool finite(const char* cell, const example<T>& x) const {
    if (loss_ == loss_kind::squared_error) {
      if (x.label) fail(cell, "x.label", "is given, but the loss is squared_error, which reads x.target");
      if (!x.target || !x.mask) return !x.target || linalg::all_finite<T>(x.target, width() * lanes_);
      for (index_t l = 0; l < lanes_; ++l)
        if (x.mask[l] != 0 && !linalg::all_finite<T>(x.target + l * width(), width())) return false;
      return true;
    }
    if (x.mask)
      fail(cell, "x.mask",
           "is given, but the loss is cross_entropy, which leaves out lanes of a negative label");
    if (x.target) fail(cell, "x.target", "is given, but the loss is cross_entropy, which reads x.label");
    if (x.label)
      for (index_t l = 0; l < lanes_; ++l)
        if (x.label[l] >= width())
          fail(cell, "x.label",
               "is " + std::to_string(x.label[l]) + ", must be below " + std::to_string(width()));
    return true;
  }

 private:
  bool has_loss(const example<T>& x) const {
    return loss_ == loss_kind::squared_error ? x.target != nullptr : x.label != nullptr;
  }
  // The end of the run of steps from `first` on whose loss counts; weight: one a step, or null.
  index_t run_end(std::span<const example<T>> xs, const T* weight, index_t first) const {
    index_t i = first;
    while (i < index_t(xs.size()) && has_loss(xs[std::size_t(i)]) && !(weight && weight[i] == T(0))) ++i;
    return i;
  }
  // The columns of the steps [first, end) of m, steps x lanes columns.
  template <class U>
  matrix<U> steps_of(matrix<U> m, index_t first, index_t end) const {
    return {m.data + first * lanes_ * m.stride, m.rows, (end - first) * lanes_, m.stride};
  }
  static void clear(matrix<T> m) {
    for (index_t k = 0; k < m.cols; ++k) std::fill_n(m.data + k * m.stride, m.rows, T(0));
  }
  // to = weight from, both width x (steps x lanes); weight: one a step, or null, which is 1.
  void weigh(matrix<const T> from, const T* weight, matrix<T> to) const {
    for (index_t k = 0; k < from.cols; ++k) {
      const T a = weight ? weight[k / lanes_] : T(1);
      const T* __restrict x = from.data + k * from.stride;
      T* __restrict y = to.data + k * to.stride;
      for (index_t i = 0, n = width(); i < n; ++i) y[i] = a * x[i];
    }
  }

  // The loss of one step; dy, which may be y, becomes dloss/dy. y, dy: width x lanes, label: one a lane.
  T squared_error(const example<T>& x, matrix<const T> y, matrix<T> dy) const {
    const T* target = x.target;
    if (x.mask) return masked_squared_error(x, y, dy);
    const bool dense = y.stride == width() && dy.stride == width();
    const index_t n = dense ? width() * lanes_ : width();
    T sum = 0;
    for (index_t l = 0; l < (dense ? 1 : lanes_); ++l)
      sum += residual(y.data + l * y.stride, target + l * n, dy.data + l * dy.stride, n);
    return sum / 2;
  }
  // The same where lanes without loss have a dloss/dy of zero.
  T masked_squared_error(const example<T>& x, matrix<const T> y, matrix<T> dy) const {
    T sum = 0;
    for (index_t l = 0; l < lanes_; ++l)
      if (T* to = dy.data + l * dy.stride; x.mask[l] != 0)
        sum += residual(y.data + l * y.stride, x.target + l * width(), to, width());
      else
        std::fill_n(to, width(), T(0));
    return sum / 2;
  }
  // r = y - target of n numbers; returns the squared norm of r.
  struct residual_kernel {
    template <class Isa>
    UNROLL_INLINE static T run(const T* y, const T* target, T* r, index_t n) {
      if (n >= simd::width<Isa, T>) {
        simd::map_on<Isa>([](const auto& a, const auto& b) UNROLL_INLINE { return a - b; }, n, r, y, target);
        return T(simd::sum_on<Isa, T>([](const auto& a) UNROLL_INLINE { return a * a; }, n, r));
      }
      T sum = 0;
      for (index_t i = 0; i < n; ++i) {
        r[i] = y[i] - target[i];
        sum += r[i] * r[i];
      }
      return sum;
    }
  };
  static T residual(const T* y, const T* target, T* r, index_t n) {
    if (n > 1) return simd::dispatch<residual_kernel>(y, target, r, n);
    r[0] = y[0] - target[0];
    return r[0] * r[0];
  }
  T cross_entropy(const std::int32_t* label, matrix<const T> y, matrix<T> dy) const {
    T sum = 0;
    for (index_t l = 0; l < lanes_; ++l) {
      T* p = dy.data + l * dy.stride;
      sum += kernels::softmax_cross_entropy<T>(y.data + l * y.stride, width(), label[l], p);
      if (label[l] < 0)
        std::fill_n(p, width(), T(0));
      else
        p[label[l]] -= 1;
    }
    return sum;
  }

  index_t hidden_ = 0, out_ = 0, lanes_ = 1;
  loss_kind loss_ = loss_kind::squared_error;
};

}  // namespace unroll::cells
