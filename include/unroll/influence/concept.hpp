#pragma once

#include <concepts>

#include "unroll/core/report.hpp"
#include "unroll/rng/chooser.hpp"
#include "unroll/system/concepts.hpp"

// What estimators in forward mode carry instead of a past to go back through: how theta has moved the newest
// state. With n = state / lanes, in each lane apart,
//
//     M = ds/dtheta,    n x params,    0 before the first step
//
// and one step s' = f(theta, s, x) uses and moves it:
//
//     project       g += q M           q = dl/ds, 1 x n: what theta moves in the step's loss through s
//     propagate     M <- J M + F       J = ds'/ds, n x n;  F = ds'/dtheta at fixed s, n x params
//
// Each header of this folder is one way to keep M:
//
//     dense           every entry                            M itself
//     masked          the entries of a pattern               M with the others taken for 0: biased
//     diagonal        the entries of a unit's own parameters M of units that do not listen to each other
//     learned_kernel  the same, moved by a learned kernel    biased
//     sketch          the same, and r directions of the rest M but for what it says is missing
//     kronecker       a product B (x) u' a matrix of theta   random, E B (x) u' = M
//     kronecker_sum   r of them                              random, of the least variance
//     random_paths    every entry                            random, through some of J's: E M = ds/dtheta
//     rank_one        two vectors s~, theta~ of each lane    random, E s~ theta~' = M
//     pre_activation  the same, noise inside the nonlinearity random
namespace unroll::influence {

/// An influence that every step moves by itself, without draws:
///   void reset()                           M = 0
///   index_t propagate(f, x, e, q, g)       ADDS q M to g, then M <- J M + F at the edge e, in one pass over
///                                          M. q is lanes x n. Returns the vjps of f that it took
///   std::size_t bytes() const
///   void visit(v)                          core/visit.hpp
/// One of either kind may have
///   bool adds_owed() const                 propagate takes another argument, behind the others, the dz of
///                                          has_factored_vjp of a system of one lane, or nothing: ADDS dz a'
///                                          to g in the same pass
template <class M, class F>
concept influence_of = std::copyable<M> &&
    requires(M m, const M& c, const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             dstate<const typename F::scalar> q, dparams<typename F::scalar> g) {
  m.reset();
  { m.propagate(f, x, e, q, g) } -> std::same_as<index_t>;
  { c.bytes() } -> std::same_as<std::size_t>;
};

/// An influence that every step moves by draws of the chooser C, named by the index t of the step:
///   void propagate(f, x, e, q, g, chooser, t, spent)    the same, M <- a draw; ADDS what it took to `spent`
/// rank_one is neither: it moves s~ alone, and leaves to its estimator how F is drawn.
template <class M, class F, class C>
concept drawn_influence_of = chooser<C> && std::copyable<M> &&
    requires(M m, const M& c, const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
             dstate<const typename F::scalar> q, dparams<typename F::scalar> g, C& draws, std::int64_t t,
             report& spent) {
  m.reset();
  m.propagate(f, x, e, q, g, draws, t, spent);
  { c.bytes() } -> std::same_as<std::size_t>;
};

}  // namespace unroll::influence
