#pragma once

#include <algorithm>

#include "unroll/system/concepts.hpp"

namespace unroll {

/// Edge i of a window.
template <class F>
edge<typename F::scalar> edge_of(const F& f, const window<typename F::scalar>& w, index_t i) {
  using T = typename F::scalar;
  const dims d = f.size();
  return {w.theta,
          {w.states + i * d.state, d.state},
          {w.states + (i + 1) * d.state, d.state},
          {w.tape + i * d.tape, d.tape},
          w.loss + i,
          view<T>{w.workspace.data(), d.workspace},
          w.t + i};
}

/// Scalars of workspace that window_forward and window_backward need for a window of `steps` steps.
template <class F>
index_t window_workspace(const F& f, index_t steps) {
  const dims d = f.size();
  const index_t own = d.workspace + d.state;  // step by step: the edge's workspace and the next cotangent
  if constexpr (has_window<F>)
    return std::max(own, f.window_workspace(steps));
  else
    return own;
}

/// Runs w.steps steps from w.states[0]; writes states, tapes and losses.
template <class F>
void window_forward(const F& f, std::span<const typename F::input> xs, const window<typename F::scalar>& w) {
  if constexpr (has_window<F>)
    f.forward(xs, w);
  else
    for (index_t i = 0; i < w.steps; ++i) f.step(xs[std::size_t(i)], edge_of(f, w, i));
}

/// window_backward by single vjps.
template <class F>
void steps_backward(const F& f, std::span<const typename F::input> xs, const window<typename F::scalar>& w,
                    const injection<typename F::scalar>& in, dstate<typename F::scalar> ds,
                    dparams<typename F::scalar> dtheta) {
  using T = typename F::scalar;
  const dims d = f.size();
  dstate<T> before{w.workspace.data() + d.workspace, d.state};
  for (index_t i = w.steps - 1; i >= 0; --i) {
    if (in.carry && in.carry[i] != T(1)) {
      // a cut must drop what it cuts even where that is not finite, so no 0 * x
      for (T& v : ds) v = in.carry[i] == T(0) ? T(0) : v * in.carry[i];
    }
    std::fill(before.begin(), before.end(), T(0));
    f.vjp(xs[std::size_t(i)], edge_of(f, w, i), dstate<const T>(ds),
          in.loss_weight ? in.loss_weight[i] : T(1), before, dtheta);
    std::copy(before.begin(), before.end(), ds.begin());
  }
}

/// Walks a window backwards. `ds` enters as the cotangent of the last state and leaves as that of the first;
/// adds the parameter gradient to `dtheta`.
template <class F>
void window_backward(const F& f, std::span<const typename F::input> xs, const window<typename F::scalar>& w,
                     const injection<typename F::scalar>& in, dstate<typename F::scalar> ds,
                     dparams<typename F::scalar> dtheta) {
  if constexpr (has_window<F>)
    f.backward(xs, w, in, ds, dtheta);
  else
    steps_backward(f, xs, w, in, ds, dtheta);
}

}  // namespace unroll
