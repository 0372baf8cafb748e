#pragma once

#include "unroll/diagnose/exact_gradient.hpp"
#include "unroll/diagnose/measurement.hpp"
#include "unroll/diagnose/sample.hpp"

// What measure() compares an estimator with.
namespace unroll::detail {

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
                             .stop = options.stop,
                             .among = options.among};
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

}  // namespace unroll::detail
