#pragma once

#include <cstdint>

namespace unroll {

/// How a cell turns its output into a loss: 1/2 ||y - target||^2, or softmax cross entropy in nats.
enum class loss_kind { squared_error, cross_entropy };

}  // namespace unroll

namespace unroll::cells {

/// One time step of all lanes, the input of every built-in cell. A view: the data must live until the
/// estimator has finished. Set x or token, and target, label or neither (a step without loss).
template <class T>
struct example {
  const T* x = nullptr;                 ///< in x lanes numbers, lane after lane
  const T* target = nullptr;            ///< out x lanes numbers, for squared_error
  const std::int32_t* token = nullptr;  ///< one per lane, in [0, in): a one-hot x
  const std::int32_t* label =
      nullptr;  ///< one per lane, in [0, out), for cross_entropy; negative: no loss in that lane
};

}  // namespace unroll::cells
