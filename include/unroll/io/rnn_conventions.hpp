#pragma once

#include <array>
#include <string_view>

#include "unroll/core/config.hpp"

namespace unroll {

/// The library whose arrays a file holds.
enum class rnn_source { torch, keras, linen, nnx, equinox, haiku };

/// "torch", ...
constexpr const char* name_of(rnn_source s) {
  constexpr std::array names{"torch", "keras", "linen", "nnx", "equinox", "haiku"};
  return names[static_cast<std::size_t>(s)];
}

/// What the numbers of an array are in our cells.
enum class rnn_part {
  w_x,    ///< the matrix of the input
  w_h,    ///< the matrix of the state
  w_x_h,  ///< both, columns of the input first
  b       ///< a bias; several are added
};

/// One array of a recurrent layer as another library has it.
struct rnn_array {
  /// `#` stands for the number of the layer; `*` for a gate: one array for each. A `.` may be another sign.
  std::string_view name;
  /// Its blocks of `hidden` outputs, in its order, by our gates: i f g o of an LSTM, r z n of a GRU, h of a
  /// plain network. c: the bias inside of the reset product (b_hn). Z: our z with the other sign, since 1 -
  /// logistic(v) is logistic(-v). F: our f, to whose bias the library adds 1. `|`: the next row of a matrix
  /// of biases.
  std::string_view gates;
  rnn_part part = rnn_part::b;
  bool outputs_last = false;  ///< a weight is [inputs, outputs], not [outputs, inputs]
};

/// How one kind of layer of a library lies in a file.
struct rnn_convention {
  rnn_source source;                ///< whose it is
  std::string_view layer;           ///< its name there
  int gates;                        ///< of our cell: 1, 3 or 4
  bool reset_before;                ///< whether a GRU resets the state in front of the product
  std::array<rnn_array, 8> arrays;  ///< those that it has, behind them none

  /// How many arrays.
  constexpr std::size_t size() const {
    std::size_t n = 0;
    while (n < arrays.size() && !arrays[n].name.empty()) ++n;
    return n;
  }
};

/// Every layer that load_rnn reads, as these versions have it: torch 2.15.0, keras 3.15.1, flax 0.12.8 (linen
/// and nnx), equinox 0.13.8, dm-haiku 0.0.17. Where two layers have the same arrays one stands for both:
/// linen's LSTMCell for its OptimizedLSTMCell, torch's nn.LSTM for nn.LSTMCell but for the `_l#`.
inline constexpr auto rnn_conventions = [] {
  using enum rnn_source;
  using enum rnn_part;
  return std::array{
      rnn_convention{torch,
                     "nn.LSTM",
                     4,
                     false,
                     {{{"weight_ih_l#", "ifgo", w_x},
                       {"weight_hh_l#", "ifgo", w_h},
                       {"bias_ih_l#", "ifgo"},
                       {"bias_hh_l#", "ifgo"}}}},
      rnn_convention{torch,
                     "nn.GRU",
                     3,
                     false,
                     {{{"weight_ih_l#", "rzn", w_x},
                       {"weight_hh_l#", "rzn", w_h},
                       {"bias_ih_l#", "rzn"},
                       {"bias_hh_l#", "rzc"}}}},
      rnn_convention{torch,
                     "nn.RNN",
                     1,
                     false,
                     {{{"weight_ih_l#", "h", w_x},
                       {"weight_hh_l#", "h", w_h},
                       {"bias_ih_l#", "h"},
                       {"bias_hh_l#", "h"}}}},
      rnn_convention{
          keras,
          "LSTM",
          4,
          false,
          {{{"kernel", "ifgo", w_x, true}, {"recurrent_kernel", "ifgo", w_h, true}, {"bias", "ifgo"}}}},
      rnn_convention{
          keras,
          "GRU",
          3,
          false,
          {{{"kernel", "zrn", w_x, true}, {"recurrent_kernel", "zrn", w_h, true}, {"bias", "zrn|zrc"}}}},
      rnn_convention{
          keras,
          "GRU, reset_after=False",
          3,
          true,
          {{{"kernel", "zrn", w_x, true}, {"recurrent_kernel", "zrn", w_h, true}, {"bias", "zrn"}}}},
      rnn_convention{keras,
                     "SimpleRNN",
                     1,
                     false,
                     {{{"kernel", "h", w_x, true}, {"recurrent_kernel", "h", w_h, true}, {"bias", "h"}}}},
      rnn_convention{
          linen,
          "LSTMCell",
          4,
          false,
          {{{"i*.kernel", "ifgo", w_x, true}, {"h*.kernel", "ifgo", w_h, true}, {"h*.bias", "ifgo"}}}},
      rnn_convention{linen,
                     "GRUCell",
                     3,
                     false,
                     {{{"i*.kernel", "rzn", w_x, true},
                       {"h*.kernel", "rzn", w_h, true},
                       {"i*.bias", "rzn"},
                       {"hn.bias", "c"}}}},
      rnn_convention{linen,
                     "SimpleCell",
                     1,
                     false,
                     {{{"i.kernel", "h", w_x, true}, {"h.kernel", "h", w_h, true}, {"i.bias", "h"}}}},
      rnn_convention{nnx,
                     "OptimizedLSTMCell",
                     4,
                     false,
                     {{{"dense_i.kernel", "ifgo", w_x, true},
                       {"dense_h.kernel", "ifgo", w_h, true},
                       {"dense_h.bias", "ifgo"}}}},
      rnn_convention{nnx,
                     "LSTMCell",
                     4,
                     false,
                     {{{"ii.kernel", "i", w_x, true},
                       {"if_.kernel", "f", w_x, true},
                       {"ig.kernel", "g", w_x, true},
                       {"io.kernel", "o", w_x, true},
                       {"h*.kernel", "ifgo", w_h, true},
                       {"h*.bias", "ifgo"}}}},
      rnn_convention{nnx,
                     "GRUCell",
                     3,
                     false,
                     {{{"dense_i.kernel", "rzn", w_x, true},
                       {"dense_h.kernel", "rzn", w_h, true},
                       {"dense_i.bias", "rzn"}}}},
      rnn_convention{
          nnx,
          "SimpleCell",
          1,
          false,
          {{{"dense_i.kernel", "h", w_x, true}, {"dense_h.kernel", "h", w_h, true}, {"dense_i.bias", "h"}}}},
      rnn_convention{equinox,
                     "LSTMCell",
                     4,
                     false,
                     {{{"weight_ih", "ifgo", w_x}, {"weight_hh", "ifgo", w_h}, {"bias", "ifgo"}}}},
      rnn_convention{
          equinox,
          "GRUCell",
          3,
          false,
          {{{"weight_ih", "rzn", w_x}, {"weight_hh", "rzn", w_h}, {"bias", "rzn"}, {"bias_n", "c"}}}},
      rnn_convention{haiku, "LSTM", 4, false, {{{"linear.w", "igFo", w_x_h, true}, {"linear.b", "igFo"}}}},
      rnn_convention{
          haiku, "GRU", 3, true, {{{"w_i", "Zrn", w_x, true}, {"w_h", "Zrn", w_h, true}, {"b", "Zrn"}}}},
      rnn_convention{haiku,
                     "VanillaRNN",
                     1,
                     false,
                     {{{"linear.w", "h", w_x, true},
                       {"linear.b", "h"},
                       {"linear_1.w", "h", w_h, true},
                       {"linear_1.b", "h"}}}},
  };
}();

}  // namespace unroll
