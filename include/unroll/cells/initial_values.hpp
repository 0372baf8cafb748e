#pragma once

#include <cmath>
#include <string>

#include "unroll/core/error.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::cells {

namespace detail {

// The name in front of the last dot, and what stands behind it: "l0." and "w_h".
struct layer_part {
  std::string layer, name;
};
inline layer_part part_of(const layout_block& b) {
  const std::size_t cut = b.name.rfind('.') + 1;
  return {b.name.substr(0, cut), b.name.substr(cut)};
}
// W_h of the layer of a block; only a cell that has one can be asked.
inline const layout_block& state_matrix(const char* function, const layout& names, const std::string& layer) {
  for (const layout_block& b : names.blocks())
    if (b.name == layer + "w_h") return b;
  fail(function, "cell", "has no matrix \"" + layer + "w_h\"");
}

}  // namespace detail

/// WRITES what PyTorch draws for nn.RNN, GRU and LSTM, of one layer or a stack, and an nn.Linear as readout:
/// every number uniform in +-1/sqrt(hidden) of its layer. b is the sum of two draws, as PyTorch has two
/// biases, but of the candidate of a GRU, whose second one is b_hn. init() of a cell draws b once. theta:
/// size().params numbers.
template <class Cell>
void init_torch(const Cell& cell, params<typename Cell::scalar> theta, key k) {
  using T = typename Cell::scalar;
  const layout names = cell.layout();
  check_size("init_torch", "theta", theta.size(), names.size());
  index_t hidden = 0;
  for (const layout_block& b : names.blocks()) {
    const auto [layer, name] = detail::part_of(b);
    if (name == "w_h") hidden = b.cols;  // the first of its layer; a readout follows the last one
    if (hidden == 0) detail::state_matrix("init_torch", names, layer);
    const double bound = 1 / std::sqrt(double(hidden));
    index_t twice = name == "b" ? b.rows : 0;
    for (const layout_block& c : names.blocks())
      if (name == "b" && c.name == layer + "b_hn") twice -= c.rows;
    for (index_t i = 0; i < b.size(); ++i) {
      const auto draw = [&](std::int64_t t) {
        return bound * (2 * draw_uniform(k, t, std::uint32_t(b.offset + i)) - 1);
      };
      theta[b.offset + i] = T(draw(0) + (i < twice ? draw(1) : 0));
    }
  }
}

/// WRITES the start of Le, Jaitly and Hinton, A Simple Way to Initialize Recurrent Networks of Rectified
/// Linear Units (2015): W_h = scale I, biases 0, all other weights normal with standard deviation 0.001. For
/// `relu`, and stacks of it; throws unroll::error where W_h is not square. theta: size().params numbers.
template <class Cell>
void init_irnn(const Cell& cell, params<typename Cell::scalar> theta, key k, double scale = 1) {
  using T = typename Cell::scalar;
  const layout names = cell.layout();
  check_size("init_irnn", "theta", theta.size(), names.size());
  for (const layout_block& b : names.blocks()) {
    const auto [layer, name] = detail::part_of(b);
    if (name == "w_h" && b.rows != b.cols)
      fail("init_irnn", "cell",
           "has a W_h of " + std::to_string(b.rows) + " x " + std::to_string(b.cols) + ", must be square");
    for (index_t i = 0; i < b.size(); ++i) {
      T& to = theta[b.offset + i];
      if (name == "w_h")
        to = T(i % b.rows == i / b.rows ? scale : 0);
      else if (name.front() == 'w')
        to = T(0.001 * draw_normal(k, 0, std::uint64_t(b.offset + i)));
      else
        to = 0;
    }
  }
}

}  // namespace unroll::cells
