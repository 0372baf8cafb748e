#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/cells/example.hpp"
#include "unroll/system/any_system.hpp"

// The recurrent cells behind one type, so that an estimator is compiled once for all of them, and the cells
// once for all estimators: in any_cells.cpp.
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

/// A task for the cell of that name, with one input.
template <class T>
any_task<T> make_task(std::string_view cell, unroll::index_t steps, unroll::index_t hidden,
                      unroll::index_t lanes, unroll::index_t out, std::uint64_t seed,
                      unroll::loss_kind loss = unroll::loss_kind::squared_error);

/// One for each of elman, gru, lstm, linear and lru. The states of lstm and lru are twice as large as
/// `hidden`.
template <class T>
std::vector<any_task<T>> any_tasks(unroll::index_t steps, unroll::index_t hidden, unroll::index_t lanes,
                                   unroll::index_t out, std::uint64_t seed) {
  std::vector<any_task<T>> all;
  for (const char* cell : {"elman", "gru", "lstm", "linear", "lru"})
    all.push_back(make_task<T>(cell, steps, hidden, lanes, out, seed++));
  return all;
}
/// Others, leaky, min_gru and rtu, for what has to hold on every cell and is seen in few steps. By name
/// alone: "stack" and "elman_2", two layers of gru or elman, which keep no units apart; "relu",
/// "layer_norm_gru" and "layer_norm_lstm", whose losses are smooth within less than those of the others.
template <class T>
std::vector<any_task<T>> more_tasks(unroll::index_t steps, unroll::index_t hidden, unroll::index_t lanes,
                                    unroll::index_t out, std::uint64_t seed) {
  std::vector<any_task<T>> all;
  for (const char* cell : {"leaky", "min_gru", "rtu"})
    all.push_back(make_task<T>(cell, steps, hidden, lanes, out, seed++));
  return all;
}

}  // namespace support
