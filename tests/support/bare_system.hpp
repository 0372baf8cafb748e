#pragma once

#include "unroll/system/concepts.hpp"

namespace support {

/// A system without its optional members: step and vjp only. Windows are then walked step by step.
template <class F>
struct bare {
  using scalar = typename F::scalar;
  using input = typename F::input;
  F f;
  unroll::dims size() const { return f.size(); }
  void step(const input& x, const unroll::edge<scalar>& e) const { f.step(x, e); }
  void vjp(const input& x, const unroll::const_edge<scalar>& e, unroll::dstate<const scalar> dnext,
           scalar dloss, unroll::dstate<scalar> ds, unroll::dparams<scalar> dtheta) const {
    f.vjp(x, e, dnext, dloss, ds, dtheta);
  }
};

}  // namespace support
