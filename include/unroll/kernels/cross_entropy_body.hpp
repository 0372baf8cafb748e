#pragma once

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

namespace unroll::kernels {

/// losses_j = log sum_i exp(logits_ij) - logits_j[target_j] in nats, 0 where the target is negative; with
/// `vjp` the logits become dloss (softmax(logits_j) - one_hot(target_j)), 0 where it is negative. logits:
/// vocabulary x n, targets and losses: n, one block a column.
template <class P>
struct cross_entropy_body {
  matrix<P> logits;
  const std::int32_t* targets;
  P* losses;
  bool vjp;
  float dloss;

  static constexpr int threads = 256;
  UNROLL_HD index_t blocks() const { return logits.cols; }
  UNROLL_HD index_t shared_bytes() const { return 2 * shared_size<float>(threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    float* const largest = c.template shared<float>(threads);
    float* const sums = c.template shared<float>(threads);
    P* const at = logits.data + c.block() * logits.stride;
    const index_t n = logits.rows, target = targets[c.block()];
    if (target < 0) {
      c.phase([&](int t) {
        if (t == 0) losses[c.block()] = P(0);
        if (vjp)
          for (index_t i = t; i < n; i += threads) at[i] = P(0);
      });
      return;
    }
    largest_by_halves(c, largest, at, n);
    c.phase([&](int t) {
      float sum = 0;
      for (index_t i = t; i < n; i += threads) sum += math::exp(float(at[i]) - largest[0]);
      sums[t] = sum;
    });
    sum_by_halves(c, sums);
    c.phase([&](int t) {
      if (t == 0) losses[c.block()] = P((largest[0] - float(at[target])) + math::log(sums[0]));
    });
    if (!vjp) return;
    c.phase([&](int t) {
      const float share = dloss / sums[0];
      for (index_t i = t; i < n; i += threads)
        at[i] = P(math::exp(float(at[i]) - largest[0]) * share - (i == target ? dloss : 0.f));
    });
  }
};

}  // namespace unroll::kernels
