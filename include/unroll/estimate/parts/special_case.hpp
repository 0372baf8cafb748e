#pragma once

#include <utility>

#include "unroll/estimate/concept.hpp"

namespace unroll {

/// An estimator E under another name and with fewer options: all but its references. Those that are another
/// one at some of its options derive from it, as es does from that of nres.
template <class E, class Options>
class special_case {
 public:
  using system_type = typename E::system_type;                           ///< the system
  using scalar = typename E::scalar;                                     ///< of its numbers
  using input = typename E::input;                                       ///< of a step
  static constexpr estimand estimated_gradient = E::estimated_gradient;  ///< see gradient_estimator
  static constexpr bool unbiased = E::unbiased;                          ///< for that gradient
  static constexpr bool random = E::random;                              ///< whether it draws

  /// A new sequence, from s0 or the system's own start, and a new stream.
  void reset(key k, state<const scalar> s0 = {}) { estimator_.reset(k, s0); }
  /// Whether the twin of the stream is drawn from the next reset on.
  void mirror(bool on) { estimator_.mirror(on); }
  /// Takes xs and ADDS to g what has become known.
  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    return estimator_.advance(theta, xs, g);
  }
  /// ADDS to g what was still in flight: of the last, incomplete window.
  report finish(params<const scalar> theta, dparams<scalar> g) { return estimator_.finish(theta, g); }
  /// The state behind the last input consumed, as that of E; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) const { return estimator_.last_state(theta); }
  /// What save and resume need.
  template <class V>
  void visit(V&& v) {
    estimator_.visit(v);
  }
  const system_type& system() const { return estimator_.system(); }  ///< the system
  const Options& options() const { return options_; }                ///< as they were given
  perturbation smoothing() const { return estimator_.smoothing(); }  ///< of theta
  auto& chooser() { return estimator_.chooser(); }                   ///< the chooser

 protected:
  /// estimator: E with its own options, under the other name.
  special_case(E estimator, const Options& options) : estimator_(std::move(estimator)), options_(options) {}

 private:
  E estimator_;
  Options options_;
};

}  // namespace unroll
