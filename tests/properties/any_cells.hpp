#pragma once

#include <string>

#include "tests/properties/random_task.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/system/any_system.hpp"

// The recurrent cells behind one type, so that an estimator is compiled once for all of them.
namespace support {

template <class T>
using any_cell = unroll::any_system<T, unroll::cells::example<T>>;

template <class T>
struct any_task {
  std::string name;
  any_cell<T> cell;
  std::vector<T> theta;
  std::vector<unroll::cells::example<T>> xs;
  unroll::cells::example<T> bad;
  std::shared_ptr<void> owner;
};

template <class T, class Cell, class Options>
any_task<T> make_task(const char* name, unroll::index_t steps, unroll::index_t hidden, unroll::index_t lanes,
                      unroll::index_t out, std::uint64_t seed,
                      unroll::loss_kind loss = unroll::loss_kind::squared_error) {
  Options o;
  o.in = 1;
  o.hidden = hidden;
  o.out = out;
  o.lanes = lanes;
  o.loss = loss;
  const Cell cell(o);
  // a linear recurrence is kept from growing over long sequences
  const double size = name == std::string("linear") ? 0.4 / double(hidden) : 0.6;
  const random_task<Cell> task(cell, steps, unroll::key{seed}, feed::dense, size);
  return {std::string(name) + ", hidden " + std::to_string(hidden) + ", lanes " + std::to_string(lanes) +
              ", out " + std::to_string(out) + ", seed " + std::to_string(seed),
          cell,
          task.theta,
          task.xs,
          task.bad,
          task.owner()};
}

/// One task for each of elman, gru, lstm, linear and lru. The states of lstm and lru are twice as large as
/// `hidden`.
template <class T>
std::vector<any_task<T>> any_tasks(unroll::index_t steps, unroll::index_t hidden, unroll::index_t lanes,
                                   unroll::index_t out, std::uint64_t seed) {
  using namespace unroll::cells;
  return {make_task<T, elman<T>, elman_options>("elman", steps, hidden, lanes, out, seed),
          make_task<T, gru<T>, gru_options>("gru", steps, hidden, lanes, out, seed + 1),
          make_task<T, lstm<T>, lstm_options>("lstm", steps, hidden, lanes, out, seed + 2),
          make_task<T, linear<T>, linear_options>("linear", steps, hidden, lanes, out, seed + 3),
          make_task<T, lru<T>, lru_options>("lru", steps, hidden, lanes, out, seed + 4)};
}

}  // namespace support
