#pragma once

#include <cmath>

#include "unroll/kernels/body.hpp"

// Steps of optimisers over n parameters; nothing changes where *ok is 0, null is not looked at. The factors
// are computed in double by the caller.
namespace unroll::kernels {

/// theta -= rate g.
template <class P>
struct sgd_body {
  float rate;
  P* theta;
  const P* g;
  index_t n;
  const P* ok;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD index_t blocks() const { return by_numbers{n, 1}.blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    if (ok && *ok == P(0)) return;
    by_numbers{n, 1}.run(c, [&](index_t i, index_t) { theta[i] -= rate * g[i]; });
  }
};

/// v = momentum v + g, theta -= rate v, or rate (g + momentum v) where `nesterov`.
template <class P>
struct momentum_body {
  float rate, momentum;
  bool nesterov;
  P* theta;
  const P* g;
  P* v;
  index_t n;
  const P* ok;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD index_t blocks() const { return by_numbers{n, 1}.blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    if (ok && *ok == P(0)) return;
    by_numbers{n, 1}.run(c, [&](index_t i, index_t) {
      v[i] = momentum * v[i] + g[i];
      theta[i] -= rate * (nesterov ? g[i] + momentum * v[i] : v[i]);
    });
  }
};

/// AdamW (Loshchilov & Hutter 2019, algorithm 2): m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
///   theta -= first m / (second sqrt(v) + epsilon) + shrink theta
/// with first = rate / (1 - beta1^t), second = 1 / sqrt(1 - beta2^t), shrink = rate decay.
template <class P>
struct adamw_body {
  float beta1, beta2, rest1, rest2, first, second, epsilon, shrink;
  P* theta;
  const P* g;
  P *m, *v;
  index_t n;
  const P* ok;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD index_t blocks() const { return by_numbers{n, 1}.blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    if (ok && *ok == P(0)) return;
    by_numbers{n, 1}.run(c, [&](index_t i, index_t) {
      m[i] = beta1 * m[i] + rest1 * g[i];
      v[i] = beta2 * v[i] + rest2 * g[i] * g[i];
      theta[i] -= first * m[i] / (sqrtf(v[i]) * second + epsilon) + shrink * theta[i];
    });
  }
};

}  // namespace unroll::kernels
