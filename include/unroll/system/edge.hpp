#pragma once

#include <cstdint>

#include "unroll/core/view.hpp"

namespace unroll {

/// Sizes of a system, in scalars. `lanes` independent sequences lie side by side in one state: lane l owns
/// state[l * state / lanes ...], and the Jacobian ds'/ds is block-diagonal over the lanes.
struct dims {
  index_t params = 0;
  index_t state = 0;
  index_t tape = 0;       ///< what one step saves for its vjp and jvp
  index_t workspace = 0;  ///< working memory of one step, vjp or jvp; its contents mean nothing between calls
  index_t lanes = 1;
};

/// One application of F: (theta, s, x) -> (s', loss). The loss reads s', the state the step has produced,
/// and is summed over the lanes.
template <class T>
struct edge {
  params<const T> theta;
  state<const T> s;
  state<T> next;
  unroll::tape<T> tape;
  T* loss = nullptr;
  view<T> workspace;
  std::int64_t t = 0;  ///< steps since the sequence began
};

/// The same edge after the step: what vjp and jvp may read.
template <class T>
struct const_edge {
  params<const T> theta;
  state<const T> s;
  state<const T> next;
  unroll::tape<const T> tape;
  view<T> workspace;
  std::int64_t t = 0;

  const_edge() = default;
  const_edge(const edge<T>& e)
      : theta(e.theta), s(e.s), next(e.next), tape(e.tape), workspace(e.workspace), t(e.t) {}
};

/// `steps` consecutive edges side by side in memory. The owner provides the memory.
template <class T>
struct window {
  params<const T> theta;
  index_t steps = 0;
  T* states = nullptr;  ///< (steps + 1) states; the first is given, a forward pass writes the others
  T* tape = nullptr;    ///< steps tapes
  T* loss = nullptr;    ///< steps losses
  view<T> workspace;    ///< window_workspace(f, steps) scalars
  std::int64_t t = 0;   ///< index of the first step
};

/// What a backward pass over a window injects: null means one everywhere.
///   delta_i = loss_weight[i] q_i + carry[i] delta_{i+1} J_{i+1}
/// where delta_i is the cotangent of the state that step i produces. carry[i] is 0 at a cut and 1 / (1 - c)
/// where ARTBP compensates; carry[steps - 1] multiplies the cotangent that enters from behind the window.
template <class T>
struct injection {
  const T* loss_weight = nullptr;
  const T* carry = nullptr;
};

}  // namespace unroll
