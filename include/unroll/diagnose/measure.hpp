#pragma once

#include <optional>

#include "unroll/diagnose/summarise.hpp"

namespace unroll {

namespace detail {

/// The smallest sample whose interval is expected to have half width `aim` (absolute), by doubling and
/// bisection on the size, for the bias and the covariance that a pilot of `pilot` draws has shown.
inline index_t choose_replicas(double bias_square, double trace, double trace_of_square, index_t pilot,
                               double aim, double confidence, index_t most) {
  const auto wide = [&](index_t n) {
    const double shrink = double(pilot) / double(n), beta_square = std::max(0.0, bias_square);
    const auto i = norm_interval(beta_square + trace * shrink, trace * shrink,
                                 trace_of_square * shrink * shrink, confidence);
    return (i.high - i.low) / 2 > aim;
  };
  index_t high = 16;
  while (high < most && wide(high)) high *= 2;
  if (high >= most) return most;
  for (index_t low = high / 2; high - low > std::max<index_t>(1, high / 64);) {
    const index_t middle = (low + high) / 2;
    (wide(middle) ? low : high) = middle;
  }
  return high;
}

}  // namespace detail

/// Bias, variance and cost of an estimator at theta on the sequence xs, against its own estimand. Replicas
/// are copies of `estimator` with keys fold(fold(seed, 0), i), spread over all cores; the result has the same
/// bits for any number of threads, and of ranks that share them (options.among), all of which call this. An
/// estimator that draws nothing and whose first four replicas agree in every bit is taken to be deterministic
/// and stops there. Where the replicas of one that draws all agree, nothing is known of its bias: the
/// interval is [0, inf).
///
/// The reference is the exact gradient for estimand::frozen_theta (of memory models by rematerialisation),
/// and a sample of pathwise gradients (smoothed_gradient.hpp) for a smoothed one, whose own variance
/// widens the intervals. Throws unroll::error on wrong sizes, fewer than two replicas of a random estimator,
/// and where there is no reference and the system has no vjp. Memory: 37 P doubles, 5 P without batches, and
/// a thread 18 P, one gradient and one estimator.
template <class E>
measurement measure(const E& estimator, std::type_identity_t<params<const typename E::scalar>> theta,
                    std::type_identity_t<std::span<const typename E::input>> xs,
                    measure_options options = {}) {
  static_assert(gradient_estimator<E>);
  using T = typename E::scalar;
  constexpr bool random = E::random;
  constexpr bool random_reference = E::estimated_gradient != estimand::frozen_theta;
  check_size("measure", "theta", theta.size(), estimator.system().size().params);
  check_at_least("measure", "replicas", options.replicas, random ? 2 : 1);
  check_at_least("measure", "reference_replicas", options.reference_replicas, 0);
  check_at_least("measure", "threads", options.threads, 0);
  if (!(options.confidence > 0 && options.confidence < 1))
    fail("measure", "confidence", "is " + std::to_string(options.confidence) + ", must be inside (0, 1)");

  std::optional<detail::reference_gradient> reference;
  const auto draw = [&, mine = estimator](key k, dparams<T> g) mutable {
    mine.reset(k);
    report r = mine.advance(theta, xs, g);
    if (r.code == status::ok) r += mine.finish(theta, g);
    return r;
  };
  const auto sample_of = [&](index_t first, index_t count) {
    if (!reference || random_reference)
      reference = detail::reference_of(estimator, theta, xs, options,
                                       first > 0 ? std::max(first, options.reference_replicas) : 0,
                                       options.reference_replicas > 0 ? options.reference_replicas : count);
    return draw_sample<T>(draw, theta.size(), reference->mean, count,
                          {.seed = fold(options.seed, 0),
                           .first = first,
                           .threads = options.threads,
                           .keep_batches = options.keep_batches,
                           .done = options.done,
                           .stop = options.stop,
                           .among = options.among});
  };
  const double rounding = 64 * double(std::numeric_limits<T>::epsilon());
  const auto summary_of = [&](const gradient_sample& sample) {
    measurement m =
        detail::summarise(sample, *reference, random, index_t(xs.size()), rounding, options.confidence);
    m.estimated_gradient = E::estimated_gradient;
    return m;
  };

  if constexpr (!random) {
    const auto few = sample_of(0, std::clamp<index_t>(options.replicas, 2, 4));
    const bool agree = few.count() == few.draws() || few.count() == 0;  // all finite, or none
    if (agree && few.total_variance() == 0) return summary_of(few);
    check_at_least("measure", "replicas", options.replicas, 2);
  }
  if (!(options.precision > 0)) return summary_of(sample_of(0, options.replicas));

  std::optional<gradient_sample> pilot(sample_of(0, options.replicas));
  const measurement guess = summary_of(*pilot);
  const bool stopped = options.among.any(options.stop != nullptr && options.stop->load());
  if (stopped || guess.code != status::ok || guess.replicas < 2 || !(guess.exact_norm > 0)) return guess;
  double trace = 0, trace_of_square = 0;
  detail::mean_covariance(*pilot, trace, trace_of_square);
  trace += reference->trace;
  trace_of_square = detail::add_trace_of_square(trace_of_square, reference->trace_of_square);
  const index_t chosen =
      options.among.broadcast(0, detail::choose_replicas(guess.bias_square, trace, trace_of_square,
                                                         guess.replicas, options.precision * guess.exact_norm,
                                                         options.confidence, options.max_replicas));
  const index_t pilot_draws = pilot->draws();
  pilot.reset();  // its memory is that of the second sample
  measurement result = summary_of(sample_of(options.replicas, std::max(chosen, options.replicas)));
  result.pilot = pilot_draws;
  return result;
}

}  // namespace unroll
