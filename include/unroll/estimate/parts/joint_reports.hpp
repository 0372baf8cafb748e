#pragma once

#include <cstddef>

#include "unroll/core/report.hpp"

namespace unroll {

/// The reports of several estimators that are given the same inputs, as one: loss and inputs are those of the
/// first, steps, vjps, jvps and bytes are sums. Where one of them meets a step that is not finite the report
/// is that one's, without a loss; if it is another than the first, they are out of step from then on.
struct joint_reports {
  report failed;          ///< of a later one that is not ok: only reset() can follow
  std::size_t bytes = 0;  ///< of all, in the last call

  /// The report at the beginning of a call: not ok where none can be made.
  report begin() {
    report r;
    r.code = failed.code;
    r.at = failed.at;
    if (r.code == status::ok) bytes = 0;
    return r;
  }
  /// Enters that of one of them in r; `first`: of the first one.
  void enter(const report& one, bool first, report& r) {
    bytes += one.bytes;
    if (first) {
      r = one;
    } else {
      r.steps += one.steps;
      r.vjps += one.vjps;
      r.jvps += one.jvps;
    }
    if (one.code == status::ok) return;
    if (!first) failed = one;
    r.code = one.code;
    r.at = one.at;
    r.loss = 0;
    r.losses = r.consumed = 0;
  }
};

}  // namespace unroll
