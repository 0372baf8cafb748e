#pragma once

#include "unroll/diagnose/interval.hpp"
#include "unroll/diagnose/sample.hpp"

namespace unroll {

/// What norm_interval needs to know of the mean m of a sample.
struct mean_norm {
  double square = 0;           ///< ||m||^2
  double silent = 0;           ///< its part in coordinates in which all draws agree
  double trace = 0;            ///< of the covariance of m
  double trace_of_square = 0;  ///< of the square of that covariance
};

/// Confidence interval of ||E x|| from a sample of x: norm_interval, with three corrections for noise that
/// few draws carry.
///
/// - The low end is 0 unless the draws also lean along the mean of those before them (along_mean): a Student
///   bound of one scalar mean must be above 0 too.
/// - Where the noise along the mean is skewed, its third moment moves the end on the side of which the sample
///   has seen too little (score_distance with a Student quantile; norm_interval knows the normal one).
/// - Coordinates in which all draws agree may wait for their first event: they count for the high end only.
inline interval bias_interval(const gradient_sample& sample, const mean_norm& m, double confidence) {
  interval result = norm_interval(m.square, m.trace, m.trace_of_square, confidence);
  if (!(sample.total_variance() > 0)) return result;
  if (m.silent > 0)
    result.low = norm_interval(m.square - m.silent, m.trace, m.trace_of_square, confidence).low;
  const along_mean& along = sample.along();
  const double p = (1 + confidence) / 2, n = double(sample.count()), projected = along.count();
  if (projected < 2) return {0, result.high};
  const double q = student_quantile(p, projected - 1);
  const along_mean::shape_type shape = along.shape();
  const double slope = shape.variance > 0 ? shape.third / shape.variance : 0;
  const auto beyond = [&](double s) {
    return std::max(
        0.0, score_distance(q, shape.variance, s, n) - normal_quantile(p) * std::sqrt(shape.variance / n));
  };
  const bool leans = along.mean() > score_distance(q, along.variance(), -slope, projected);
  return {leans ? std::max(0.0, result.low - beyond(-slope)) : 0, result.high + beyond(slope)};
}

}  // namespace unroll
