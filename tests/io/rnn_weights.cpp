#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/rnn_weights.hpp"

#include <algorithm>
#include <fstream>
#include <string_view>

#include "tests/io/rnn_golden.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/leaky.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/cells/relu.hpp"
#include "unroll/cells/stack.hpp"
#include "unroll/core/block.hpp"
#include "unroll/system/window.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr index_t in = 2, hidden = 3, steps = 4;

// The arrays of a golden row, as rnn_golden.py fills them.
std::vector<made::tensor> arrays_of(const golden::rnn_row& row) {
  std::vector<made::tensor> out;
  for (std::size_t k = 0; k < row.arrays.size(); ++k) {
    index_t size = 1;
    for (const index_t n : row.arrays[k].second) size *= n;
    std::vector<float> v;
    for (index_t i = 0; i < size; ++i) v.push_back(float((7 * i + 5 * index_t(k) + 3) % 17 - 8) / 16);
    out.push_back({row.arrays[k].first, "F32", row.arrays[k].second, made::raw(v)});
  }
  return out;
}

std::filesystem::path saved(const folder& f, const std::vector<made::tensor>& arrays) {
  const auto path = f.path / "rnn.safetensors";
  std::ofstream(path, std::ios::binary) << made::safetensors(arrays);
  return path;
}

// The largest difference of h after every step from the golden ones; h are the first numbers of the state's
// last `top`.
template <class Cell>
double distance_from(const Cell& cell, const parameters<double>& theta, const golden::rnn_row& row,
                     index_t top) {
  std::vector<double> x;
  for (index_t t = 0; t < steps; ++t)
    for (index_t j = 0; j < in; ++j) x.push_back(double((3 * t + 5 * j) % 7 - 3) / 4);
  std::vector<cells::example<double>> xs;
  for (index_t t = 0; t < steps; ++t) xs.push_back({.x = x.data() + t * in});
  const dims d = cell.size();
  std::vector<double> states(std::size_t((steps + 1) * d.state)), tape(std::size_t(steps * d.tape)), loss(4);
  std::vector<double> workspace(std::size_t(window_workspace(cell, steps)));
  window_forward(cell, {xs.data(), xs.size()},
                 {theta, steps, states.data(), tape.data(), loss.data(), workspace, 0});
  double far = 0;
  for (index_t t = 0; t < steps; ++t)
    for (index_t i = 0; i < hidden; ++i)
      far = std::max(far, std::abs(states[std::size_t((t + 1) * d.state + d.state - top + i)] -
                                   row.h[std::size_t(t * hidden + i)]));
  return far;
}

template <class Cell>
double loaded(const golden::rnn_row& row, const Cell& cell, const std::vector<made::tensor>& arrays,
              const rnn_names& where = {}, index_t top = 0) {
  const folder f;
  const auto path = saved(f, arrays);
  parameters<double> theta(cell.size().params);
  std::fill(theta.begin(), theta.end(), 9.0);  // what stands there must not matter
  if (row.source == rnn_source::torch)
    load_torch_rnn(path, cell, theta, where);
  else
    load_rnn(row.source, path, cell, theta, where);
  return distance_from(cell, theta, row, top > 0 ? top : cell.size().state);
}

double loaded(const golden::rnn_row& row, const std::vector<made::tensor>& arrays,
              const rnn_names& where = {}) {
  const std::string layer = row.layer;
  const auto has = [&](const char* text) { return layer.find(text) != std::string::npos; };
  if (has("LSTM"))
    return loaded(row, cells::lstm<double>({.in = in, .hidden = hidden, .out = 0}), arrays, where);
  if (has("GRU")) {
    const bool before = has("reset_after=False") || row.source == rnn_source::haiku;
    const auto reset = before                          ? cells::reset_kind::before
                       : row.source == rnn_source::nnx ? cells::reset_kind::after_without_bias
                                                       : cells::reset_kind::after;
    return loaded(row, cells::gru<double>({.in = in, .hidden = hidden, .out = 0, .reset = reset}), arrays,
                  where);
  }
  if (row.source == rnn_source::haiku)
    return loaded(row, cells::relu<double>({.in = in, .hidden = hidden, .out = 0}), arrays, where);
  return loaded(row, cells::elman<double>({.in = in, .hidden = hidden, .out = 0}), arrays, where);
}

const golden::rnn_row& row_of(rnn_source source, std::string_view layer) {
  return *std::find_if(golden::rnn_rows.begin(), golden::rnn_rows.end(),
                       [&](const auto& r) { return r.source == source && layer == r.layer; });
}

std::vector<made::tensor> torch_arrays(const char* layer) {
  return arrays_of(row_of(rnn_source::torch, layer));
}

template <class Cell>
std::string refusal(const Cell& cell, const std::vector<made::tensor>& arrays, const rnn_names& where = {}) {
  const folder f;
  const auto path = saved(f, arrays);
  parameters<double> theta(cell.size().params);
  std::fill(theta.begin(), theta.end(), 9.0);
  const auto said = made::message([&] { load_torch_rnn(path, cell, theta, where); });
  CHECK(std::all_of(theta.begin(), theta.end(), [](double v) { return v == 9; }));
  if (!said.empty()) CHECK_THAT(said, ContainsSubstring("rnn.safetensors"));
  return said;
}

const cells::gru<double> a_gru({.in = in, .hidden = hidden, .out = 0});
const cells::lstm<double> a_lstm({.in = in, .hidden = hidden, .out = 0});

}  // namespace

TEST_CASE("weights of every layer of every library give its outputs") {
  for (const auto& row : golden::rnn_rows) {
    INFO(name_of(row.source) << " " << row.layer);
    CHECK(loaded(row, arrays_of(row)) < 5e-7);  // theirs are floats
  }
}

TEST_CASE("two layers of torch give the outputs of a stack") {
  const auto& lstm = golden::two_layers[0];
  const cells::stack<cells::lstm<double>> two_lstm({.in = in, .hidden = hidden, .out = 0}, 2);
  CHECK(loaded(lstm, two_lstm, arrays_of(lstm), {}, 2 * hidden) < 5e-7);
  const auto& gru = golden::two_layers[1];
  const cells::stack<cells::gru<double>> two_gru({.in = in, .hidden = hidden, .out = 0}, 2);
  CHECK(loaded(gru, two_gru, arrays_of(gru), {}, hidden) < 5e-7);
  CHECK_THAT(refusal(two_lstm, torch_arrays("nn.LSTM")), ContainsSubstring("lacks tensor \"weight_ih_l1\""));
  CHECK_THAT(refusal(a_lstm, arrays_of(lstm)), ContainsSubstring("behind those of the cell, which has 1"));
}

TEST_CASE("every row of the table has its golden numbers") {
  for (const rnn_convention& c : rnn_conventions) {
    INFO(name_of(c.source) << " " << c.layer);
    CHECK(std::any_of(golden::rnn_rows.begin(), golden::rnn_rows.end(),
                      [&](const auto& r) { return r.source == c.source && c.layer == r.layer; }));
  }
}

TEST_CASE("a prefix, another separator and a GRU that has b_hn where nnx has none") {
  const auto& row = row_of(rnn_source::nnx, "GRUCell");
  auto arrays = arrays_of(row);
  for (auto& a : arrays) {
    std::replace(a.name.begin(), a.name.end(), '.', '/');
    a.name = "params/cell/" + a.name;
  }
  CHECK(loaded(row, a_gru, arrays, {.prefix = "params/cell/", .separator = '/'}) < 5e-7);
}

TEST_CASE("a torch network is saved and comes back, readout included") {
  const folder f;
  const auto path = f.path / "saved.safetensors";
  const auto there_and_back = [&](const auto& cell, const rnn_names& where) {
    parameters<double> theta(cell.size().params), back(theta.size());
    for (index_t i = 0; i < theta.size(); ++i) theta[i] = double((7 * i + 3) % 17 - 8) / 16;
    save_torch_rnn(path, cell, theta, where);
    load_torch_rnn(path, cell, back, where);
    CHECK(std::equal(theta.begin(), theta.end(), back.begin()));
  };
  there_and_back(a_gru, {});
  there_and_back(cells::stack<cells::gru<double>>({.in = 2, .hidden = 3, .out = 4}, 3), {.readout = "fc"});
  there_and_back(cells::lstm<double>({.in = 2, .hidden = 3, .out = 4}), {.prefix = "rnn.", .readout = "fc"});
  const safetensors file(byte_source::open(path, "test"));
  CHECK(file.at("rnn.weight_ih_l0").shape == std::vector<index_t>{12, 2});
  CHECK(file.at("rnn.bias_hh_l0").shape == std::vector<index_t>{12});
  CHECK(file.at("fc.weight").shape == std::vector<index_t>{4, 3});
  CHECK(file.at("fc.bias").shape == std::vector<index_t>{4});
  there_and_back(cells::relu<double>({.in = 0, .hidden = 3, .out = 0}), {});

  const cells::lstm<double> read({.in = 2, .hidden = 3, .out = 4});
  parameters<double> theta(read.size().params);
  CHECK_THAT(made::message([&] { save_torch_rnn(path, read, theta); }), ContainsSubstring("w_y, 4 x 3"));
  const cells::gru<double> before({.in = 2, .hidden = 3, .out = 0, .reset = cells::reset_kind::before});
  parameters<double> of_before(before.size().params);
  CHECK_THAT(made::message([&] { save_torch_rnn(path, before, of_before); }), ContainsSubstring("before"));
}

TEST_CASE("networks without biases have biases of zero") {
  auto arrays = torch_arrays("nn.LSTM");
  arrays.resize(2);
  const folder f;
  parameters<double> theta(a_lstm.size().params);
  std::fill(theta.begin(), theta.end(), 9.0);
  load_torch_rnn(saved(f, arrays), a_lstm, theta);
  for (const double b : a_lstm.layout().part(params<double>(theta), "b")) CHECK(b == 0);
  arrays = torch_arrays("nn.LSTM");
  arrays.pop_back();
  CHECK_THAT(refusal(a_lstm, arrays), ContainsSubstring("lacks tensor \"bias_hh_l0\""));
}

TEST_CASE("a cell of another function than the layer is refused, whatever its shapes") {
  using namespace cells;
  const folder f;
  const auto refused = [&](rnn_source from, const char* layer, const auto& cell) {
    const auto path = saved(f, arrays_of(row_of(from, layer)));
    parameters<double> theta(cell.size().params);
    return made::message([&] {
      from == rnn_source::torch ? load_torch_rnn(path, cell, theta) : load_rnn(from, path, cell, theta);
    });
  };
  const leaky<double> slow({.in = in, .hidden = hidden, .out = 0});
  const linear<double> straight({.in = in, .hidden = hidden, .out = 0});
  const elman<double> tanh({.in = in, .hidden = hidden, .out = 0});
  const stack<leaky<double>> slow_ones({.in = in, .hidden = hidden, .out = 0}, 1);
  using enum rnn_source;
  CHECK_THAT(refused(torch, "nn.RNN", slow),
             ContainsSubstring("load_torch_rnn: cell: is leaky, which torch does not have"));
  CHECK_THAT(refused(torch, "nn.RNN", straight), ContainsSubstring("is linear, which torch does not have"));
  CHECK_THAT(refused(torch, "nn.RNN", slow_ones), ContainsSubstring("is leaky"));
  CHECK_THAT(refused(haiku, "VanillaRNN", tanh),
             ContainsSubstring("load_rnn: cell: is elman, which haiku does not have"));
  CHECK(refused(keras, "SimpleRNN", straight).empty());  // activation="linear"
  parameters<double> theta(straight.size().params);
  CHECK_THAT(made::message([&] { save_torch_rnn(f.path / "linear", straight, theta); }),
             ContainsSubstring("save_torch_rnn: cell: is linear"));
}

TEST_CASE("files of other networks are refused with tensor and shapes, and theta stays") {
  const auto lstm = torch_arrays("nn.LSTM");
  CHECK_THAT(refusal(a_gru, lstm), ContainsSubstring("load_torch_rnn: ") &&
                                       ContainsSubstring("\"weight_ih_l0\"") &&
                                       ContainsSubstring("has shape [12, 2], the cell needs [9, 2]"));
  CHECK_THAT(refusal(cells::lstm<double>({.in = 3, .hidden = 3, .out = 0}), lstm),
             ContainsSubstring("has shape [12, 2], the cell needs [12, 3]"));
  CHECK_THAT(
      refusal(cells::gru<double>({.in = in, .hidden = hidden, .out = 0, .reset = cells::reset_kind::before}),
              torch_arrays("nn.GRU")),
      ContainsSubstring("no layer of 3 gates that resets in front of the product"));
  CHECK_THAT(
      refusal(cells::gru<double>(
                  {.in = in, .hidden = hidden, .out = 0, .reset = cells::reset_kind::after_without_bias}),
              torch_arrays("nn.GRU")),
      ContainsSubstring("\"bias_hh_l0\" has a bias inside of the reset product, the cell has none"));
  const auto with = [&](const char* name, std::vector<index_t> shape, const char* dtype = "F32") {
    auto more = lstm;
    index_t size = 1;
    for (const index_t n : shape) size *= n;
    const std::string bytes(std::size_t(size) * (std::string_view(dtype) == "F64" ? 8 : 4), '\0');
    for (auto& a : more)
      if (a.name == name) {
        a = {name, dtype, shape, bytes};
        return more;
      }
    more.push_back({name, dtype, shape, bytes});
    return more;
  };
  CHECK_THAT(refusal(a_lstm, with("weight_ih_l0_reverse", {12, 2})), ContainsSubstring("bidirectional"));
  // the shapes of an upper layer, which takes both directions, are not what is wrong
  CHECK_THAT(
      refusal(cells::lstm<double>({.in = 3, .hidden = 3, .out = 0}), with("weight_ih_l0_reverse", {12, 2})),
      ContainsSubstring("bidirectional"));
  CHECK_THAT(refusal(a_lstm, with("weight_hr_l0", {2, 3})), ContainsSubstring("proj_size"));
  CHECK_THAT(refusal(a_lstm, with("weight_ih_l1", {12, 3})),
             ContainsSubstring("behind those of the cell, which has 1"));
  CHECK_THAT(refusal(a_lstm, with("embedding.weight", {5, 2})), ContainsSubstring("no part of the network"));
  CHECK_THAT(refusal(a_lstm, with("weight_hh_l0", {12, 3}, "F64")), ContainsSubstring("has dtype F64"));
  CHECK_THAT(refusal(a_lstm, lstm, {.prefix = "rnn."}),
             ContainsSubstring("lacks tensor \"rnn.weight_ih_l0\" of torch's nn.LSTM; it has bias_hh_l0, "));
  CHECK_THAT(refusal(a_lstm, lstm, {.readout = "fc"}), ContainsSubstring("out = 0"));
  CHECK_THAT(refusal(cells::lstm<double>({.in = 2, .hidden = 3, .out = 4}), lstm, {.readout = "fc"}),
             ContainsSubstring("lacks tensor \"fc.weight\""));
  CHECK(refusal(a_lstm, with("head.weight", {4, 3}), {.prefix = "rnn."}) != "");
  CHECK_THAT(refusal(a_lstm, {}), ContainsSubstring("it has nothing"));
}

#endif
