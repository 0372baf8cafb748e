#pragma once

#include <cstddef>
#include <cstdint>

#include "unroll/core/visit.hpp"

namespace unroll {

/// A diverging run is a result, not an exception.
enum class status { ok, non_finite };

/// What one call of an estimator did and spent. A "step", "vjp" or "jvp" covers all lanes at once.
struct report {
  double loss = 0;  ///< sum of the losses that became known in this call (over steps and lanes)
  /// How many losses that is: one a step and lane, those left out that the system says have none (its member
  /// scored()), so that loss / losses is their mean; 0 where no step was scored.
  std::int64_t losses = 0;
  std::int64_t consumed = 0;  ///< inputs taken; smaller than what was offered only when `code` is not ok
  std::int64_t steps = 0;     ///< evaluations of F, replays included
  std::int64_t vjps = 0;      ///< vector-Jacobian products
  std::int64_t jvps = 0;      ///< Jacobian-vector products
  std::size_t bytes = 0;      ///< memory the estimator holds
  /// ok: every state and loss was finite. Their gradient may have overflowed all the same, which the
  /// optimisers tell (optim/sgd.hpp).
  status code = status::ok;
  std::int64_t at = -1;  ///< first step (counted from reset) that was not finite, or -1

  /// Adds the work and the losses of `other`; keeps the larger `bytes` and the first failure.
  report& operator+=(const report& other) {
    loss += other.loss;
    losses += other.losses;
    consumed += other.consumed;
    steps += other.steps;
    vjps += other.vjps;
    jvps += other.jvps;
    if (other.bytes > bytes) bytes = other.bytes;
    if (code == status::ok && other.code != status::ok) {
      code = other.code;
      at = other.at;
    }
    return *this;
  }

  template <class V>
  void visit(V&& v) {
    v("loss", view<double>(&loss, 1));
    visit_integer(v, "losses", losses);
    visit_integer(v, "consumed", consumed);
    visit_integer(v, "steps", steps);
    visit_integer(v, "vjps", vjps);
    visit_integer(v, "jvps", jvps);
    visit_integer(v, "bytes", bytes);
    visit_integer(v, "code", code, 0, 1);
    visit_integer(v, "at", at, -1);
  }
};

}  // namespace unroll
