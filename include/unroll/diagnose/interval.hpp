#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "unroll/core/error.hpp"

namespace unroll {

/// A confidence interval.
struct interval {
  double low = 0;   ///< lower end
  double high = 0;  ///< upper end
};

/// P(Z <= x) for a standard normal Z.
inline double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

/// The x with P(Z <= x) = p, by Newton's method on log P from the tail bound sqrt(-2 log p).
inline double normal_quantile(double p) {
  if (!(p > 0 && p < 1)) fail("normal_quantile", "p", "is " + std::to_string(p) + ", must be inside (0, 1)");
  if (p > 0.5) return -normal_quantile(1 - p);
  double x = -std::sqrt(std::max(0.0, -2 * std::log(2 * p)));
  for (int k = 0; k < 60; ++k) {
    const double P = normal_cdf(x), density = std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
    const double move = (std::log(P) - std::log(p)) * P / density;
    x -= move;
    if (std::abs(move) < 1e-15 * (1 + std::abs(x))) break;
  }
  return x;
}

/// Quantile of Student's t. At 1, 2 and 4 degrees of freedom in closed form, at 3 from the distribution
/// function, which is; from 5 on by the Cornish-Fisher expansion around the normal (Abramowitz & Stegun
/// 26.7.5), below 0.3 % error for p up to 0.999.
inline double student_quantile(double p, double freedom) {
  if (!(p > 0 && p < 1)) fail("student_quantile", "p", "is " + std::to_string(p) + ", must be inside (0, 1)");
  if (!(freedom >= 1))
    fail("student_quantile", "freedom", "is " + std::to_string(freedom) + ", must be at least 1");
  if (p < 0.5) return -student_quantile(1 - p, freedom);
  const double pi = std::acos(-1.0), both = 4 * p * (1 - p);
  if (freedom == 1) return std::tan(pi * (p - 0.5));
  if (freedom == 2) return 2 * (p - 0.5) * std::sqrt(2 / both);
  if (freedom == 4)
    return 2 * std::sqrt(std::max(0.0, std::cos(std::acos(std::sqrt(both)) / 3) / std::sqrt(both) - 1));
  if (freedom == 3) {  // P = 1/2 + (x / (1 + x^2) + atan x) / pi, x = t / sqrt 3, rises; with x = tan a
    double low = 0, high = pi / 2;
    for (int k = 0; k < 60; ++k) {
      const double a = (low + high) / 2;
      (std::sin(a) * std::cos(a) + a < pi * (p - 0.5) ? low : high) = a;
    }
    return std::sqrt(3.0) * std::tan(low);
  }
  const double z = normal_quantile(p), z2 = z * z, n = freedom;
  return z + z * (z2 + 1) / (4 * n) + z * ((5 * z2 + 16) * z2 + 3) / (96 * n * n) +
         z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / (384 * n * n * n);
}

/// A mean of a sample, and how far its confidence interval reaches on either side.
struct mean_with_margin {
  double mean = 0;    ///< NaN of nothing
  double margin = 0;  ///< half the width of the interval; 0 of one number, which has none
};
/// Of numbers that are about normal, by Student's t.
inline mean_with_margin student_mean(std::span<const double> x, double confidence) {
  const double n = double(x.size());
  mean_with_margin m;
  for (const double v : x) m.mean += v;
  m.mean /= n;
  if (!(n > 1)) return m;
  double squares = 0;
  for (const double v : x) squares += (v - m.mean) * (v - m.mean);
  m.margin = student_quantile((1 + confidence) / 2, n - 1) * std::sqrt(squares / (n - 1) / n);
  return m;
}

/// The distance d >= 0 from the mean of n draws at which a value of the expectation is a quantile q away,
/// when the variance of a draw grows with the distance as that of a count of rare events does:
///
///   d^2 = q^2 (variance + slope d) / n
///
/// slope = third central moment / variance is 1 in units of an event for a Poisson count, for which this is
/// the score interval (Wilson 1927). A falling variance (slope < 0) is taken to stay.
inline double score_distance(double q, double variance, double slope, double n) {
  const double half = q * q * std::max(0.0, slope) / (2 * n);
  return half + std::sqrt(q * q * variance / n + half * half);
}

/// Regularised lower incomplete gamma function P(shape, x): series, continued fraction (modified Lentz), and
/// from shape 1000 on the Wilson-Hilferty approximation.
inline double gamma_cdf(double shape, double x) {
  if (!(shape > 0)) fail("gamma_cdf", "shape", "is " + std::to_string(shape) + ", must be positive");
  if (!(x > 0)) return 0;
  if (shape > 1000) {
    const double c = 1 / (9 * shape);
    return normal_cdf((std::cbrt(x / shape) - 1 + c) / std::sqrt(c));
  }
  const double front = std::exp(shape * std::log(x) - x - std::lgamma(shape));
  if (x < shape + 1) {
    double term = 1 / shape, sum = term;
    for (double a = shape + 1; term > sum * 1e-16; a += 1) sum += term *= x / a;
    return front * sum;
  }
  const double tiny = std::numeric_limits<double>::min();
  double b = x + 1 - shape, c = 1 / tiny, d = 1 / b, h = d;
  for (int i = 1; i < 100000; ++i) {
    const double a = -i * (i - shape);
    b += 2;
    d = a * d + b;
    if (std::abs(d) < tiny) d = tiny;
    c = b + a / c;
    if (std::abs(c) < tiny) c = tiny;
    d = 1 / d;
    h *= d * c;
    if (std::abs(d * c - 1) < 1e-15) break;
  }
  return 1 - front * h;
}

/// Interval for beta = ||E x|| from the mean m of a sample of vectors, given square = ||m||^2 and the first
/// two moments of the covariance S of m, trace = tr S and trace_of_square = tr S^2.
///
/// ||m||^2 has mean tr S + beta^2, variance 2 tr S^2 + 4 b'Sb and third central moment 8 tr S^3 + 24 b'S^2b,
/// b = E x. sqrt(tr S^2) bounds S from above and stands for it in the terms with b, so that the interval is
/// conservative; tr S^3 is taken from equal eigenvalues, (tr S^2)^2 / tr S. The distribution is taken to be
/// the shifted gamma with these three moments (Pearson III; for beta = 0 it is Satterthwaite's gamma, 1946,
/// and exact for equal eigenvalues). The interval holds every beta for which `square` lies between the
/// (1 -+ confidence) / 2 quantiles. Its low end is 0 exactly when `square` does not exceed the upper quantile
/// under beta = 0.
inline interval norm_interval(double square, double trace, double trace_of_square, double confidence) {
  if (!(confidence > 0 && confidence < 1))
    fail("norm_interval", "confidence", "is " + std::to_string(confidence) + ", must be inside (0, 1)");
  if (!(square >= 0) || !std::isfinite(trace) || !std::isfinite(trace_of_square))
    return {0, std::numeric_limits<double>::infinity()};
  const double unit = std::sqrt(trace), observed = std::sqrt(square);
  if (!(trace > 0) || std::isinf(square / trace)) return {observed, observed};
  if (trace != 1) {  // in units of the noise: powers of its moments would leave the range of a double
    const interval scaled = norm_interval(square / trace, 1, trace_of_square / trace / trace, confidence);
    return {scaled.low * unit, scaled.high * unit};
  }
  if (!(trace_of_square > 0)) return {0, std::numeric_limits<double>::infinity()};  // lost in rounding
  const double tail = (1 - confidence) / 2, lambda = std::sqrt(trace_of_square);
  const auto cdf = [&](double beta) {
    const double mean = trace + beta * beta, variance = 2 * trace_of_square + 4 * beta * beta * lambda;
    const double third = trace_of_square * (8 * trace_of_square / trace + 24 * beta * beta);
    const double ratio = third / variance, shape = 4 * variance / (ratio * ratio);
    return gamma_cdf(shape, shape + (square - mean) * std::sqrt(shape / variance));
  };
  const auto solve = [&](double p) {  // the beta with cdf(beta) = p; cdf falls with beta
    if (cdf(0) <= p) return 0.0;
    double low = 0, high = observed + std::sqrt(trace);
    while (cdf(high) > p) high *= 2;
    for (int k = 0; k < 200 && high - low > 1e-12 * high; ++k) {
      const double middle = (low + high) / 2;
      (cdf(middle) > p ? low : high) = middle;
    }
    return (low + high) / 2;
  };
  return {solve(1 - tail), solve(tail)};
}

}  // namespace unroll
