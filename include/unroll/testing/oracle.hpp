#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/system/concepts.hpp"
#include "unroll/system/memory_model.hpp"

// Slow and obvious ways to the derivatives that the library computes fast. Everything here allocates freely.
namespace unroll::testing {

/// The memory of one step: state before and after, tape, workspace and loss.
template <class F>
struct edge_memory {
  using T = typename F::scalar;
  std::vector<T> s, next, tape, workspace;
  T loss = 0;

  explicit edge_memory(const F& f) {
    const dims d = f.size();
    s.resize(std::size_t(d.state));
    next.resize(std::size_t(d.state));
    tape.resize(std::size_t(d.tape));
    workspace.resize(std::size_t(d.workspace));
    start_state(f, state<T>(s));
  }
  /// The edge of one step in this memory.
  edge<T> at(params<const T> theta, std::int64_t t = 0) {
    return {theta, s, next, tape, &loss, workspace, t};
  }
};

/// Sum of the losses of one pass over `xs` from `s0` (empty: the system's own start).
template <class F>
double sequence_loss(const F& f, std::type_identity_t<params<const typename F::scalar>> theta,
                     std::type_identity_t<std::span<const typename F::input>> xs,
                     std::type_identity_t<state<const typename F::scalar>> s0 = {}) {
  edge_memory<F> m(f);
  if (!s0.empty()) m.s.assign(s0.begin(), s0.end());
  double loss = 0;
  for (std::size_t t = 0; t < xs.size(); ++t) {
    f.step(xs[t], m.at(theta, std::int64_t(t)));
    loss += double(m.loss);
    m.s.swap(m.next);
  }
  return loss;
}

/// The same for a memory model: every segment reads the memories of all earlier ones.
template <memory_model M>
double sequence_loss(const M& f, std::type_identity_t<params<const typename M::scalar>> theta,
                     std::type_identity_t<std::span<const typename M::input>> xs,
                     std::type_identity_t<state<const typename M::scalar>> = {}) {
  std::vector<std::vector<typename numbers_of<M>::memory>> memories;
  std::vector<const typename numbers_of<M>::memory*> past;
  std::vector<typename numbers_of<M>::activation> workspace(std::size_t(f.workspace(index_t(xs.size()), 1)));
  double loss = 0;
  for (std::size_t t = 0; t < xs.size(); ++t) {
    typename numbers_of<M>::accumulator one = 0;
    f.read(xs.subspan(t, 1), index_t(t), theta, past, &one, workspace);
    loss += double(one);
    memories.emplace_back(std::size_t(f.size().memory));
    const std::span<const typename numbers_of<M>::memory* const> seen(past);
    f.write(xs.subspan(t, 1), index_t(t), theta, f.independent() ? seen.first(0) : seen, memories.back(), {},
            workspace);
    past.push_back(memories.back().data());
  }
  return loss;
}

/// Derivative at 0 of `f`, a callable double -> double, by Ridders' method: central differences with steps
/// h, h / 1.4, h / 1.4^2, ... extrapolated to 0; of all extrapolations the one that agrees best with those it
/// is made from. Nearly full precision where `f` is analytic on a disc of a few of the smaller steps.
template <class Function>
double ridders_derivative(Function&& f, double h = 0.02) {
  constexpr int levels = 10;
  double table[levels][levels];
  double best = 0, error = std::numeric_limits<double>::infinity();
  for (int i = 0; i < levels; ++i, h /= 1.4) {
    table[0][i] = (f(h) - f(-h)) / (2 * h);
    double factor = 1;
    for (int j = 1; j <= i; ++j) {
      factor *= 1.4 * 1.4;
      table[j][i] = (table[j - 1][i] * factor - table[j - 1][i - 1]) / (factor - 1);
      const double change =
          std::max(std::abs(table[j][i] - table[j - 1][i]), std::abs(table[j][i] - table[j - 1][i - 1]));
      if (change <= error) {
        error = change;
        best = table[j][i];
      }
    }
  }
  return best;
}

/// d(sum of losses)/dtheta from `step` alone, about 20 passes over `xs` per parameter. Relative error about
/// 1e-11 in double; in float about 1e-3. `h` is the longest of the steps, which must stay where the loss is
/// smooth: on one side of a kink, and well within the distance over which a norm changes its direction.
template <class F>
std::vector<double> difference_gradient(const F& f,
                                        std::type_identity_t<params<const typename F::scalar>> theta,
                                        std::type_identity_t<std::span<const typename F::input>> xs,
                                        std::type_identity_t<state<const typename F::scalar>> s0 = {},
                                        double h = std::same_as<typename F::scalar, float> ? 0.25 : 0.02) {
  using T = typename F::scalar;
  std::vector<T> moved(theta.begin(), theta.end());
  std::vector<double> g(moved.size());
  for (std::size_t i = 0; i < moved.size(); ++i) {
    const T centre = moved[i];
    g[i] = ridders_derivative(
        [&](double away) {
          moved[i] = T(double(centre) + away);
          return sequence_loss(f, moved, xs, s0);
        },
        h);
    moved[i] = centre;
  }
  return g;
}

/// d(sum of losses)/dtheta by keeping every edge and walking back with `vjp`.
template <has_vjp F>
std::vector<double> backward_gradient(const F& f,
                                      std::type_identity_t<params<const typename F::scalar>> theta,
                                      std::type_identity_t<std::span<const typename F::input>> xs,
                                      std::type_identity_t<state<const typename F::scalar>> s0 = {}) {
  using T = typename F::scalar;
  std::vector<edge_memory<F>> edges(xs.size(), edge_memory<F>(f));
  for (std::size_t t = 0; t < xs.size(); ++t) {
    if (t > 0)
      edges[t].s = edges[t - 1].next;
    else if (!s0.empty())
      edges[0].s.assign(s0.begin(), s0.end());
    f.step(xs[t], edges[t].at(theta, std::int64_t(t)));
  }
  const auto n = std::size_t(f.size().state);
  std::vector<T> delta(n), before(n), g(static_cast<std::size_t>(theta.size()));
  for (std::size_t t = xs.size(); t-- > 0;) {
    before.assign(n, T(0));
    f.vjp(xs[t], const_edge<T>(edges[t].at(theta, std::int64_t(t))), delta, T(1), before, g);
    delta.swap(before);
  }
  return {g.begin(), g.end()};
}

/// d(sum of losses)/dtheta by pushing the direction of every parameter forward with `jvp`.
template <has_jvp F>
std::vector<double> forward_gradient(const F& f, std::type_identity_t<params<const typename F::scalar>> theta,
                                     std::type_identity_t<std::span<const typename F::input>> xs,
                                     std::type_identity_t<state<const typename F::scalar>> s0 = {}) {
  using T = typename F::scalar;
  const auto n = std::size_t(f.size().state), p = std::size_t(theta.size());
  edge_memory<F> m(f);
  if (!s0.empty()) m.s.assign(s0.begin(), s0.end());
  std::vector<std::vector<T>> tangent(p, std::vector<T>(n));
  std::vector<T> direction(p), moved(n);
  std::vector<double> g(p);
  for (std::size_t t = 0; t < xs.size(); ++t) {
    const edge<T> e = m.at(theta, std::int64_t(t));
    f.step(xs[t], e);
    for (std::size_t i = 0; i < p; ++i) {
      T dloss = 0;
      direction[i] = 1;
      f.jvp(xs[t], const_edge<T>(e), direction, tangent[i], moved, &dloss);
      direction[i] = 0;
      tangent[i].swap(moved);
      g[i] += double(dloss);
    }
    m.s.swap(m.next);
  }
  return g;
}

/// All first derivatives of one step, n = state and p = params. Matrices are column-major.
struct step_derivatives {
  std::vector<double> next_s;      ///< ds'/ds, n x n
  std::vector<double> next_theta;  ///< ds'/dtheta at fixed s, n x p
  std::vector<double> loss_s;      ///< dloss/ds, n
  std::vector<double> loss_theta;  ///< dloss/dtheta, p
};

/// The derivatives of the step F(theta, s, x) by central differences of `step`, error about eps^(2/3).
template <class F>
step_derivatives difference_jacobians(const F& f,
                                      std::type_identity_t<params<const typename F::scalar>> theta,
                                      std::type_identity_t<state<const typename F::scalar>> s,
                                      const typename F::input& x, std::int64_t t = 0) {
  using T = typename F::scalar;
  std::vector<T> p(theta.begin(), theta.end());
  edge_memory<F> m(f);
  m.s.assign(s.begin(), s.end());
  const T root = std::cbrt(std::numeric_limits<T>::epsilon());
  const auto columns = [&](std::vector<T>& v, std::vector<double>& next, std::vector<double>& loss) {
    for (T& entry : v) {
      const T centre = entry, h = root * std::max(T(1), std::abs(centre)), above = centre + h,
              below = centre - h;
      entry = above;
      f.step(x, m.at(p, t));
      const std::vector<T> up = m.next;
      const T loss_up = m.loss;
      entry = below;
      f.step(x, m.at(p, t));
      entry = centre;
      for (std::size_t i = 0; i < up.size(); ++i)
        next.push_back((double(up[i]) - double(m.next[i])) / (double(above) - double(below)));
      loss.push_back((double(loss_up) - double(m.loss)) / (double(above) - double(below)));
    }
  };
  step_derivatives r;
  columns(m.s, r.next_s, r.loss_s);
  columns(p, r.next_theta, r.loss_theta);
  return r;
}

/// The same by `vjp` of every unit vector.
template <has_vjp F>
step_derivatives vjp_jacobians(const F& f, std::type_identity_t<params<const typename F::scalar>> theta,
                               std::type_identity_t<state<const typename F::scalar>> s,
                               const typename F::input& x, std::int64_t t = 0) {
  using T = typename F::scalar;
  edge_memory<F> m(f);
  m.s.assign(s.begin(), s.end());
  const edge<T> e = m.at(theta, t);
  f.step(x, e);
  const auto n = m.s.size(), p = std::size_t(theta.size());
  std::vector<T> unit(n), ds(n), dtheta(p);
  step_derivatives r;
  r.next_s.resize(n * n);
  r.next_theta.resize(n * p);
  for (std::size_t i = 0; i < n; ++i) {
    ds.assign(n, T(0));
    dtheta.assign(p, T(0));
    unit[i] = 1;
    f.vjp(x, const_edge<T>(e), unit, T(0), ds, dtheta);
    unit[i] = 0;
    for (std::size_t j = 0; j < n; ++j) r.next_s[i + j * n] = double(ds[j]);
    for (std::size_t j = 0; j < p; ++j) r.next_theta[i + j * n] = double(dtheta[j]);
  }
  ds.assign(n, T(0));
  dtheta.assign(p, T(0));
  f.vjp(x, const_edge<T>(e), {}, T(1), ds, dtheta);
  r.loss_s.assign(ds.begin(), ds.end());
  r.loss_theta.assign(dtheta.begin(), dtheta.end());
  return r;
}

/// ||a - b|| / ||b||, and ||a|| where b is zero.
template <class A, class B>
double relative_error(const A& a, const B& b) {
  check_size("relative_error", "a", index_t(a.size()), index_t(b.size()));
  double difference = 0, norm = 0;
  auto other = b.begin();
  for (const auto& x : a) {
    const double y = double(*other++);
    difference += (double(x) - y) * (double(x) - y);
    norm += y * y;
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace unroll::testing
