#pragma once

#include <atomic>
#include <cstddef>

#include "unroll/core/report.hpp"
#include "unroll/core/view.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/ranks/ranks.hpp"
#include "unroll/rng/key.hpp"

namespace unroll {

/// How measure() measures.
struct measure_options {
  index_t replicas = 1000;  ///< independent estimates; of the pilot when `precision` is set
  /// Half width of the interval of the relative bias to aim at; 0: take `replicas` as they are. A pilot of
  /// `replicas` draws then chooses the size of a second sample of other draws, never smaller than the pilot.
  /// Only the second is reported, so that the interval keeps its confidence (Stein 1945). The aim is met on
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
  ranks among = {};  ///< that share the replicas, and all get the measurement (ranks/ranks.hpp)
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

}  // namespace unroll
