#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/cells/example.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/kernels/softmax.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll::cells {

struct attention_memory_options {
  index_t size = 2;        ///< numbers in x, in a memory and in the target
  bool recurrent = false;  ///< writes attend to the earlier memories
};

/// The smallest memory model with attention; a segment is one example. With a(x, m_0 .. m_{t-1}) = sum_s p_s
/// m_s, p = softmax of the products x' m_s / sqrt(size),
///
///   write   m_s = tanh(W x_s + b [+ U a(x_s, m_0 .. m_{s-1})])
///   read    J_t = 1/2 || a(x_t, m_0 .. m_{t-1}) - target_t ||^2,   attention to nothing giving 0
///
/// Parameters: w (size x size), b, and u (size x size) where recurrent; none of them in the read. The tape is
/// m_s, and a where recurrent.
template <class T>
class attention_memory {
 public:
  using scalar = T;
  using input = example<T>;

  explicit attention_memory(const attention_memory_options& options) : o_(options) {
    check_at_least("attention_memory", "size", o_.size, 1);
  }

  const attention_memory_options& options() const { return o_; }
  memory_dims size() const {
    const index_t n = o_.size;
    return {n * (n + 1) + (o_.recurrent ? n * n : 0), n, o_.recurrent ? 2 * n : n};
  }
  bool independent() const { return !o_.recurrent; }
  bool reads_params() const { return false; }
  index_t workspace(index_t earlier, index_t) const { return 2 * earlier + 2 * o_.size; }
  unroll::layout layout() const {
    unroll::layout l;
    l.add("w", o_.size, o_.size);
    l.add("b", o_.size);
    if (o_.recurrent) l.add("u", o_.size, o_.size);
    return l;
  }
  /// Normal with variance 1 / size, every parameter.
  void init(params<T> theta, key k) const {
    check_size("attention_memory", "theta", theta.size(), size().params);
    draw_normals(k, 0, theta);
    linalg::scale(T(1 / std::sqrt(double(o_.size))), theta.data(), theta.size());
  }
  /// False when x or the target holds NaN or infinity.
  bool finite(const input& x) const {
    return linalg::all_finite(x.x, o_.size) && linalg::all_finite(x.target, o_.size);
  }

  void write(std::span<const input> xs, index_t, params<const T> theta, std::span<const T* const> past,
             view<T> m, view<T> tape, view<T> workspace) const {
    for (index_t i = 0; i < index_t(xs.size()); ++i)
      write_one(xs[std::size_t(i)], theta, past, m.part(i * o_.size, o_.size), tape_of(tape, i), workspace);
  }
  void write_vjp(std::span<const input> xs, index_t, params<const T> theta, std::span<const T* const> past,
                 write_graphs<numbers<T>> graphs, memory_gradients<numbers<T>> to, view<T> workspace) const {
    for (index_t i = index_t(xs.size()) - 1; i >= 0; --i)
      write_one_vjp(xs[std::size_t(i)], theta, past,
                    {tape_of(graphs.tape, i), graphs.dm.part(i * o_.size, o_.size)}, to, workspace);
  }
  void read(std::span<const input> xs, index_t t, params<const T>, std::span<const T* const> past, T* losses,
            view<T> workspace) const {
    for (std::size_t i = 0; i < xs.size(); ++i)
      losses[i] = residual(xs[i], past.first(std::size_t(t) + i), workspace);
  }
  void read_vjp(std::span<const input> xs, index_t t, params<const T>, std::span<const T* const> past,
                T* losses, memory_gradients<numbers<T>> to, view<T> workspace) const {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const std::size_t n = std::size_t(t) + i;
      losses[i] = residual(xs[i], past.first(n), workspace);
      attend_vjp(xs[i].x, past.first(n), workspace.data() + o_.size, workspace.data(), to.dpast.first(n),
                 to.cut, t + index_t(i));
    }
  }

 private:
  // Of one segment: past: as many memories as there are; m, x, a, da: `size` numbers; tape: size().tape or
  // none; p, dp: one a memory; workspace: as workspace() says.
  template <class U>
  view<U> tape_of(view<U> tape, index_t i) const {
    const index_t n = size().tape;
    return tape.empty() ? tape : tape.part(i * n, n);
  }
  void write_one(const input& x, params<const T> theta, std::span<const T* const> past, view<T> m,
                 view<T> tape, view<T> workspace) const {
    const index_t n = o_.size;
    std::copy_n(theta.data() + n * n, n, m.data());
    linalg::gemv<T>(op::none, {theta.data(), n, n}, x.x, true, m.data());
    if (o_.recurrent) {
      T* a = tape.empty() ? workspace.data() : tape.data() + n;
      attend(x.x, past, a, workspace.data() + n);
      linalg::gemv<T>(op::none, {theta.data() + n * (n + 1), n, n}, a, true, m.data());
    }
    linalg::tanh(m.data(), m.data(), n);
    if (!tape.empty()) std::copy_n(m.data(), n, tape.data());
  }
  void write_one_vjp(const input& x, params<const T> theta, std::span<const T* const> past,
                     write_graphs<numbers<T>> graph, memory_gradients<numbers<T>> to,
                     view<T> workspace) const {
    const index_t n = o_.size, u = n * (n + 1);
    const auto [tape, dm] = graph;
    const auto dpast = to.dpast;
    const auto dtheta = to.dtheta;
    T* dz = workspace.data();
    for (index_t i = 0; i < n; ++i) dz[i] = dm[i] * (1 - tape[i] * tape[i]);
    if (!dtheta.empty()) {
      linalg::ger<T>(1, dz, x.x, {dtheta.data(), n, n});
      linalg::axpy<T>(1, dz, dtheta.data() + n * n, n);
      if (o_.recurrent) linalg::ger<T>(1, dz, tape.data() + n, {dtheta.data() + u, n, n});
    }
    if (!o_.recurrent || dpast.empty()) return;
    T* da = workspace.data() + n;
    linalg::gemv<T>(op::transpose, {theta.data() + u, n, n}, dz, false, da);
    T* p = da + n;
    weigh(x.x, past, p);
    attend_vjp(x.x, past, p, da, dpast);
  }
  // p = softmax(x' m_s / sqrt(n)).
  void weigh(const T* x, std::span<const T* const> past, T* p) const {
    const T scale = 1 / std::sqrt(T(o_.size));
    for (std::size_t s = 0; s < past.size(); ++s) p[s] = scale * linalg::dot(x, past[s], o_.size);
    if (!past.empty()) kernels::softmax_cross_entropy(p, index_t(past.size()), -1, p);
  }
  // a = sum_s p_s m_s.
  void attend(const T* x, std::span<const T* const> past, T* a, T* p) const {
    weigh(x, past, p);
    std::fill_n(a, o_.size, T(0));
    for (std::size_t s = 0; s < past.size(); ++s) linalg::axpy<T>(p[s], past[s], a, o_.size);
  }
  // Adds da . da/dm_s: p_s da from the sum, and x / sqrt(n) times the adjoint of the score.
  // Of segment t: pairs with a memory may be cut; `mean` has all of them.
  void attend_vjp(const T* x, std::span<const T* const> past, T* p, const T* da, std::span<T* const> dpast,
                  const kernels::attention_cut& cut = {}, index_t t = 0) const {
    const T scale = 1 / std::sqrt(T(o_.size));
    T* dp = p + past.size();
    T mean = 0;
    for (std::size_t s = 0; s < past.size(); ++s) {
      dp[s] = linalg::dot(da, past[s], o_.size);
      mean += p[s] * dp[s];
    }
    kernels::attention_cut::row sample(cut.pairs, cut.pairs > 0 ? draw_uniform(cut.draws_of(t), 0) : 0);
    for (std::size_t s = 0; s < dpast.size(); ++s) {
      const T w = cut.pairs > 0 ? T(sample.weight(double(p[s]))) : T(1);
      if (!dpast[s] || w == 0) continue;
      linalg::axpy<T>(w * p[s], da, dpast[s], o_.size);
      linalg::axpy<T>(w * scale * p[s] * (dp[s] - mean), x, dpast[s], o_.size);
    }
  }
  // Leaves the residual and the weights in `workspace`.
  T residual(const input& x, std::span<const T* const> past, view<T> workspace) const {
    attend(x.x, past, workspace.data(), workspace.data() + o_.size);
    linalg::axpy<T>(-1, x.target, workspace.data(), o_.size);
    return linalg::dot(workspace.data(), workspace.data(), o_.size) / 2;
  }

  attention_memory_options o_;
};

}  // namespace unroll::cells
