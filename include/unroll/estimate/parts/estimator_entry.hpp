#pragma once

#include "unroll/core/named_numbers.hpp"
#include "unroll/estimate/parts/catalogue_entries.hpp"
#include "unroll/system/any_system.hpp"

namespace unroll::detail {

// What most entries have in common.
struct estimator_entry {
  static constexpr index_t period(const named_numbers&, index_t) { return 1; }
};

// make(f) where its type has what the estimator needs; otherwise make(any_system) refuses it, in the
// estimator's words.
template <bool possible, class F, class Make>
auto made_or_refused(const F& f, Make&& make) {
  if constexpr (possible)
    return make(f);
  else
    return make(any_system<typename F::scalar, typename F::input>(f));
}

}  // namespace unroll::detail
