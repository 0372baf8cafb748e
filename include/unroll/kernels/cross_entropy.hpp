#pragma once

#include <cmath>

#include "unroll/kernels/softmax.hpp"

namespace unroll::kernels {

/// Distance between two columns of logits: an odd number of cache lines, so that they spread over the cache.
inline index_t logit_stride(index_t vocabulary) { return ((vocabulary + 15) / 16 | 1) * 16; }

/// -log softmax(logits)[target] of n logits in nats, 0 for a negative target. Leaves the logits changed.
template <class T>
T cross_entropy(T* logits, index_t n, index_t target) {
  if (target < 0) return 0;
  const T wanted = logits[target];
  const softmax_scale<T> scale = exponentials(logits, n, logits);
  return scale.largest + std::log(scale.sum) - wanted;
}

/// The same; the n logits become dloss (softmax(logits) - one_hot(target)), 0 for a negative target.
template <class T>
T cross_entropy_vjp(T* logits, index_t n, index_t target, std::type_identity_t<T> dloss) {
  if (target < 0) {
    std::fill_n(logits, n, T(0));
    return 0;
  }
  const T wanted = logits[target];
  const softmax_scale<T> scale = exponentials(logits, n, logits);
  linalg::scale(dloss * (1 / scale.sum), logits, n);
  logits[target] -= dloss;
  return scale.largest + std::log(scale.sum) - wanted;
}

#if defined(UNROLL_INSTANCE)
#define UNROLL_CROSS_ENTROPY_OF(T)                          \
  UNROLL_INSTANCE T cross_entropy<T>(T*, index_t, index_t); \
  UNROLL_INSTANCE T cross_entropy_vjp<T>(T*, index_t, index_t, T);
UNROLL_CROSS_ENTROPY_OF(float)
UNROLL_CROSS_ENTROPY_OF(double)
#undef UNROLL_CROSS_ENTROPY_OF
#endif

}  // namespace unroll::kernels
