#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/rng/key.hpp"
#include "unroll/system/explain.hpp"
#include "unroll/system/window.hpp"

namespace unroll {

/// An input of with_resets.
template <class X>
struct resettable {
  X x;  ///< the cell's input
  /// One a lane, not 0 where the lane begins anew in front of this step; null: none does. A view, as x may
  /// be.
  const std::uint8_t* reset = nullptr;
};

/// Inputs of with_resets: those of a cell with `lanes` lanes, and flags in the same order, one a lane of
/// every step, which must live as long. Throws unroll::error where they are not steps x lanes, or `lanes` is
/// below 1.
template <class X>
std::vector<resettable<X>> resettable_inputs(std::span<const X> xs, std::span<const std::uint8_t> flags,
                                             index_t lanes) {
  check_at_least("resettable_inputs", "lanes", lanes, 1);
  check_size("resettable_inputs", "flags", index_t(flags.size()), index_t(xs.size()) * lanes);
  std::vector<resettable<X>> all;
  for (const X& x : xs) all.push_back({x, flags.data() + index_t(all.size()) * lanes});
  return all;
}

/// F with episodes: a lane whose flag is set is put back to the start of F (its start(), else zero) before
/// the step, so that episodes of different lengths lie one behind the other in the lanes of one batch, under
/// every estimator.
///
///   F'(theta, s, x) = F(theta, R s + (1 - R) s_0, x.x),     R: 0 in the flagged lanes, 1 in the others
///
/// No gradient passes through a reset: dF'/ds is zero in a flagged lane, and s_0 does not depend on theta, as
/// that in front of a sequence does not. The gradient is the sum of those of the episodes run apart; what an
/// estimator truncates, draws or perturbs stays where it was in the sequence, whatever the episodes. The
/// first step needs no flag, so that a sequence may begin from an s0 of the caller. edge.t goes on counting.
///
/// It has the optional members of F, with Learned all but unit_layers; window passes too where the input of F
/// is trivially copyable: from one step with a flag to the next, and in one where no flag is set, with the
/// bits of F. Workspace: that of F and two states, for windows three and the inputs. No call allocates.
///
/// With Learned (learned_start) that start is a parameter, too: see there.
template <class F, bool Learned = false>
class with_resets final {
  static_assert(require_recurrent<F>());

 public:
  using scalar = typename F::scalar;
  using input = resettable<typename F::input>;
  using T = scalar;
  /// Whether windows of F are run between resets.
  static constexpr bool keeps_windows = has_window<F> && std::is_trivially_copyable_v<typename F::input>;

  /// Whether the first state is a parameter.
  static constexpr bool learns_start = Learned;

  explicit with_resets(F system) : f_(std::move(system)) {}

  const F& system() const { return f_; }
  dims size() const {
    dims d = f_.size();
    d.workspace += 2 * d.state;
    if (Learned) d.params += n();
    if (Learned && has_jacobian<F> && d.lanes == 1) d.workspace += n() * n();
    return d;
  }
  /// The names of F, and s0 behind them.
  unroll::layout layout() const requires requires(const F& f) { f.layout(); }
  {
    unroll::layout l = f_.layout();
    if (Learned) l.add("s0", n());
    return l;
  }
  /// What F draws, and s0 as F starts.
  void init(params<T> theta, key k) const requires requires(const F& f) { f.init(theta, k); }
  {
    f_.init(theta.part(0, f_.size().params), k);
    if constexpr (Learned) {
      std::vector<T> s(std::size_t(f_.size().state));
      start_state(f_, state<T>(s));
      std::copy_n(s.begin(), n(), theta.data() + f_.size().params);
    }
  }
  void start(state<T> s) const { start_state(f_, s); }
  bool finite(const input& x) const { return finite_input(f_, x.x); }
  index_t scored(const input& x) const { return index_t(scored_losses(f_, x.x)); }
  bool begins(const input& x, index_t lane) const {
    return (x.reset && x.reset[lane] != 0) || lane_begins(f_, x.x, lane);
  }
  bool supports(hook h) const {
    if (Learned && f_.size().lanes > 1 &&
        (h == hook::jacobian || h == hook::row_norms || h == hook::factors || h == hook::diag_jacobian ||
         h == hook::lane_vjp))
      return false;
    if (Learned && (h == hook::row_norms || h == hook::factors) && !unroll::supports(f_, hook::jacobian))
      return false;
    return unroll::supports(f_, h) && (h != hook::window || keeps_windows);
  }
  with_resets with_lanes(index_t lanes) const requires has_lane_slices<F> {
    return with_resets(f_.with_lanes(lanes));
  }
  input lanes_from(const input& x, index_t first) const requires has_lane_slices<F> {
    return {f_.lanes_from(x.x, first), x.reset ? x.reset + first : nullptr};
  }
  void output(params<const T> theta, state<const T> s, view<T> y) const requires requires(const F& f) {
    f.output(theta, s, y);
  }
  { f_.output(own(theta), s, y); }

  void step(const input& x, const edge<T>& e) const {
    edge<T> inner = e;
    inner.theta = own(e.theta);
    inner.s = from(x, e.theta, e.s, e.workspace, e.t);
    inner.workspace = workspace_of_f(e.workspace);
    f_.step(x.x, inner);
  }
  void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const requires has_vjp<F> {
    const const_edge<T> inner = reset_edge(x, e);
    if constexpr (Learned)
      if (any(x, e.t) && !dtheta.empty()) {  // what arrives at the start of a flagged lane is s0's
        dstate<T> before{spare(e.workspace), f_.size().state};
        std::fill(before.begin(), before.end(), T(0));
        f_.vjp(x.x, inner, dnext, dloss, before, own(dtheta));
        flagged(x, e.t, [&](index_t first, index_t n) {
          for (index_t i = 0; i < n; ++i) dtheta[f_.size().params + i] += before[first + i];
          std::fill_n(before.data() + first, n, T(0));
        });
        for (index_t i = 0; i < ds.size(); ++i) ds[i] += before[i];
        return;
      }
    const bool keep = any(x, e.t) && !ds.empty();  // what ds holds for flagged lanes stays, to the bit
    T* held = spare(e.workspace);
    if (keep) std::copy(ds.begin(), ds.end(), held);
    f_.vjp(x.x, inner, dnext, dloss, ds, own(dtheta));
    const auto restore = [&](index_t first, index_t n) { std::copy_n(held + first, n, ds.data() + first); };
    if (keep) flagged(x, e.t, restore);
  }
  void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const requires has_jvp<F> {
    const const_edge<T> inner = reset_edge(x, e);
    const bool moves = Learned && !dtheta.empty();  // s0
    if (any(x, e.t) && (moves || !ds.empty())) {
      T* masked = spare(e.workspace);
      if (ds.empty())
        std::fill_n(masked, f_.size().state, T(0));
      else
        std::copy(ds.begin(), ds.end(), masked);
      flagged(x, e.t, [&](index_t first, index_t n) {
        if (moves)
          std::copy_n(dtheta.data() + f_.size().params, n, masked + first);
        else
          std::fill_n(masked + first, n, T(0));
      });
      ds = {masked, f_.size().state};
    }
    f_.jvp(x.x, inner, own(dtheta), ds, dnext, dloss);
  }

  void jacobian(const input& x, const const_edge<T>& e, view<T> j) const requires has_jacobian<F> {
    f_.jacobian(x.x, reset_edge(x, e), j);
    flagged(x, e.t, [&](index_t first, index_t n) { std::fill_n(j.data() + first * n, n * n, T(0)); });
  }
  void immediate(const input& x, const const_edge<T>& e, view<T> m, index_t p0,
                 index_t p1) const requires has_jacobian<F> {
    const index_t P = f_.size().params;
    if (p0 < P) f_.immediate(x.x, reset_edge(x, e), m, p0, std::min(p1, P));
    if (!Learned || p1 <= P || !any(x, e.t)) return;
    const T* by_start = jacobian_of_f(x, e);
    for (index_t p = std::max(p0, P); p < p1; ++p)
      for (index_t i = 0; i < n(); ++i) m[p * n() + i] += by_start[(p - P) * n() + i];
  }
  void row_norms(const input& x, const const_edge<T>& e, view<T> out) const requires has_row_norms<F> {
    f_.row_norms(x.x, reset_edge(x, e), out);
    if constexpr (Learned && has_jacobian<F>)
      if (any(x, e.t)) {
        const T* by_start = jacobian_of_f(x, e);
        for (index_t i = 0; i < n(); ++i) {
          T sum = out[i] * out[i];
          for (index_t k = 0; k < n(); ++k) sum += by_start[k * n() + i] * by_start[k * n() + i];
          out[i] = std::sqrt(sum);
        }
      }
  }
  void jacobian_mask(view<std::uint8_t> j) const requires has_masks<F> { f_.jacobian_mask(j); }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const requires has_masks<F> {
    const index_t P = f_.size().params;
    if (p0 < P) f_.immediate_mask(mask, p0, std::min(p1, P));
    if (!Learned || p1 <= P) return;
    // whatever the state reaches, s0 reaches; the whole pattern is asked for, so that any range can be cut
    // from it
    std::vector<std::uint8_t> j(std::size_t(n() * n()));
    f_.jacobian_mask(view<std::uint8_t>(j));
    for (index_t p = std::max(p0, P); p < p1; ++p)
      std::copy_n(j.data() + (p - P) * n(), n(), mask.data() + (p - p0) * n());
  }
  std::vector<weight_matrix> weight_matrices() const
      requires(has_factors<F> || has_diag_jacobian<F> || has_unit_layers<F>) {
    std::vector<weight_matrix> all = f_.weight_matrices();
    if (Learned) all.push_back({f_.size().params, n(), 1, n()});  // s0 times 1 where the lane begins
    return all;
  }
  void factors(const input& x, const const_edge<T>& e, view<T> a, view<T> d) const requires has_factors<F> {
    f_.factors(x.x, reset_edge(x, e), a, d);
    if constexpr (Learned && has_jacobian<F>) {
      a[a.size() - 1] = T(any(x, e.t));
      std::copy_n(jacobian_of_f(x, e), n() * n(), d.data() + d.size() - n() * n());
    }
  }
  index_t units() const requires has_diag_jacobian<F> { return f_.units(); }
  bool units_apart() const requires has_diag_jacobian<F> { return f_.units_apart(); }
  void diag_jacobian(const input& x, const const_edge<T>& e, view<T> j) const requires has_diag_jacobian<F> {
    f_.diag_jacobian(x.x, reset_edge(x, e), j);
    const index_t m = f_.size().state / f_.size().lanes / f_.units();  // numbers of a unit
    flagged(x, e.t, [&](index_t first, index_t n) { std::fill_n(j.data() + first * m, n * m, T(0)); });
  }
  void diag_factors(const input& x, const const_edge<T>& e, view<T> a,
                    view<T> d) const requires has_diag_jacobian<F> {
    const const_edge<T> inner = reset_edge(x, e);
    f_.diag_factors(x.x, inner, a, d);
    if constexpr (Learned) {  // row i of s0 moves its unit: number b of unit u is row b units + u
      const index_t units = f_.units(), m = n() / units;
      a[a.size() - 1] = T(any(x, e.t));
      T* to = d.data() + d.size() - n() * m;
      f_.diag_jacobian(x.x, inner, {spare(e.workspace), n() * m});
      for (index_t b = 0; b < m; ++b)
        for (index_t k = 0; k < m; ++k)
          for (index_t u = 0; u < units; ++u)
            to[k * n() + b * units + u] = spare(e.workspace)[(b * m + k) * units + u];
    }
  }
  // not Learned: rows of s0 move units of every layer; if constexpr: see counted
  std::vector<unit_layer> unit_layers() const requires(has_unit_layers<F> && !Learned) {
    if constexpr (has_unit_layers<F>)
      return f_.unit_layers();
    else
      return {};
  }
  void layer_diag_jacobian(index_t k, const input& x, const const_edge<T>& e, view<T> j) const
      requires(has_unit_layers<F> && !Learned) {
    if constexpr (has_unit_layers<F>) f_.layer_diag_jacobian(k, x.x, reset_edge(x, e), j);
    const index_t block = j.size() / f_.size().lanes;  // of a lane
    flagged(x, e.t,
            [&](index_t first, index_t n) { std::fill_n(j.data() + first / n * block, block, T(0)); });
  }
  void layer_diag_factors(index_t k, const input& x, const const_edge<T>& e, view<T> a, view<T> d) const
      requires(has_unit_layers<F> && !Learned) {
    if constexpr (has_unit_layers<F>) f_.layer_diag_factors(k, x.x, reset_edge(x, e), a, d);
  }
  void lane_vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext,
                view<T> dtheta) const requires has_lane_vjp<F> {
    if constexpr (Learned)  // one lane, as supports() says
      vjp(x, e, dnext, T(0), {}, dparams<T>(dtheta.data(), dtheta.size()));
    else
      f_.lane_vjp(x.x, reset_edge(x, e), dnext, dtheta);
  }

  // workspace of a window: what F or a single step needs, behind it the inputs of F side by side
  index_t window_workspace(index_t steps) const requires keeps_windows {
    const auto bytes = index_t(sizeof(X)) * steps + index_t(alignof(X));
    return passes(steps) + (bytes + index_t(sizeof(T)) - 1) / index_t(sizeof(T));
  }
  void forward(std::span<const input> xs, const window<T>& w) const requires keeps_windows {
    for (index_t i = 0, end = 0; i < w.steps; i = end) {
      end = run_end(xs, i, w.steps, w.t);
      if (any(xs[std::size_t(i)], w.t + i))
        step(xs[std::size_t(i)], edge_of(*this, w, i));
      else
        f_.forward(inputs(xs, w, i, end), inner_part(w, i, end));
    }
  }
  void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const requires keeps_windows {
    for (index_t end = w.steps, i = end; end > 0; end = i) {
      i = end - 1;
      const bool single = any(xs[std::size_t(i)], w.t + i);
      while (!single && i > 0 && !any(xs[std::size_t(i - 1)], w.t + i - 1)) --i;
      const injection<T> here{in.loss_weight ? in.loss_weight + i : nullptr,
                              in.carry ? in.carry + i : nullptr};
      if (single)
        steps_backward(*this, xs.subspan(std::size_t(i), 1), part(w, i, end), here, ds, dtheta);
      else
        f_.backward(inputs(xs, w, i, end), inner_part(w, i, end), here, ds, own(dtheta));
    }
  }

 private:
  using X = typename F::input;

  index_t n() const { return f_.size().state / f_.size().lanes; }
  // theta of F, or a gradient or a tangent of it; empty stays empty.
  template <class U, class Space>
  view<U, Space> own(view<U, Space> theta) const {
    return theta.empty() ? theta : theta.part(0, f_.size().params);
  }
  // Whether a lane begins at this step, number t of the sequence.
  bool any(const input& x, std::int64_t t) const {
    if (Learned && t == 0) return true;
    if (!x.reset) return false;
    const index_t lanes = f_.size().lanes;
    return std::any_of(x.reset, x.reset + lanes, [](std::uint8_t flag) { return flag != 0; });
  }
  /// visit(first, n): the n state entries from `first` on are those of a lane that begins.
  template <class Visit>
  void flagged(const input& x, std::int64_t t, const Visit& visit) const {
    const bool all = Learned && t == 0;
    if (!x.reset && !all) return;
    for (index_t l = 0; l < f_.size().lanes; ++l)
      if (all || x.reset[l] != 0) visit(l * n(), n());
  }

  // workspace of a step: that of F | the state it starts from | a spare state | with one lane, ds'/ds of F
  view<T> workspace_of_f(view<T> workspace) const { return {workspace.data(), f_.size().workspace}; }
  T* spare(view<T> workspace) const { return workspace.data() + f_.size().workspace + f_.size().state; }
  const T* jacobian_of_f(const input& x, const const_edge<T>& e) const {
    T* j = spare(e.workspace) + f_.size().state;
    f_.jacobian(x.x, reset_edge(x, e), {j, n() * n()});
    return j;
  }
  state<const T> from(const input& x, params<const T> theta, state<const T> s, view<T> workspace,
                      std::int64_t t) const {
    if (!any(x, t)) return s;
    const dims d = f_.size();
    T* to = workspace.data() + d.workspace;
    T* start = spare(workspace);
    if (!Learned) start_state(f_, state<T>(start, d.state));
    std::copy(s.begin(), s.end(), to);
    flagged(x, t, [&](index_t first, index_t n) {
      std::copy_n(Learned ? theta.data() + d.params : start + first, n, to + first);
    });
    return {to, d.state};
  }
  const_edge<T> reset_edge(const input& x, const const_edge<T>& e) const {
    const_edge<T> inner = e;
    inner.theta = own(e.theta);
    inner.s = from(x, e.theta, e.s, e.workspace, e.t);
    inner.workspace = workspace_of_f(e.workspace);
    return inner;
  }

  index_t passes(index_t steps) const {
    return std::max(unroll::window_workspace(f_, steps), size().workspace + size().state);
  }
  /// A step with a flag stands alone; others run to the next one.
  index_t run_end(std::span<const input> xs, index_t i, index_t steps, std::int64_t t) const {
    if (any(xs[std::size_t(i)], t + i)) return i + 1;
    for (++i; i < steps && !any(xs[std::size_t(i)], t + i);) ++i;
    return i;
  }
  std::span<const X> inputs(std::span<const input> xs, const window<T>& w, index_t i, index_t end) const {
    void* begin = w.workspace.data() + passes(w.steps);
    auto bytes = std::size_t(w.steps) * sizeof(X) + alignof(X);
    auto* to = static_cast<X*>(std::align(alignof(X), std::size_t(w.steps) * sizeof(X), begin, bytes));
    for (index_t k = i; k < end; ++k) std::construct_at(to + (k - i), xs[std::size_t(k)].x);
    return {to, std::size_t(end - i)};
  }
  window<T> part(const window<T>& w, index_t i, index_t end) const {
    const dims d = f_.size();
    return {w.theta, end - i, w.states + i * d.state, w.tape + i * d.tape, w.loss + i, w.workspace, w.t + i};
  }

  window<T> inner_part(const window<T>& w, index_t i, index_t end) const {
    window<T> inner = part(w, i, end);
    inner.theta = own(w.theta);
    return inner;
  }

  F f_;
};

/// F with a flag a lane.
template <class F>
with_resets(F) -> with_resets<F>;

}  // namespace unroll
