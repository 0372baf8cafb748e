#pragma once

#include <cstdint>
#include <string>

#include "unroll/core/error.hpp"
#include "unroll/rng/key.hpp"

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
  /// One per lane, in [0, out), for cross_entropy; negative: no loss in that lane.
  const std::int32_t* label = nullptr;
  /// One per lane, for squared_error; 0: no loss in that lane, whose target is then not looked at. Null:
  /// every lane has one.
  const std::uint8_t* mask = nullptr;
  /// Of what the system itself draws at this step (dropout of a stack); null: the key of its options. A key
  /// for each sequence draws anew where the steps are counted from 0 again.
  const key* draws = nullptr;
  /// How many lanes these arrays have; 0: not said. A cell of another number refuses to read them.
  index_t lanes = 0;
};

/// Throws unroll::error where the arrays of x are said to have other lanes than who reads them, which has
/// `lanes`; `reader_has` says so in the message.
template <class T>
void check_lanes(const char* reader, const example<T>& x, index_t lanes,
                 const char* reader_has = "the cell has ") {
  if (x.lanes != 0 && x.lanes != lanes)
    fail(reader, "x.lanes", "is " + std::to_string(x.lanes) + ", " + reader_has + std::to_string(lanes));
}

/// Throws unless the sizes that the options of all recurrent cells have are possible.
template <class Options>
void check_options(const char* cell, const Options& o) {
  check_at_least(cell, "in", o.in, 0);
  check_at_least(cell, "hidden", o.hidden, 1);
  check_at_least(cell, "out", o.out, 0);
  check_at_least(cell, "lanes", o.lanes, 1);
}

/// The options of the same cell over another number of lanes.
template <class Options>
Options with_lanes(Options options, index_t lanes) {
  options.lanes = lanes;
  return options;
}

/// The example of the lanes from `first` on, of a cell with `in` inputs and `out` outputs a lane.
template <class T>
example<T> lanes_from(const example<T>& x, index_t first, index_t in, index_t out) {
  example<T> part = x;
  if (part.x) part.x += first * in;
  if (part.target) part.target += first * out;
  if (part.token) part.token += first;
  if (part.label) part.label += first;
  if (part.mask) part.mask += first;
  part.lanes = 0;
  return part;
}

}  // namespace unroll::cells
