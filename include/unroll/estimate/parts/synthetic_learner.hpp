#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/synthesiser.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"

namespace unroll {

/// What estimators with a learned guess S of what later losses owe to a state have in common: the system, the
/// window of its steps, and S (estimate/parts/synthesiser.hpp). dni and bp_lambda derive from it.
template <class F>
class synthetic_learner {
  static_assert(require_vjp<F>());

 public:
  using system_type = F;                                                  ///< the system
  using scalar = typename F::scalar;                                      ///< of its numbers
  using input = typename F::input;                                        ///< of a step
  static constexpr estimand estimated_gradient = estimand::frozen_theta;  ///< see gradient_estimator
  static constexpr bool unbiased = false;                                 ///< for that gradient
  static constexpr bool random = false;                                   ///< whether it draws

  /// Another S from now on, until reset(). phi: n x (n + 1), column-major, the constant last; n x n where it
  /// is linear. Throws unroll::error on another size.
  void set_synthesiser(view<const scalar> phi) {
    check_size(std::string(guard_.estimator()).append("::set_synthesiser"), "phi", phi.size(),
               synthesiser_.numbers().size());
    std::copy(phi.begin(), phi.end(), synthesiser_.numbers().begin());
  }
  /// phi, as set_synthesiser takes it.
  view<const scalar> synthesiser_numbers() const& { return synthesiser_.numbers(); }
  void synthesiser_numbers() && = delete;
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  const F& system() const { return system_; }  ///< the system

 protected:
  /// name: of the estimator, a literal. window: steps that are kept, at least 1. rate, affine: of S.
  synthetic_learner(const char* name, F&& system, index_t window, double rate, bool affine)
      : system_(std::move(system)),
        guard_(name, system_),
        synthesiser_(system_.size(), rate, affine),
        memory_(system_, window, window),
        delta_(system_.size().state) {}

  /// A new sequence, with S at zero.
  void start_sequence(state<const scalar> s0) {
    guard_.reset(s0);
    memory_.reset(system_, s0);
    synthesiser_.reset();
  }
  /// Of all its memory.
  std::size_t bytes() const { return memory_.bytes() + synthesiser_.bytes() + delta_.bytes(); }

  F system_;                                    ///< the system
  sequence_guard<F> guard_;                     ///< the checks of its calls
  synthesiser<scalar> synthesiser_;             ///< S
  window_buffer<F> memory_;                     ///< the window
  block<scalar, state_cotangent_space> delta_;  ///< what comes back
};

}  // namespace unroll
