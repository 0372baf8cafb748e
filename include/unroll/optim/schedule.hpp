#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "unroll/core/config.hpp"

namespace unroll {

// A schedule gives the factor of the rate at step t = 0, 1, ...: opt.step(theta, g, schedule(t)).

/// 1.
struct constant_schedule {
  double operator()(std::int64_t) const { return 1; }
};

/// 1 / (1 + slope sqrt(t)), as in the papers on NoBackTrack, UORO and ARTBP.
struct inverse_sqrt_schedule {
  double slope = 1;  ///< of the decay
  double operator()(std::int64_t t) const { return 1 / (1 + slope * std::sqrt(double(t))); }
};

/// Linear from 0 to 1 in the first `warm_up` steps (step t has (t + 1) / warm_up), then half a cosine down to
/// `last` at step `total`, and `last` from there on (Loshchilov & Hutter 2017).
struct cosine_schedule {
  std::int64_t warm_up = 0;   ///< updates over which the rate rises
  std::int64_t total = 1000;  ///< updates at which it ends
  double last = 0;
  double operator()(std::int64_t t) const {
    if (t < warm_up) return double(t + 1) / double(warm_up);
    if (t >= total) return last;
    const double share = double(t - warm_up) / double(std::max<std::int64_t>(1, total - warm_up));
    return last + (1 - last) * 0.5 * (1 + std::cos(std::acos(-1.0) * share));
  }
};

}  // namespace unroll
