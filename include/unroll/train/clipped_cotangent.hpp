#pragma once

#include <algorithm>
#include <utility>

#include "unroll/optim/clip.hpp"
#include "unroll/system/explain.hpp"

namespace unroll::training {

/// F with the cotangent of its state clipped lane by lane on its way back: what the losses behind a step send
/// to a lane of the state that the step has produced is scaled down to the norm `most` before the vjp of F
/// takes it on (Graves 2013, section 2.1, bounds every number of it instead).
///
///   delta_t = q_t + c_t,   c_t = clip(delta_{t+1} J_{t+1}),   g = sum_t delta_t F_t
///
/// q_t, of the step's own loss, stays whole, and so does every gradient whose carried cotangents c are short.
/// Losses, states and tapes are those of F.
///
/// Bias: the vjp is no longer that of F, and no linear map. Exact and unbiased estimators then have the mean
/// of another vector: bptt is biased wherever something was clipped, and artbp is not even unbiased for what
/// bptt then gives, since its compensation is clipped. What truncation cuts, this weakens. Forward estimators
/// find nothing to clip, and do not compile with it: it has no jvp, no Jacobian and no window pass (windows
/// are taken step by step). Lanes may be dealt out, with the same bits. Workspace: that of F and a state.
template <class F>
class clipped_cotangent final {
  static_assert(require_vjp<F>());

 public:
  using scalar = typename F::scalar;
  using input = typename F::input;
  using T = scalar;
  /// Whether the first state is a parameter.
  static constexpr bool learns_start = requires { requires F::learns_start; };

  /// Throws unroll::error unless `most`, a norm, is above 0; infinity clips nothing.
  clipped_cotangent(F system, double most) : f_(std::move(system)), most_(most) {
    if (!(most > 0)) fail("clipped_cotangent", "most", "is " + number_text(most) + ", must be positive");
  }

  const F& system() const { return f_; }
  double most() const { return most_; }  ///< norm of a lane that is let through
  dims size() const {
    dims d = f_.size();
    d.workspace += d.state;
    return d;
  }
  void step(const input& x, const edge<T>& e) const { f_.step(x, e); }
  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    const dims d = f_.size();
    const_edge<T> inner = e;
    inner.workspace = {e.workspace.data(), d.workspace};
    if (dnext.empty()) return f_.vjp(x, inner, dnext, dloss, ds, dtheta);
    const dstate<T> clipped(e.workspace.data() + d.workspace, d.state);
    std::copy(dnext.begin(), dnext.end(), clipped.begin());
    const index_t n = d.state / d.lanes;
    for (index_t first = 0; first < d.state; first += n)
      clip_norm(dparams<T>(clipped.data() + first, n), most_);
    f_.vjp(x, inner, dstate<const T>(clipped), dloss, ds, dtheta);
  }

  void start(state<T> s) const { start_state(f_, s); }
  bool finite(const input& x) const { return finite_input(f_, x); }
  index_t scored(const input& x) const { return index_t(scored_losses(f_, x)); }
  bool begins(const input& x, index_t lane) const { return lane_begins(f_, x, lane); }
  void output(params<const T> theta, state<const T> s, view<T> y) const requires requires(const F& f) {
    f.output(theta, s, y);
  }
  { f_.output(theta, s, y); }
  clipped_cotangent with_lanes(index_t lanes) const requires has_lane_slices<F> {
    return clipped_cotangent(f_.with_lanes(lanes), most_);
  }
  input lanes_from(const input& x, index_t first) const requires has_lane_slices<F> {
    return f_.lanes_from(x, first);
  }

 private:
  F f_;
  double most_;
};

}  // namespace unroll::training
