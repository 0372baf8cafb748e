#pragma once

#include "unroll/core/block.hpp"

namespace support {

/// What an estimator that was reset adds to g over the whole sequence xs, whose end is told.
template <class E, class Theta, class Xs>
unroll::gradient<double> gradient_of(E&& est, const Theta& theta, const Xs& xs) {
  unroll::gradient<double> g(unroll::index_t(theta.size()));
  est.advance(theta, xs, g);
  est.finish(theta, g);
  return g;
}

}  // namespace support
