#pragma once

#include "unroll/diagnose/bias_interval.hpp"
#include "unroll/diagnose/reference_gradient.hpp"

// The numbers of a measurement, from a sample of estimates and what they are compared with.
namespace unroll::detail {

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
  for (index_t j = 0; j < g.size(); ++j) {
    const double m = d[j] + g[j], variance = sample.x().variance(j) / n + reference.variance[j];
    const double slack = rounding * (std::abs(g[j]) + r.exact_norm);  // off by rounding alone: not at all
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

}  // namespace unroll::detail
