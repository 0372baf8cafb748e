#pragma once

#include <cmath>

#include "unroll/core/linalg.hpp"

namespace unroll::kernels {

/// Distance between two columns of logits: an odd number of cache lines, so that they spread over the cache.
inline index_t logit_stride(index_t vocabulary) { return ((vocabulary + 15) / 16 | 1) * 16; }

namespace detail {

/// logits <- exp(logits - largest); returns log sum exp(logits), and `share` = 1 / the sum of the results.
template <class T>
T exponentials(T* logits, index_t n, T* share) {
  const T most = simd::largest(logits, n, logits[0]);
  simd::map([most](const auto& u) UNROLL_INLINE { return simd::exp(u - most); }, n, logits, logits);
  const T sum = T(simd::sum<T>([](const auto& u) UNROLL_INLINE { return u; }, n, logits));
  *share = 1 / sum;
  return most + std::log(sum);
}

}  // namespace detail

/// -log softmax(logits)[target] in nats, 0 for a negative target. Leaves the logits changed.
template <class T>
T cross_entropy(T* logits, index_t n, index_t target) {
  if (target < 0) return 0;
  T share;
  const T wanted = logits[target];
  return detail::exponentials(logits, n, &share) - wanted;
}

/// The same; the logits become dloss (softmax(logits) - one_hot(target)), 0 for a negative target.
template <class T>
T cross_entropy_vjp(T* logits, index_t n, index_t target, std::type_identity_t<T> dloss) {
  if (target < 0) {
    std::fill_n(logits, n, T(0));
    return 0;
  }
  T share;
  const T wanted = logits[target];
  const T loss = detail::exponentials(logits, n, &share) - wanted;
  linalg::scale(dloss * share, logits, n);
  logits[target] -= dloss;
  return loss;
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
