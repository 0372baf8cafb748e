#pragma once

#include "tests/support/golden_columns.hpp"

namespace golden {

/// The golden network that says what its units do to themselves.
struct golden_units : golden_columns {
  index_t units() const { return 2; }
  bool units_apart() const { return false; }
  void diag_jacobian(const input&, const unroll::const_edge<double>& e, unroll::view<double> j) const {
    for (index_t i = 0; i < 2; ++i) j[i] = e.tape[i] * e.theta[3 * i];
  }
  void diag_factors(const input& in, const unroll::const_edge<double>& e, unroll::view<double> out,
                    unroll::view<double> d) const {
    for (index_t j = 0; j < 4; ++j) out[j] = a(in, e.s, j);
    for (index_t i = 0; i < 2; ++i) d[i] = e.tape[i];
  }
};

}  // namespace golden
