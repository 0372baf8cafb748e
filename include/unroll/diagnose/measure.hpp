#pragma once

#include <optional>

#include "unroll/diagnose/bias_interval.hpp"
#include "unroll/diagnose/sample.hpp"
#include "unroll/diagnose/smoothed_gradient.hpp"
#include "unroll/estimate/rematerialise.hpp"

namespace unroll {

struct measure_options {
  index_t replicas = 1000;  ///< independent estimates; of the pilot when `precision` is set
  /// Half width of the interval of the relative bias to aim at; 0: take `replicas` as they are. A pilot of
  /// `replicas` draws then chooses the size of a second, fresh sample, never smaller than the pilot, and only
  /// the second is reported, so that the interval keeps its confidence (Stein 1945). The aim is met on
  /// average, not for certain.
  double precision = 0;
  index_t max_replicas = 1'000'000;  ///< bound of the second sample, where the pilot is not larger
  key seed{1};
  index_t threads = 0;       ///< 0: one a core; never changes a bit but `seconds`
  double confidence = 0.95;  ///< of every interval
  /// Keep 32 sums of draws (32 P doubles), by which the interval sees noise in directions that few draws
  /// hold.
  bool keep_batches = true;
  view<const double> reference = {};        ///< the exact estimand, where it is known
  index_t reference_replicas = 0;           ///< draws of a smoothed reference; 0: as many as of the estimator
  std::atomic<index_t>* done = nullptr;     ///< counts finished replicas, for a progress display
  const std::atomic<bool>* stop = nullptr;  ///< set to true by another thread: report what is complete
};

/// What is known about an estimator at one theta on one sequence; docs/diagnostics.md explains each number.
/// g^ is the estimate of a whole sequence, g the estimand, m the replicas' mean, V the covariance of g^.
struct measurement {
  estimand estimated_gradient = estimand::frozen_theta;
  status code = status::ok;    ///< non_finite: a replica or the reference was not finite
  index_t replicas = 0;        ///< finite replicas, the sample of every number below
  index_t diverged = 0;        ///< replicas that were not finite and are in no other number
  index_t pilot = 0;           ///< replicas that only chose the sample size
  double exact_norm = 0;       ///< ||g||
  double reference_error = 0;  ///< sqrt(tr Cov) of the mean that stands for g, 0 where g is exact

  double bias_square = 0;         ///< unbiased, may be negative: ||m - g||^2 - tr V / N
  double relative_bias = 0;       ///< sqrt(max(0, bias_square)) / ||g||
  double relative_bias_low = 0;   ///< confidence interval of ||E g^ - g|| / ||g||
  double relative_bias_high = 0;  ///< upper end; with the low one, at the confidence asked for
  double variance = 0;            ///< tr V
  double mse = 0;                 ///< bias_square + variance
  double snr = 0;                 ///< ||g||^2 / tr V
  double cosine = 0;           ///< between E g^ and g, the noise taken out of the length of m; nan: all noise
  double mean_norm_ratio = 0;  ///< E ||g^|| / ||g||: not a measure of bias
  double descent = 0;          ///< <E g^, g> / ||g||^2
  double descent_low = 0;      ///< confidence interval of descent
  double descent_high = 0;     ///< upper end
  double worst_z = 0;          ///< largest |m_j - g_j| / its standard error, over what varies
  double worst_z_limit = 0;    ///< Student and Bonferroni; from 12 replicas on P(exceeded) <= 1 - confidence
  /// Effective number of batches that carry the noise of the coordinate of worst_z, about 12 for normal noise
  /// from 32 replicas on; below 7 few replicas hold an event there, or there are too few to tell, and the
  /// limit means nothing. 0: no batches.
  double worst_z_events = 0;
  double max_over_sum = 0;  ///< share of the widest replica in the spread of all
  double events = 0;        ///< effective number of replicas that carry the noise along the mean
  /// Few replicas carry the noise (max_over_sum > 0.1, events < 10), or a random estimator has coordinates
  /// off the estimand in which all replicas agree: do not trust the intervals.
  bool heavy_tails = false;
  index_t batches = 0;  ///< sums of draws behind the interval of the bias; 0: left out

  double steps = 0;              ///< per input: evaluations of F
  double vjps = 0;               ///< per input
  double jvps = 0;               ///< per input
  double seconds = 0;            ///< per input, one thread
  std::size_t bytes = 0;         ///< the estimator holds at most
  std::size_t sample_bytes = 0;  ///< the sample held
  double variance_time = 0;      ///< tr V x seconds per sequence: the price of one unit of precision
};

/// The gradient of the loss of the sequence xs at frozen theta, by plain back-propagation in the scalar of
/// the system. Memory: all states and tapes of the sequence. Throws unroll::error when it is not finite.
template <class F>
block<double> exact_gradient(const F& system, std::type_identity_t<params<const typename F::scalar>> theta,
                             std::type_identity_t<std::span<const typename F::input>> xs) {
  smoothed_gradient<F> path(system, {.max_steps = index_t(xs.size())});
  gradient<typename F::scalar> g(system.size().params);
  const report r = path(key{}, theta, xs, g);
  if (r.code != status::ok) fail("exact_gradient", "xs", "step " + std::to_string(r.at) + " is not finite");
  block<double> result(g.size());
  std::copy(g.begin(), g.end(), result.begin());
  return result;
}
/// The same for a memory model, by rematerialisation. Memory: two memories a segment and one graph.
template <memory_model M>
block<double> exact_gradient(const M& model, std::type_identity_t<params<const typename M::scalar>> theta,
                             std::type_identity_t<std::span<const typename M::input>> xs) {
  rematerialise exact(model, {.segments = std::max<index_t>(1, index_t(xs.size()))});
  gradient<typename M::scalar> g(model.size().params);
  report r = exact.advance(theta, xs, g);
  r += exact.finish(theta, g);
  if (r.code != status::ok)
    fail("exact_gradient", "xs", "segment " + std::to_string(r.at) + " is not finite");
  if (!linalg::all_finite(g.data(), g.size()))
    fail("exact_gradient", "xs", "has finite losses, but their gradient is not");
  block<double> result(g.size());
  std::copy(g.begin(), g.end(), result.begin());
  return result;
}

namespace detail {

struct reference_gradient {
  block<double> mean;
  block<double> variance;      // of the coordinates of the mean
  double trace = 0;            // tr Cov of the mean
  double trace_of_square = 0;  // tr Cov^2 of the mean
  status code = status::ok;
};

// The covariance of the mean of a sample: trace and trace of the square. N / (N - 1) accounts for the trace
// being estimated: it makes 2 tr S^2 the exact null variance of the U-statistic.
inline void mean_covariance(const gradient_sample& s, double& trace, double& trace_of_square) {
  const double n = double(s.count());
  trace = s.total_variance() / n;
  trace_of_square = n < 2 ? 0 : s.trace_of_square() / (n * (n - 1));
}

inline double sum_of_squares(view<const double> x) { return linalg::dot(x.data(), x.data(), x.size()); }

// tr (A + B)^2 <= (sqrt tr A^2 + sqrt tr B^2)^2
inline double add_trace_of_square(double a, double b) {
  const double root = std::sqrt(a) + std::sqrt(b);
  return root * root;
}

/// The estimand of `estimator`: the one given, the exact gradient, or a sample of `count` smoothed gradients
/// whose keys begin at `first`.
template <class E>
reference_gradient reference_of(const E& estimator, params<const typename E::scalar> theta,
                                std::span<const typename E::input> xs, const measure_options& options,
                                index_t first, index_t count) {
  using T = typename E::scalar;
  reference_gradient result;
  result.mean = result.variance = block<double>(theta.size());
  if (!options.reference.empty()) {
    check_size("measure", "reference", options.reference.size(), theta.size());
    std::copy(options.reference.begin(), options.reference.end(), result.mean.begin());
  } else if constexpr (memory_model<typename E::system_type>) {
    result.mean = exact_gradient(estimator.system(), theta, xs);
  } else if constexpr (has_vjp<typename E::system_type>) {
    const perturbation noise = smoothing_of(estimator);
    const smoothed_gradient_options smoothing{index_t(xs.size()), noise.sigma, noise.window};
    count = noise.sigma == 0 ? 1 : std::max<index_t>(2, count);
    const auto draw = [&, path = smoothed_gradient(estimator.system(), smoothing)](
                          key k, dparams<T> g) mutable { return path(k, theta, xs, g); };
    const sample_options how{.seed = fold(options.seed, 1),
                             .first = first,
                             .threads = options.threads,
                             .keep_batches = options.keep_batches,
                             .stop = options.stop};
    const auto sample = draw_sample<T>(draw, theta.size(), view<const double>{}, count, how);
    if (sample.diverged() > 0) result.code = status::non_finite;
    if (sample.count() > 0) {
      std::copy(sample.x().mean().begin(), sample.x().mean().end(), result.mean.begin());
      for (index_t j = 0; j < theta.size(); ++j)
        result.variance[j] = sample.x().variance(j) / double(sample.count());
      mean_covariance(sample, result.trace, result.trace_of_square);
    } else {
      result.trace = std::numeric_limits<double>::infinity();
    }
  } else {
    fail("measure", "reference", "is empty, and the system has no vjp from which to compute it");
  }
  return result;
}

/// `random`: the estimator draws, so that replicas that agree prove nothing.
inline measurement summarise(const gradient_sample& sample, const reference_gradient& reference, bool random,
                             index_t inputs, double rounding, double confidence) {
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  constexpr double infinite = std::numeric_limits<double>::infinity();
  measurement r;
  r.replicas = sample.count();
  r.diverged = sample.diverged();
  if (reference.code != status::ok || r.diverged > 0) r.code = status::non_finite;
  const double n = double(r.replicas), draws = double(std::max<index_t>(1, sample.draws()));
  const double per_input = 1 / (draws * double(std::max<index_t>(1, inputs)));
  r.steps = double(sample.work().steps) * per_input;
  r.vjps = double(sample.work().vjps) * per_input;
  r.jvps = double(sample.work().jvps) * per_input;
  r.seconds = sample.seconds() * per_input;
  r.bytes = sample.work().bytes;
  r.sample_bytes = sample.bytes();
  r.batches = sample.batches().count();

  const view<const double> g = reference.mean;
  const double g_square = std::max(0.0, sum_of_squares(g) - reference.trace);
  r.exact_norm = std::sqrt(g_square);
  r.reference_error = std::sqrt(reference.trace);
  r.descent_low = -infinite;
  r.relative_bias_high = r.descent_high = infinite;
  if (r.replicas == 0 || !std::isfinite(reference.trace)) {
    r.bias_square = r.relative_bias = r.variance = r.mse = r.snr = r.cosine = r.mean_norm_ratio = unknown;
    r.descent = r.worst_z = r.variance_time = unknown;
    return r;
  }

  const view<const double> d = sample.x().mean();
  mean_norm norm{.square = sum_of_squares(d)};
  mean_covariance(sample, norm.trace, norm.trace_of_square);
  norm.trace += reference.trace;
  norm.trace_of_square = add_trace_of_square(norm.trace_of_square, reference.trace_of_square);
  r.bias_square = norm.square - norm.trace;
  r.relative_bias = std::sqrt(std::max(0.0, r.bias_square)) / r.exact_norm;
  r.variance = sample.total_variance();
  r.mse = r.bias_square + r.variance;
  r.snr = g_square / r.variance;
  r.mean_norm_ratio = sample.mean_norm() / r.exact_norm;
  r.variance_time = r.variance * r.seconds * double(inputs);

  double dot = 0, mean_square = 0;
  index_t varying = 0;
  const double g_rms = r.exact_norm / std::sqrt(double(std::max<index_t>(1, g.size())));
  for (index_t j = 0; j < g.size(); ++j) {
    const double m = d[j] + g[j], variance = sample.x().variance(j) / n + reference.variance[j];
    const double slack = rounding * (std::abs(g[j]) + g_rms);  // a difference by rounding alone is none
    dot += m * g[j];
    mean_square += m * m;
    if (variance <= 0) {
      if (random && std::abs(d[j]) > slack) norm.silent += d[j] * d[j];
      continue;
    }
    ++varying;
    const double z = std::abs(d[j]) / std::sqrt(variance + slack * slack);
    if (z <= r.worst_z) continue;
    r.worst_z = z;
    r.worst_z_events = sample.batches().events(j, d);
  }
  if (varying > 0 && r.replicas > 1)
    r.worst_z_limit = -student_quantile((1 - confidence) / (2 * double(varying)), n - 1);
  const double noiseless = mean_square - r.variance / n;
  r.cosine = noiseless > 0 && g_square > 0
                 ? std::clamp(dot / (std::sqrt(noiseless) * r.exact_norm), -1.0, 1.0)
                 : unknown;

  const bool agree = random && !(r.variance > 0);  // no event yet
  const double projection = sample.mean_projection() + sum_of_squares(g);
  r.descent = projection / g_square;
  if (g_square > 0 && !agree) {
    const interval bias = bias_interval(sample, norm, confidence);
    r.relative_bias_low = bias.low / r.exact_norm;
    r.relative_bias_high = bias.high / r.exact_norm;
    // <g^, r> with r the reference mean is unbiased for <E g^, g>; its variance given r, plus m'Sm for r
    const double error =
        sample.projection_variance() / n + std::max(0.0, noiseless) * std::sqrt(reference.trace_of_square);
    const double half = r.replicas < 2 && error > 0 ? infinite
                        : error > 0 ? student_quantile((1 + confidence) / 2, n - 1) * std::sqrt(error)
                                    : 0;
    r.descent_low = (projection - half) / g_square;
    r.descent_high = (projection + half) / g_square;
  }
  if (r.variance > 0) {
    r.max_over_sum = sample.max_over_sum();
    r.events = sample.along().shape().events;
  }
  r.heavy_tails = agree || norm.silent > 0 || (r.variance > 0 && (r.max_over_sum > 0.1 || r.events < 10));
  return r;
}

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
/// bits for any number of threads. An estimator that draws nothing and whose first four replicas agree in
/// every bit is taken to be deterministic and stops there. Where the replicas of one that draws all agree,
/// nothing is known of its bias: the interval is [0, inf).
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
                           .stop = options.stop});
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
  const bool stopped = options.stop != nullptr && options.stop->load();
  if (stopped || guess.code != status::ok || guess.replicas < 2 || !(guess.exact_norm > 0)) return guess;
  double trace = 0, trace_of_square = 0;
  detail::mean_covariance(*pilot, trace, trace_of_square);
  trace += reference->trace;
  trace_of_square = detail::add_trace_of_square(trace_of_square, reference->trace_of_square);
  const index_t chosen =
      detail::choose_replicas(guess.bias_square, trace, trace_of_square, guess.replicas,
                              options.precision * guess.exact_norm, options.confidence, options.max_replicas);
  const index_t pilot_draws = pilot->draws();
  pilot.reset();  // its memory is that of the second sample
  measurement result = summary_of(sample_of(options.replicas, std::max(chosen, options.replicas)));
  result.pilot = pilot_draws;
  return result;
}

}  // namespace unroll
