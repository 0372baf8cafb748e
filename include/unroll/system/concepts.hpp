#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/system/edge.hpp"

// Every optional member of every concept, and who asks for it. What is asked for is the member itself; a
// wrapper forwards what is inside (counted, but for lanes; with_resets; mean_of; lane_parallel; any_system
// the hooks).
//
//   system             start(s)                   start_state      the state before the first step; zero
//    (here)            finite(x)                  finite_input     whether an input can be used; yes
//                      scored(x)                  scored_losses    lanes that have a loss; all
//                      begins(x, lane)            lane_begins      whether it forgets a lane; no
//                      output(theta, s, y)        last_output      y of a state, for whoever acts on it
//                      supports(hook)             supports         which hooks the system inside has
//                      vjp, jvp                   has_vjp, has_jvp
//                      window_workspace, forward, backward         has_window: a window at once
//                      jacobian, immediate        has_jacobian     rtrl; snap, kf_rtrl call only jacobian
//                      row_norms                  has_row_norms    nobacktrack
//                      jacobian_mask, immediate_mask               has_masks: snap
//                      weight_matrices, factors   has_factors      kf_rtrl, preuoro
//                      factored_vjp               has_factored_vjp of one lane: snap, eprop, rflo, kf_rtrl,
//                                                 diagonal_rtrl; the latter also asks for complex_matrices
//                      units, units_apart, diag_jacobian, diag_factors
//                                                 has_diag_jacobian: diagonal_rtrl, rflo, snap
//                      unit_layers, layer_diag_jacobian, layer_diag_factors
//                                                 has_unit_layers: layerwise_rtrl
//                      lane_vjp                   has_lane_vjp     rank-one estimators, rtrl
//                      with_lanes, lanes_from     has_lane_slices  lane_parallel
//   memory model       numbers, executor()        what its numbers are stored in, and where
//    (memory_model.hpp) reads_params()            whether losses have parameters of their own; yes
//                      identity()                 visit_identity: what must be the same in a resume
//                      finite(x), scored(x)       as of a system; one loss a segment
//   estimator          last_state(theta)          has_last_state   the state behind the last input
//    (estimate/        visit(v)                   checkpoint       save and resume
//     concept.hpp)     held(), hold(xs)           held_inputs, hold_inputs: the inputs that a resume needs
//                      mirror(on)                 mean_of          the antithetic stream of one that draws
//                      smoothing()                smoothing_of     required where the gradient is smoothed
//   chooser            visit(v)                   of the estimator that owns it
//   optimiser          visit(v)                   checkpoint
namespace unroll {

/// F : (theta, s, x) -> (s', loss). Enough for evolution strategies and finite differences.
///   using scalar = float or double;  using input = anything copyable, passed through and never looked into
///   dims size() const
///   void step(const input& x, const edge<scalar>& e) const     writes e.next, e.tape and *e.loss
/// Optional members, besides the concepts below:
///   void start(state<scalar> s) const          the state before the first step, where it is not zero
///   bool finite(const input& x) const          false when x holds NaN or infinity; throws when it is invalid
///   index_t scored(const input& x) const       number of lanes that have a loss at this step (a bool: all or
///                                              none of them); without the member every lane has one
///   bool begins(const input& x, index_t lane) const    whether the step forgets the state of that lane and
///                                              begins anew, so that traces beside ds/dtheta end, too
///   void output(params<const scalar> theta, state<const scalar> s, view<scalar> y) const    WRITES y of s,
///                                              lane after lane
template <class F>
concept recurrent = std::copyable<F> &&
    requires(const F& f, const typename F::input& x, const edge<typename F::scalar>& e) {
  requires std::floating_point<typename F::scalar>;
  requires std::copyable<typename F::input>;
  { f.size() } -> std::same_as<dims>;
  { f.step(x, e) } -> std::same_as<void>;
};

/// void vjp(const input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss,
///          dstate<T> ds, dparams<T> dtheta) const
/// ADDS dnext . ds'/ds + dloss . dloss/ds to `ds` and likewise to `dtheta`. Any of dnext (meaning zero), ds
/// and dtheta (meaning not wanted) may be empty.
template <class F>
concept has_vjp = recurrent<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             typename F::scalar one, dstate<const typename F::scalar> dnext, dstate<typename F::scalar> ds,
             dparams<typename F::scalar> dtheta) {
  { f.vjp(x, e, dnext, one, ds, dtheta) } -> std::same_as<void>;
};

/// void jvp(const input& x, const const_edge<T>& e, params_tangent<const T> dtheta,
///          state_tangent<const T> ds, state_tangent<T> dnext, T* dloss) const
/// WRITES the directional derivatives of s' and of the loss, *dloss. Empty dtheta or ds mean zero; dloss may
/// be null.
template <class F>
concept has_jvp = recurrent<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             params_tangent<const typename F::scalar> dtheta, state_tangent<const typename F::scalar> ds,
             state_tangent<typename F::scalar> dnext, typename F::scalar* dloss) {
  { f.jvp(x, e, dtheta, ds, dnext, dloss) } -> std::same_as<void>;
};

/// Whole windows at once, so that the input projection and the parameter gradient of a window are one matrix
/// product each. Must agree with the same number of step and vjp calls up to rounding.
///   index_t window_workspace(index_t steps) const
///   void forward(std::span<const input> xs, const window<T>& w) const
///   void backward(std::span<const input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
///                 dparams<T> dtheta) const
/// ds enters as the cotangent of the last state and leaves as that of the first; dtheta is ADDED to.
template <class F>
concept has_window = has_vjp<F> &&
    requires(const F& f, std::span<const typename F::input> xs, const window<typename F::scalar>& w,
             const injection<typename F::scalar>& in, dstate<typename F::scalar> ds,
             dparams<typename F::scalar> dtheta, index_t steps) {
  { f.window_workspace(steps) } -> std::same_as<index_t>;
  f.forward(xs, w);
  f.backward(xs, w, in, ds, dtheta);
};

/// Dense Jacobians of one step, lane by lane (n = state / lanes), for RTRL.
///   void jacobian(x, e, view<T> J) const            WRITES ds'/ds: lanes blocks of n x n, column-major
///   void immediate(x, e, view<T> M, index_t p0, index_t p1) const
///       ADDS columns [p0, p1) of ds'/dtheta at fixed s to M: lanes blocks of n x params, column-major
template <class F>
concept has_jacobian = recurrent<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             view<typename F::scalar> m, index_t p) {
  f.jacobian(x, e, m);
  f.immediate(x, e, m, p, p);
};

/// void row_norms(x, e, view<T> out) const     WRITES the euclidean norm of each row of ds'/dtheta at fixed
/// s, dims::state of them (one row per state entry, the row of lane l taken over lane l alone), for
/// NoBackTrack.
template <class F>
concept has_row_norms = recurrent<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             view<typename F::scalar> out) {
  f.row_norms(x, e, out);
};

/// Which entries of those Jacobians of a lane can differ from zero for some theta, s and x, for estimators
/// that leave entries out. 0: never; 1: perhaps. A matter of what is connected, not of the numbers.
///   void jacobian_mask(view<std::uint8_t> J) const                             WRITES n x n, column-major
///   void immediate_mask(view<std::uint8_t> F, index_t p0, index_t p1) const
///       WRITES columns [p0, p1) of ds'/dtheta at fixed s: n x (p1 - p0), column-major
template <class F>
concept has_masks = recurrent<F> && requires(const F& f, view<std::uint8_t> mask, index_t p) {
  f.jacobian_mask(mask);
  f.immediate_mask(mask, p, p);
};

/// A matrix W inside of theta, column-major: W(i, j) is theta[first + j stride + i].
struct weight_matrix {
  index_t first = 0;                          ///< of its numbers in theta
  index_t rows = 0, columns = 0, stride = 0;  ///< stride: numbers from a column to the next
};

/// The Jacobian by theta as products, where theta moves s' only as matrices that multiply vectors, z_b = W_b
/// a_b, no number of it in two of them: ds'/dW_b (i, j) = D_b (:, i) a_b (j) with D_b = ds'/dz_b. For
/// estimators that keep it so.
///   std::vector<weight_matrix> weight_matrices() const      the W_b; theta outside of them does not move s'
///   void factors(x, e, view<T> a, view<T> d) const
///       WRITES for every lane the a_b, one behind the other: lanes x (sum of columns); and the D_b: lanes
///       blocks of n x (sum of rows), column-major
template <class F>
concept has_factors = recurrent<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             view<typename F::scalar> m) {
  { f.weight_matrices() } -> std::same_as<std::vector<weight_matrix>>;
  f.factors(x, e, m, m);
};

/// void factored_vjp(x, e, dstate<const T> dnext, T dloss, dstate<T> ds, dparams<T> dtheta, view<T> dz) const
/// vjp, whose gradient by the weight_matrices() is left as factors, dz_b a_b' with the a_b of factors():
/// WRITES the dz_b of every lane one behind the other, lanes x (sum of rows), and ADDS to `ds`, and to
/// `dtheta` what it owes to parameters outside of the matrices.
template <class F>
concept has_factored_vjp = has_vjp<F> && has_factors<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             typename F::scalar one, dstate<const typename F::scalar> dnext, dstate<typename F::scalar> ds,
             dparams<typename F::scalar> dtheta, view<typename F::scalar> dz) {
  f.factored_vjp(x, e, dnext, one, ds, dtheta, dz);
};

/// What the units of a lane do to themselves in a step. There are `units` of them, of m = n / units numbers
/// of the state each: entry i of the state belongs to unit i % units, and so does row i of every matrix of
/// weight_matrices(), which are those of has_factors.
///   index_t units() const              a divisor of n, and of the rows of every matrix
///   bool units_apart() const           whether no unit listens to another and no row moves a unit but its
///                                      own: what follows is then all there is of ds'/ds and ds'/dtheta
///   void diag_jacobian(x, e, view<T> J) const
///       WRITES ds'/ds of every unit by its own state: lanes blocks of units x m x m, column-major; that of
///       number a by number b of unit u is J[(b m + a) units + u]
///   void diag_factors(x, e, view<T> a, view<T> d) const
///       WRITES a as factors() does, lanes x (sum of columns), and of every D_b what is of the unit of the
///       row: for every lane the matrices one behind the other, each rows x m, column-major
/// and may have, where m = 2 and a unit is one complex number, its real part in front of its imaginary part,
///   index_t complex_matrices() const   how many of the matrices, the first ones, are 2 units rows of which
///                                      row u is the real and row units + u the imaginary part of complex
///                                      weights, of which and of its own state the unit is an analytic
///                                      function: its blocks are those of one complex number
template <class F>
concept has_diag_jacobian = recurrent<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             view<typename F::scalar> m) {
  { f.units() } -> std::same_as<index_t>;
  { f.units_apart() } -> std::same_as<bool>;
  { f.weight_matrices() } -> std::same_as<std::vector<weight_matrix>>;
  f.diag_jacobian(x, e, m);
  f.diag_factors(x, e, m, m);
};

/// A layer of a system that is several, one above the other, each of units of its own.
struct unit_layer {
  index_t first = 0, numbers = 0;  ///< of the state of a lane: where it begins, and how many they are
  index_t units = 1;               ///< a divisor of `numbers`, and of the rows of each of its matrices
  index_t matrices = 0;            ///< of weight_matrices(), behind those of the layers before
  bool apart = false;              ///< has_diag_jacobian's units_apart, within the layer
};

/// What has_diag_jacobian says of units, of every layer k for itself: entry i of its part of the state
/// belongs to its unit i % units. What one layer does to another is not in it.
///   std::vector<unit_layer> unit_layers() const
///   void layer_diag_jacobian(index_t k, x, e, view<T> J) const      WRITES as diag_jacobian does, of layer k
///   void layer_diag_factors(index_t k, x, e, view<T> a, view<T> d) const     WRITES as diag_factors does
template <class F>
concept has_unit_layers = recurrent<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             view<typename F::scalar> m, index_t k) {
  { f.unit_layers() } -> std::same_as<std::vector<unit_layer>>;
  { f.weight_matrices() } -> std::same_as<std::vector<weight_matrix>>;
  f.layer_diag_jacobian(k, x, e, m);
  f.layer_diag_factors(k, x, e, m, m);
};

/// void lane_vjp(x, e, dstate<const T> dnext, view<T> dtheta) const
/// ADDS dnext . ds'/dtheta of each lane apart to `dtheta`, lanes x params, for estimators with per-lane
/// noise.
template <class F>
concept has_lane_vjp = has_vjp<F> &&
    requires(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             dstate<const typename F::scalar> dnext, view<typename F::scalar> dtheta) {
  f.lane_vjp(x, e, dnext, dtheta);
};

/// A system whose lanes can be dealt out:
///   F with_lanes(index_t lanes) const                     the same system over fewer lanes
///   input lanes_from(const input& x, index_t first) const the input of the lanes from `first` on
template <class F>
concept has_lane_slices = recurrent<F> && requires(const F& f, const typename F::input& x, index_t n) {
  { f.with_lanes(n) } -> std::same_as<F>;
  { f.lanes_from(x, n) } -> std::same_as<typename F::input>;
};

/// The optional members above, for systems that learn only at run time whether they have them (any_system):
/// such a system also offers `bool supports(hook) const`.
enum class hook {
  vjp,
  jvp,
  window,
  jacobian,
  row_norms,
  masks,
  factors,
  diag_jacobian,
  unit_layers,
  lane_vjp
};

/// Whether the type has the optional member.
template <class F>
constexpr bool has_hook(hook h) {
  switch (h) {
    case hook::vjp:
      return has_vjp<F>;
    case hook::jvp:
      return has_jvp<F>;
    case hook::window:
      return has_window<F>;
    case hook::jacobian:
      return has_jacobian<F>;
    case hook::row_norms:
      return has_row_norms<F>;
    case hook::masks:
      return has_masks<F>;
    case hook::factors:
      return has_factors<F>;
    case hook::diag_jacobian:
      return has_diag_jacobian<F>;
    case hook::unit_layers:
      return has_unit_layers<F>;
    case hook::lane_vjp:
      return has_lane_vjp<F>;
  }
  return false;
}

/// Whether the optional member can be called: what the system itself says, else what its type has.
template <class F>
bool supports(const F& f, hook h) {
  if constexpr (requires { f.supports(h); })
    return f.supports(h);
  else
    return has_hook<F>(h);
}

/// Throws unroll::error where a state is given to a system that has its first one in theta (learned_start).
template <class F>
void check_given_state(const F&, state<const typename F::scalar> s0) {
  if constexpr (requires { requires F::learns_start; })
    if (!s0.empty())
      fail("learned_start", "s0",
           "is given, " + std::to_string(s0.size()) + " numbers, but it is learned: it stands in theta");
}

/// Writes the state in front of the first step: s0 where it is given (of the size of s), else the system's
/// start(), or zero. Throws unroll::error where s0 is given to a system that has it in theta (learned_start).
template <class F>
void start_state(const F& f, state<typename F::scalar> s, state<const typename F::scalar> s0 = {}) {
  check_given_state(f, s0);
  for (index_t i = 0; i < s.size(); ++i) s[i] = s0.empty() ? 0 : s0[i];
  if constexpr (requires { f.start(s); })
    if (s0.empty()) f.start(s);
}

/// Whether the input can be used: the system's own finite(), or true.
template <class F>
bool finite_input(const F& f, const typename F::input& x) {
  if constexpr (requires {
                  { f.finite(x) } -> std::convertible_to<bool>;
                })
    return f.finite(x);
  else
    return true;
}

/// Whether the step forgets the state of a lane: what the system's own begins() says, or false.
template <class F>
bool lane_begins(const F& f, const typename F::input& x, index_t lane) {
  if constexpr (requires { f.begins(x, lane); })
    return f.begins(x, lane);
  else
    return false;
}

/// Losses that an input adds to the sum: what the system's own scored() says, or one a lane. Of a memory
/// model without the member: one a segment.
template <class F>
std::int64_t scored_losses(const F& f, const typename F::input& x) {
  std::int64_t lanes = 1;
  if constexpr (requires { f.size().lanes; }) lanes = f.size().lanes;
  if constexpr (requires { f.scored(x); }) {
    if constexpr (std::same_as<decltype(f.scored(x)), bool>) return f.scored(x) ? lanes : 0;
    return std::int64_t(f.scored(x));
  } else {
    return lanes;
  }
}

}  // namespace unroll
