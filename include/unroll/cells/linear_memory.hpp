#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/example.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll::cells {

struct linear_memory_options {
  index_t in = 1;          ///< numbers in x
  index_t memory = 2;      ///< numbers in a memory
  index_t out = 1;         ///< numbers in the target
  bool recurrent = false;  ///< writes see the mean of the earlier memories
};

/// A memory model whose every derivative has a closed form; a segment is one example.
///
///   write   m_s = W z_s,   z_s = x_s, or [x_s; mean of m_0 .. m_{s-1}] where recurrent
///   read    J_t = 1/2 || V mean(m_0 .. m_{t-1}) + b - target_t ||^2,   the mean of nothing being 0
///
/// Parameters: w (memory x in, or memory x (in + memory)), v (out x memory), b (out). The tape is z_s.
template <class T>
class linear_memory {
 public:
  using scalar = T;
  using input = example<T>;

  explicit linear_memory(const linear_memory_options& options) : o_(options) {
    check_at_least("linear_memory", "in", o_.in, 1);
    check_at_least("linear_memory", "memory", o_.memory, 1);
    check_at_least("linear_memory", "out", o_.out, 1);
  }

  const linear_memory_options& options() const { return o_; }
  memory_dims size() const { return {v() + o_.out * (o_.memory + 1), o_.memory, width()}; }
  bool independent() const { return !o_.recurrent; }
  index_t workspace(index_t, index_t) const { return std::max(width(), 2 * o_.memory + o_.out); }
  unroll::layout layout() const {
    unroll::layout l;
    l.add("w", o_.memory, width());
    l.add("v", o_.out, o_.memory);
    l.add("b", o_.out);
    return l;
  }
  /// Normal with variance 1 / width, every parameter.
  void init(params<T> theta, key k) const {
    check_size("linear_memory", "theta", theta.size(), size().params);
    draw_normals(k, 0, theta);
    linalg::scale(T(1 / std::sqrt(double(width()))), theta.data(), theta.size());
  }
  /// False when x or the target holds NaN or infinity.
  bool finite(const input& x) const {
    return linalg::all_finite(x.x, o_.in) && linalg::all_finite(x.target, o_.out);
  }

  void write(std::span<const input> xs, index_t, params<const T> theta, std::span<const T* const> past,
             view<T> m, view<T> tape, view<T> workspace) const {
    for (index_t i = 0; i < index_t(xs.size()); ++i) {
      T* z = tape.empty() ? workspace.data() : tape.data() + i * width();
      std::copy_n(xs[std::size_t(i)].x, o_.in, z);
      if (o_.recurrent) mean(past, z + o_.in);
      linalg::gemv<T>(op::none, w(theta.data()), z, false, m.data() + i * o_.memory);
    }
  }
  void write_vjp(std::span<const input> xs, index_t, params<const T> theta, std::span<const T* const>,
                 write_graphs<numbers<T>> graphs, memory_gradients<numbers<T>> to, view<T> workspace) const {
    for (index_t i = index_t(xs.size()) - 1; i >= 0; --i) {
      const T* d = graphs.dm.data() + i * o_.memory;
      if (!to.dtheta.empty()) linalg::ger<T>(1, d, graphs.tape.data() + i * width(), w(to.dtheta.data()));
      if (!o_.recurrent) continue;
      const matrix<const T> r(theta.data() + o_.memory * o_.in, o_.memory, o_.memory);
      linalg::gemv<T>(op::transpose, r, d, false, workspace.data());
      spread(workspace.data(), to.dpast);
    }
  }

  void read(std::span<const input> xs, index_t t, params<const T> theta, std::span<const T* const> past,
            T* losses, view<T> workspace) const {
    for (std::size_t i = 0; i < xs.size(); ++i)
      losses[i] = residual(xs[i], theta, past.first(std::size_t(t) + i), workspace);
  }
  void read_vjp(std::span<const input> xs, index_t t, params<const T> theta, std::span<const T* const> past,
                T* losses, memory_gradients<numbers<T>> to, view<T> workspace) const {
    const T* average = workspace.data();
    const T* e = average + o_.memory;
    T* d = workspace.data() + o_.memory + o_.out;
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const std::size_t n = std::size_t(t) + i;
      losses[i] = residual(xs[i], theta, past.first(n), workspace);
      if (!to.dtheta.empty()) {
        linalg::ger<T>(1, e, average, {to.dtheta.data() + v(), o_.out, o_.memory});
        linalg::axpy<T>(1, e, to.dtheta.data() + v() + o_.out * o_.memory, o_.out);
      }
      linalg::gemv<T>(op::transpose, {theta.data() + v(), o_.out, o_.memory}, e, false, d);
      spread(d, to.dpast.first(n));
    }
  }

 private:
  index_t width() const { return o_.in + (o_.recurrent ? o_.memory : 0); }
  index_t v() const { return o_.memory * width(); }
  template <class U>
  matrix<U> w(U* theta) const {
    return {theta, o_.memory, width()};
  }

  // out, `memory` numbers: the mean of the memories.
  void mean(std::span<const T* const> past, T* out) const {
    std::fill_n(out, o_.memory, T(0));
    for (const T* m : past) linalg::axpy<T>(T(1) / T(past.size()), m, out, o_.memory);
  }
  // The vjp of the mean; d: `memory` numbers.
  void spread(const T* d, std::span<T* const> dpast) const {
    for (T* dm : dpast)
      if (dm) linalg::axpy<T>(T(1) / T(dpast.size()), d, dm, o_.memory);
  }
  // Leaves the mean, `memory` numbers, and the residual, `out`, in `workspace`.
  T residual(const input& x, params<const T> theta, std::span<const T* const> past, view<T> workspace) const {
    T* e = workspace.data() + o_.memory;
    mean(past, workspace.data());
    const T* b = theta.data() + v() + o_.out * o_.memory;
    for (index_t i = 0; i < o_.out; ++i) e[i] = b[i] - x.target[i];
    linalg::gemv<T>(op::none, {theta.data() + v(), o_.out, o_.memory}, workspace.data(), true, e);
    return linalg::dot(e, e, o_.out) / 2;
  }

  linear_memory_options o_;
};

}  // namespace unroll::cells
