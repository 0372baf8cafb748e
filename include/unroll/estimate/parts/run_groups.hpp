#pragma once

#include <algorithm>
#include <span>

#include "unroll/core/linalg.hpp"
#include "unroll/estimate/parts/sequence_guard.hpp"
#include "unroll/system/window.hpp"

// The loops of estimators that run their inputs in groups: run_groups() in advance(), run_rest() in finish().
namespace unroll {

/// Takes the inputs `xs` one by one and runs them in groups. `memory` has
///   push(x)                 takes one more input
///   pending()               inputs taken but not yet run
///   end()                   inputs taken since reset
///   forward(f, theta, r)    runs the pending inputs; -1, or the first one among them that is not finite
///   drop(n)                 forgets the last n pending inputs
///   check_held()            throws while a resume waits for inputs
/// full(), asked after every push, says whether the group is complete; it is then run, and done(r) is called.
/// The first step that is not finite ends the call: the inputs of this call from that step on are dropped.
/// Inputs that earlier calls took stay, so that the answer does not depend on how they arrived.
template <class F, class Memory, class Full, class Done>
report run_groups(const F& f, params<const typename F::scalar> theta, std::span<const typename F::input> xs,
                  Memory& memory, Full&& full, Done&& done) {
  memory.check_held();
  report r;
  const auto stop = [&r](std::int64_t at) {
    r.code = status::non_finite;
    r.at = at;
    return r;
  };
  if (!linalg::all_finite(theta.data(), theta.size())) return stop(memory.end());
  index_t earlier = memory.pending();
  for (const auto& x : xs) {
    if (!finite_input(f, x)) return stop(memory.end());
    memory.push(x);
    ++r.consumed;
    if (!full()) continue;
    const std::int64_t first = memory.end() - memory.pending();
    const index_t bad = memory.forward(f, theta, r);
    if (bad >= 0) {
      const index_t dropped = memory.pending() - std::max(bad, earlier);
      memory.drop(dropped);
      r.consumed -= dropped;
      return stop(first + bad);
    }
    done(r);
    earlier = 0;
  }
  return r;
}

/// Runs the inputs that still wait at the end of a sequence. None is dropped when a step is not finite.
template <class F, class Memory>
report run_rest(const F& f, params<const typename F::scalar> theta, Memory& memory) {
  memory.check_held();
  report r;
  index_t bad = linalg::all_finite(theta.data(), theta.size()) ? -1 : memory.pending();
  const std::int64_t first = memory.end() - memory.pending();
  if (bad < 0 && memory.pending() > 0) bad = memory.forward(f, theta, r);
  if (bad >= 0) {
    r.code = status::non_finite;
    r.at = first + bad;
  }
  return r;
}

/// First step of a window that was run whose state or loss is not finite, or -1.
template <class F>
index_t first_non_finite(const F& f, const window<typename F::scalar>& w) {
  const index_t n = f.size().state;
  if (linalg::all_finite(w.states + n, w.steps * n) && linalg::all_finite(w.loss, w.steps)) return -1;
  for (index_t i = 0; i < w.steps; ++i)
    if (!linalg::all_finite(w.states + (i + 1) * n, n) || !linalg::all_finite(w.loss + i, 1)) return i;
  return -1;
}

/// Runs a window and enters its cost and, when every step is finite, its losses in `r`. Returns the first
/// step that is not finite, or -1.
template <class F>
index_t run_window(const F& f, std::span<const typename F::input> xs, const window<typename F::scalar>& w,
                   report& r) {
  window_forward(f, xs, w);
  r.steps += w.steps;
  const index_t bad = first_non_finite(f, w);
  if (bad < 0) {
    for (index_t i = 0; i < w.steps; ++i) r.loss += double(w.loss[i]);
    for (const auto& x : xs) r.losses += scored_losses(f, x);
  }
  return bad;
}

}  // namespace unroll
