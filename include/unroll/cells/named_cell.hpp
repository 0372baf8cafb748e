#pragma once

#include <string>
#include <string_view>

#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/layer_norm_gru.hpp"
#include "unroll/cells/layer_norm_lstm.hpp"
#include "unroll/cells/leaky.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/cells/min_gru.hpp"
#include "unroll/cells/relu.hpp"
#include "unroll/cells/rtu.hpp"
#include "unroll/cells/stack.hpp"
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

/// "elman", "gru", "lstm", "linear", "lru", "rtu", "min_gru", "leaky", "relu", "layer_norm_gru" or
/// "layer_norm_lstm" of these sizes, or a stack of elman, gru, lstm, lru, rtu or min_gru, "elman_2", "gru_3",
/// "lru_2", ... of as many layers, up to 9; with the parameters that its init() draws from k. Throws
/// unroll::error on another name.
template <class T>
named_cell<T> make_named_cell(std::string_view name, const simple_recurrent_options& n, key k) {
  const auto of = [&](const auto& cell) {
    named_cell<T> made{cell, cell.layout(), parameters<T>(cell.size().params)};
    cell.init(made.theta, k);
    return made;
  };
  const auto like = [&]<class Options>(Options o) {
    o.in = n.in, o.hidden = n.hidden, o.out = n.out, o.loss = n.loss, o.lanes = n.lanes;
    return o;
  };
  if (name == "elman") return of(elman<T>(n));
  if (name == "gru") return of(gru<T>(like(gru_options{})));
  if (name == "lstm") return of(lstm<T>(like(lstm_options{})));
  if (name == "linear") return of(linear<T>(n));
  if (name == "lru") return of(lru<T>(like(lru_options{})));
  if (name == "rtu") return of(rtu<T>(like(rtu_options{})));
  if (name == "min_gru") return of(min_gru<T>(like(min_gru_options{})));
  if (name == "leaky") return of(leaky<T>(like(leaky_options{})));
  if (name == "relu") return of(relu<T>(n));
  if (name == "layer_norm_gru") return of(layer_norm_gru<T>(like(layer_norm_gru_options{})));
  if (name == "layer_norm_lstm") return of(layer_norm_lstm<T>(like(layer_norm_lstm_options{})));
  if (name.size() > 2 && name[name.size() - 2] == '_' && name.back() >= '1' && name.back() <= '9') {
    const std::string_view layer = name.substr(0, name.size() - 2);
    const index_t layers = name.back() - '0';
    if (layer == "elman") return of(stack<elman<T>>(n, layers));
    if (layer == "gru") return of(stack<gru<T>>(like(gru_options{}), layers));
    if (layer == "lstm") return of(stack<lstm<T>>(like(lstm_options{}), layers));
    if (layer == "lru") return of(stack<lru<T>>(like(lru_options{}), layers));
    if (layer == "rtu") return of(stack<rtu<T>>(like(rtu_options{}), layers));
    if (layer == "min_gru") return of(stack<min_gru<T>>(like(min_gru_options{}), layers));
  }
  fail("system", "name",
       "\"" + std::string(name) +
           "\" is none of elman, gru, lstm, linear, lru, rtu, min_gru, leaky, relu, layer_norm_gru, "
           "layer_norm_lstm, "
           "elman_2, gru_2, lstm_2, lru_2, rtu_2, min_gru_2, ...");
}

}  // namespace unroll::cells
