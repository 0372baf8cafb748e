#pragma once

#include <algorithm>

#include "unroll/system/concepts.hpp"

namespace unroll {

/// ADDS dnext . ds'/dtheta of each lane apart to `out` (lane after lane, params each) and dnext . ds'/ds to
/// `ds`, unless that is empty. Returns the number of vjps it took: 1 for one lane; with the lane_vjp hook 1,
/// and 1 more for ds; otherwise one a lane. `zeros` is a state of zeros, for the latter; it is one afterwards
/// too.
template <class F>
index_t lane_vjp(const F& f, const typename F::input& x, const const_edge<typename F::scalar>& e,
                 dstate<const typename F::scalar> dnext, dstate<typename F::scalar> ds,
                 view<typename F::scalar> out, dstate<typename F::scalar> zeros) {
  using T = typename F::scalar;
  const dims d = f.size();
  if (d.lanes == 1) {
    f.vjp(x, e, dnext, T(0), ds, dparams<T>(out.data(), out.size()));
    return 1;
  }
  if constexpr (has_lane_vjp<F>)
    if (supports(f, hook::lane_vjp)) {
      f.lane_vjp(x, e, dnext, out);
      if (ds.empty()) return 1;
      f.vjp(x, e, dnext, T(0), ds, {});
      return 2;
    }
  const index_t n = d.state / d.lanes;
  for (index_t l = 0; l < d.lanes; ++l) {
    std::copy_n(dnext.data() + l * n, n, zeros.data() + l * n);
    f.vjp(x, e, dstate<const T>(zeros), T(0), ds, dparams<T>(out.data() + l * d.params, d.params));
    std::fill_n(zeros.data() + l * n, n, T(0));
  }
  return d.lanes;
}

}  // namespace unroll
