#pragma once

#include <vector>

#include "unroll/estimate/concept.hpp"

// Backpropagation truncated at random points, written plainly, with a mistake to choose: what the exact tests
// of artbp must be able to tell from the real thing.
namespace mutants {

enum class artbp_mistake {
  none,
  no_compensation,    ///< the adjoint passes an uncut place with factor 1
  compensates_local,  ///< q_t is multiplied by 1 / (1 - c) too
  divides_by_c,       ///< the factor is 1 / c
  drops_loss_at_cut   ///< the last loss of a run is forgotten
};

/// artbp with the constant cut probability c, for sequences in one advance().
template <class F, class C>
class artbp final {
  static_assert(unroll::require_vjp<F>());

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr unroll::estimand estimated_gradient = unroll::estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = true;
  static constexpr std::array references{"tallec2017artbp"};

  artbp(F system, double c, artbp_mistake mistake, C chooser)
      : system_(std::move(system)), c_(c), mistake_(mistake), chooser_(std::move(chooser)) {}

  void reset(unroll::key k, unroll::state<const scalar> = {}) { chooser_.reset(k); }

  unroll::report advance(unroll::params<const scalar> theta, std::span<const input> xs,
                         unroll::dparams<scalar> g) {
    using unroll::index_t;
    const unroll::dims d = system_.size();
    const auto steps = index_t(xs.size());
    std::vector<scalar> states(std::size_t((steps + 1) * d.state)), tape(std::size_t(steps * d.tape)),
        workspace(std::size_t(d.workspace)), delta(std::size_t(d.state)), before(delta);
    scalar loss = 0;
    unroll::report r;
    const auto edge = [&](index_t t) {
      return unroll::edge<scalar>{theta,
                                  {states.data() + t * d.state, d.state},
                                  {states.data() + (t + 1) * d.state, d.state},
                                  {tape.data() + t * d.tape, d.tape},
                                  &loss,
                                  workspace,
                                  t};
    };
    unroll::start_state(system_, {states.data(), d.state});
    for (index_t t = 0; t < steps; ++t) {
      system_.step(xs[std::size_t(t)], edge(t));
      r.loss += double(loss);
    }
    for (index_t t = steps - 1; t >= 0; --t) {
      const bool end = t + 1 == steps, cut = !end && chooser_.coin(t, c_);
      double factor = 1 / (1 - c_);
      if (mistake_ == artbp_mistake::no_compensation) factor = 1;
      if (mistake_ == artbp_mistake::divides_by_c) factor = 1 / c_;
      if (cut) factor = 0;
      for (auto& v : delta) v *= scalar(factor);
      double local = 1;
      if (mistake_ == artbp_mistake::compensates_local && !cut && !end) local = factor;
      if (mistake_ == artbp_mistake::drops_loss_at_cut && cut) local = 0;
      before.assign(before.size(), 0);
      system_.vjp(xs[std::size_t(t)], edge(t), unroll::dstate<const scalar>(delta), scalar(local), before, g);
      delta.swap(before);
    }
    r.consumed = r.losses = r.steps = r.vjps = steps;
    return r;
  }

  unroll::report finish(unroll::params<const scalar>, unroll::dparams<scalar>) { return {}; }
  const F& system() const { return system_; }

 private:
  F system_;
  double c_;
  artbp_mistake mistake_;
  C chooser_;
};

}  // namespace mutants
