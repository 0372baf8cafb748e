#pragma once

#include <string>
#include <string_view>

#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/core/block.hpp"
#include "unroll/system/any_system.hpp"

namespace unroll::cells {

/// A cell chosen by name when the program runs: one type for all of them.
template <class T>
struct named_cell {
  any_system<T, example<T>> system;  ///< the cell
  layout names;                      ///< of its parameters
  parameters<T> theta;               ///< their initial values
};

/// "elman", "gru", "lstm", "linear" or "lru" of these sizes, with the parameters that its init() draws from
/// k. Throws unroll::error on another name.
template <class T>
named_cell<T> make_named_cell(std::string_view name, const simple_recurrent_options& n, key k) {
  const auto of = [&](const auto& cell) {
    named_cell<T> made{cell, cell.layout(), parameters<T>(cell.size().params)};
    cell.init(made.theta, k);
    return made;
  };
  if (name == "elman") return of(elman<T>(n));
  if (name == "gru")
    return of(gru<T>({.in = n.in, .hidden = n.hidden, .out = n.out, .loss = n.loss, .lanes = n.lanes}));
  if (name == "lstm")
    return of(lstm<T>({.in = n.in, .hidden = n.hidden, .out = n.out, .loss = n.loss, .lanes = n.lanes}));
  if (name == "linear") return of(linear<T>(n));
  if (name == "lru")
    return of(lru<T>({.in = n.in, .hidden = n.hidden, .out = n.out, .loss = n.loss, .lanes = n.lanes}));
  fail("system", "name", "\"" + std::string(name) + "\" is none of elman, gru, lstm, linear, lru");
}

}  // namespace unroll::cells
