#pragma once

#include <string>
#include <utility>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"
#include "unroll/influence/concept.hpp"

namespace unroll {

/// In place of a chooser: nothing is drawn.
struct no_draws {};

/// An estimator that looks forward one step at a time, all but its name, its options and what it claims: a
/// window of one step and the influence M = ds/dtheta, which every step uses and moves
/// (influence/concept.hpp),
///
///   g += dl_t/ds_{t-1} . M_{t-1} + dl_t/dtheta,    M_t = J_t M_{t-1} + F_t, or what M does in its place
///
/// C: the chooser of an influence that draws. The estimators that are this with one influence or another
/// derive from it, as rtrl does.
template <class F, class M, class C = no_draws>
class forward_learner {
 public:
  using system_type = F;                                                  ///< the system
  using scalar = typename F::scalar;                                      ///< of its numbers
  using input = typename F::input;                                        ///< of a step
  static constexpr estimand estimated_gradient = estimand::frozen_theta;  ///< see gradient_estimator
  static constexpr bool random = !std::is_same_v<C, no_draws>;            ///< whether M draws
  static_assert(random ? influence::drawn_influence_of<M, F, C> : influence::influence_of<M, F>);

  /// A new sequence, from s0 or the system's own start, and a new stream.
  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    if constexpr (random) chooser_.reset(k);
    memory_.reset(system_, s0);
    influence_.reset();
  }
  /// Whether the twin of the stream is drawn from the next reset on.
  void mirror(bool on) requires(random) {
    if constexpr (random) chooser_.mirror(on);  // clang 14 instantiates it in any case
  }

  /// Takes each of xs and ADDS to g what its loss owes to theta.
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    report r = run_steps(
        system_, theta, xs, memory_, delta_, g,
        [&](const auto& e, report& spent) {
          if constexpr (random)
            propagate(e, g, chooser_, memory_.end() - 1, spent);
          else
            spent.vjps += propagate(e, g);
        },
        view<scalar>(owed_));
    r.bytes = bytes();
    return r;
  }

  /// Nothing is ever in flight.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    report r;
    r.bytes = bytes();
    return guard_.close(r);
  }

  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  /// What save and resume need.
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, options_, system_);
    if constexpr (random) {
      visit_part(v, "chooser", chooser_);
      memory_.visit(v, {.room = 1});
      visit_part(v, "influence", influence_);
    } else {
      memory_.visit(v, {.room = 1});
      influence_.visit(v);
    }
  }
  const F& system() const { return system_; }         ///< the system
  C& chooser() requires(random) { return chooser_; }  ///< the chooser

 protected:
  /// name: of the estimator, a literal. options: those that its numbers depend on, "reach 2"; may be empty.
  /// make(system): the influence, once the options were checked.
  template <class Make>
  forward_learner(const char* name, F system, std::string options, Make&& make, C chooser = C{})
      : system_(std::move(system)),
        guard_(name, system_),
        options_(std::move(options)),
        chooser_(std::move(chooser)),
        memory_(system_, 1, 1),
        influence_(make(std::as_const(system_))),
        delta_(system_.size().state) {
    if constexpr (may_add_owed)
      if (system_.size().lanes == 1 && supports(system_, hook::factors) && influence_.adds_owed()) {
        index_t rows = 0;
        for (const weight_matrix& w : system_.weight_matrices()) rows += w.rows;
        owed_ = buffer<scalar>(rows);
      }
    reset({});
  }
  const M& kept_influence() const { return influence_; }  ///< M
  M& kept_influence() { return influence_; }              ///< M

 private:
  // Whether M adds what the loss owes to the matrices in its own pass over g. Only of one lane: the gradient
  // of several is one product.
  static constexpr bool may_add_owed = has_factored_vjp<F> && requires(const M& m) { m.adds_owed(); };

  template <class... Draws>
  auto propagate(const const_edge<scalar>& e, dparams<scalar> g, Draws&&... draws) {
    if constexpr (may_add_owed)
      return influence_.propagate(system_, memory_.x(0), e, delta_, g, draws..., view<const scalar>(owed_));
    else
      return influence_.propagate(system_, memory_.x(0), e, delta_, g, draws...);
  }
  std::size_t bytes() const { return memory_.bytes() + influence_.bytes() + delta_.bytes() + owed_.bytes(); }

  F system_;
  sequence_guard<F> guard_;
  std::string options_;
  [[no_unique_address]] C chooser_;
  window_buffer<F> memory_;
  M influence_;
  block<scalar, state_cotangent_space> delta_;
  buffer<scalar> owed_;  // dz of a step (has_factored_vjp), or empty
};

}  // namespace unroll
