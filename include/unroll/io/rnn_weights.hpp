#pragma once

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "unroll/core/layout.hpp"
#include "unroll/io/rnn_conventions.hpp"
#include "unroll/io/safetensors.hpp"

namespace unroll {

/// Where in a file the arrays of a recurrent network stand.
struct rnn_names {
  std::string prefix = {};  ///< in front of every name, as "encoder.lstm."; other names are then left alone
  std::string readout =
      {};             ///< of torch: the nn.Linear that w_y and b_y are, as "fc"; empty: it is not in the file
  index_t layer = 0;  ///< of other libraries: which layer of a stack this one is
  char separator = '.';  ///< of other libraries: what stands between the parts of a name
};

namespace detail {

/// Recurrent layers of a cell or of a stack, by the names of their parameters: "w_h" or "l0.w_h", "l1.w_h",
/// ...
class rnn_layers {
 public:
  rnn_layers(const layout& names, std::string_view function) : names_(names), function_(function) {
    static const std::set<std::string> known{"w_h", "w_x", "b", "b_hn", "w_y", "b_y"};
    for (const layout_block& b : names.blocks()) {
      const std::string part = b.name.substr(b.name.rfind('.') + 1);
      if (!known.contains(part))
        fail(function_, "cell", "has parameters \"" + b.name + "\", which no RNN, GRU or LSTM has");
      if (part == "w_h") prefixes_.push_back(b.name.substr(0, b.name.size() - 3));
    }
    if (prefixes_.empty()) fail(function_, "cell", "has no matrix w_h, as an RNN, GRU or LSTM has");
  }
  index_t count() const { return index_t(prefixes_.size()); }
  const layout_block& block(index_t layer, const char* part) const {
    return names_.at(prefixes_[std::size_t(layer)] + part);
  }
  const layout_block* find(const std::string& name) const {
    for (const layout_block& b : names_.blocks())
      if (b.name == name) return &b;
    return nullptr;
  }
  const layout_block* find(index_t layer, const char* part) const {
    return find(prefixes_[std::size_t(layer)] + part);
  }
  index_t hidden(index_t layer) const { return block(layer, "w_h").cols; }
  index_t gates(index_t layer) const { return block(layer, "w_h").rows / hidden(layer); }
  void check_layer(index_t layer) const {
    if (layer < 0 || layer >= count())
      fail(function_, "layer", "is " + std::to_string(layer) + ", the cell has " + std::to_string(count()));
  }

 private:
  const layout& names_;
  std::string_view function_;
  std::vector<std::string> prefixes_;
};

// The row of our gate that a letter of rnn_array stands for.
inline index_t gate_row(int gates, char letter) {
  if (gates == 1) return 0;
  const char lower = letter == 'Z' ? 'z' : letter == 'F' ? 'f' : letter;
  return index_t(std::string_view(gates == 4 ? "ifgo" : "rzn").find(lower));
}

// A name of the table with its placeholders filled in.
inline std::string name_of_array(const rnn_names& where, std::string_view pattern, index_t layer, char gate) {
  std::string out = where.prefix;
  for (const char c : pattern)
    if (c == '#')
      out += std::to_string(layer);
    else
      out += c == '*' ? gate : c == '.' ? where.separator : c;
  return out;
}

// Calls each(name, gates) for the arrays of the file that `a` stands for.
template <class Each>
void each_array(const rnn_names& where, const rnn_array& a, index_t layer, Each&& each) {
  if (a.name.find('*') == std::string_view::npos)
    each(name_of_array(where, a.name, layer, ' '), a.gates);
  else
    for (std::size_t g = 0; g < a.gates.size(); ++g)
      each(name_of_array(where, a.name, layer, a.gates[g]), a.gates.substr(g, 1));
}

inline std::string file_text(const safetensors& stored) {
  std::string all;
  for (const auto& t : stored.tensors()) all += (all.empty() ? "" : ", ") + t.first;
  return all.empty() ? "nothing" : all;
}

/// One array of a file on its way into a layer.
template <class T>
class rnn_reader {
 public:
  rnn_reader(const safetensors& stored, const rnn_layers& layers, index_t layer, T* theta)
      : file_(stored),
        layers_(layers),
        layer_(layer),
        theta_(theta),
        h_(layers.hidden(layer)),
        in_(layers.block(layer, "w_x").cols),
        gates_(int(layers.gates(layer))) {}

  /// WRITES a weight to w_x, w_h or both, or ADDS a bias to b or b_hn.
  void read(const std::string& name, std::string_view letters, const rnn_array& a) {
    const index_t rows = 1 + index_t(std::count(letters.begin(), letters.end(), '|'));
    const index_t outputs = (index_t(letters.size()) - rows + 1) / rows * h_;
    const index_t inputs = a.part == rnn_part::w_x ? in_ : a.part == rnn_part::w_h ? h_ : in_ + h_;
    std::vector<index_t> shape{outputs};
    if (a.part != rnn_part::b)
      shape = a.outputs_last ? std::vector{inputs, outputs} : std::vector{outputs, inputs};
    else if (rows > 1)
      shape = {rows, outputs};
    if (const auto& found = file_.at(name).shape; found != shape)
      file_.refuse(name, "has shape " + shape_text(found) + ", the cell needs " + shape_text(shape));
    values_.resize(std::size_t(file_.at(name).size));
    file_.read(name, 0, view<T>(values_));
    index_t block = 0;
    for (const char c : letters) {
      if (c == '|') continue;
      for (index_t i = 0; i < h_; ++i)
        if (a.part == rnn_part::b)
          add_bias(name, c, i, values_[std::size_t(block * h_ + i)]);
        else
          for (index_t j = 0; j < inputs; ++j) {
            const index_t out = block * h_ + i;
            const T v = values_[std::size_t(a.outputs_last ? j * outputs + out : out * inputs + j)];
            put_weight(a.part, c, i, j, v);
          }
      ++block;
    }
  }

 private:
  void put_weight(rnn_part part, char letter, index_t i, index_t j, T v) {
    const bool state = part == rnn_part::w_h || (part == rnn_part::w_x_h && j >= in_);
    const layout_block& b = layers_.block(layer_, state ? "w_h" : "w_x");
    const index_t column = part == rnn_part::w_x_h && state ? j - in_ : j;
    theta_[b.offset + column * b.rows + gate_row(gates_, letter) * h_ + i] = letter == 'Z' ? -v : v;
  }
  void add_bias(const std::string& name, char letter, index_t i, T v) {
    if (letter == 'c') {
      const layout_block* c = layers_.find(layer_, "b_hn");
      if (!c)
        file_.refuse(name,
                     "has a bias inside of the reset product, the cell has none: reset_kind::after has");
      theta_[c->offset + i] += v;
      return;
    }
    theta_[layers_.block(layer_, "b").offset + gate_row(gates_, letter) * h_ + i] += letter == 'Z'   ? -v
                                                                                     : letter == 'F' ? v + 1
                                                                                                     : v;
  }

  const safetensors& file_;
  const rnn_layers& layers_;
  index_t layer_;
  T* theta_;
  index_t h_, in_;
  int gates_;
  std::vector<T> values_;
};

// Whether a GRU resets in front of the product; of a stack, of its layer.
template <class Cell>
bool resets_before(const Cell& cell, index_t layer) {
  if constexpr (requires { cell.layer(layer).options(); })
    return resets_before(cell.layer(layer), 0);
  else if constexpr (requires { cell.options().reset; })
    return cell.options().reset == decltype(cell.options().reset)::before;
  else
    return false;
}

// The row of the table that a layer of the cell is filled from: of those that fit, the first whose arrays are
// there.
template <class Cell>
const rnn_convention& convention_of(rnn_source from, const Cell& cell, const rnn_layers& layers,
                                    index_t layer, const safetensors& stored, const rnn_names& where) {
  const rnn_convention* found = nullptr;
  for (const rnn_convention& c : rnn_conventions) {
    if (c.source != from || c.gates != layers.gates(layer)) continue;
    if (c.gates == 3 && c.reset_before != resets_before(cell, layer)) continue;
    bool there = true;
    for (std::size_t i = 0; i < c.size(); ++i)
      if (c.arrays[i].part != rnn_part::b)
        each_array(where, c.arrays[i], layer, [&](const std::string& name, std::string_view) {
          there = there && stored.tensors().contains(name);
        });
    if (there) return c;
    if (!found) found = &c;
  }
  if (!found)
    stored.source().refuse("cannot be read: the " + std::string(name_of(from)) + " table has no layer of " +
                           std::to_string(layers.gates(layer)) + " gates" +
                           (layers.gates(layer) == 3 ? resets_before(cell, layer)
                                                           ? " that resets in front of the product"
                                                           : " that resets behind the product"
                                                     : ""));
  return *found;  // whose first missing array the message names
}

// Fills a layer of the cell; adds to `used` the names that it has read.
template <class Cell, class T>
void fill_layer(rnn_source from, const Cell& cell, const rnn_layers& layers, index_t layer,
                const safetensors& stored, const rnn_names& where, T* theta, std::set<std::string>& used) {
  const rnn_convention& c = convention_of(from, cell, layers, layer, stored, where);
  for (const char* part : {"b", "b_hn"})
    if (const layout_block* b = layers.find(layer, part)) std::fill_n(theta + b->offset, b->size(), T(0));
  rnn_reader<T> reader(stored, layers, layer, theta);
  index_t biases = 0, there = 0;
  for (std::size_t i = 0; i < c.size(); ++i)
    if (c.arrays[i].part == rnn_part::b)
      each_array(where, c.arrays[i], layer, [&](const std::string& name, std::string_view) {
        ++biases, there += stored.tensors().contains(name);
      });
  for (std::size_t i = 0; i < c.size(); ++i) {
    const rnn_array& a = c.arrays[i];
    if (a.part == rnn_part::b && there == 0) continue;  // bias=False
    each_array(where, a, layer, [&](const std::string& name, std::string_view letters) {
      if (!stored.tensors().contains(name))
        stored.source().refuse("lacks tensor " + in_quotes(name) + " of " + name_of(from) + "'s " +
                               std::string(c.layer) + "; it has " + file_text(stored));
      reader.read(name, letters, a);
      used.insert(name);
    });
  }
}

// Reads W (out x in) and b of an nn.Linear to w_y and b_y.
template <class T>
void read_linear(const safetensors& stored, const rnn_layers& layers, const std::string& linear, T* theta,
                 std::set<std::string>& used) {
  const layout_block *w = layers.find("w_y"), *b = layers.find("b_y");
  const std::string weight = linear + ".weight", bias = linear + ".bias";
  if (!w || !b) stored.refuse(weight, "is named as the readout of a cell that has none (out = 0)");
  const std::vector<index_t> shape{w->rows, w->cols};
  for (const auto& [name, needed] : {std::pair(weight, shape), std::pair(bias, std::vector{b->rows})})
    if (const auto& found = stored.at(name).shape; found != needed)
      stored.refuse(name, "has shape " + shape_text(found) + ", the cell needs " + shape_text(needed));
  std::vector<T> values(std::size_t(w->size()));
  stored.read(weight, 0, view<T>(values));
  for (index_t i = 0; i < w->rows; ++i)
    for (index_t j = 0; j < w->cols; ++j)
      theta[w->offset + j * w->rows + i] = values[std::size_t(i * w->cols + j)];
  stored.read(bias, 0, view<T>(theta + b->offset, b->size()));
  used.insert({weight, bias});
}

// Refuses what stands beside the arrays that were read, by the reason where it is known.
inline void refuse_unread(const safetensors& stored, const rnn_names& where, const rnn_layers& layers,
                          const std::set<std::string>& used) {
  for (const auto& t : stored.tensors()) {
    if (used.contains(t.first) || !t.first.starts_with(where.prefix)) continue;
    const std::string name = t.first.substr(where.prefix.size());
    if (name.starts_with("weight_ih_l") || name.starts_with("weight_hh_l") || name.starts_with("bias_ih_l") ||
        name.starts_with("bias_hh_l"))
      stored.refuse(t.first, "belongs to a layer behind those of the cell, which has " +
                                 std::to_string(layers.count()));
    if (where.prefix.empty())
      stored.refuse(t.first, "is no part of the network; name a prefix where others stand beside it");
  }
}

// Throws where a cell of ours has the shapes of a layer of the library, but is another function than any of
// its.
template <class Cell>
void check_function(rnn_source library, const Cell& cell, std::string_view function) {
  if constexpr (requires { cell.layer(0).options(); }) {
    check_function(library, cell.layer(0), function);
  } else if constexpr (requires { Cell::name; }) {
    const std::string_view name = Cell::name;
    if (name == "leaky" ||
        (name == "linear" && (library == rnn_source::torch || library == rnn_source::haiku)) ||
        (name == "elman" && library == rnn_source::haiku))
      fail(function, "cell", "is " + std::string(name) + ", which " + name_of(library) + " does not have");
  }
}

// What cannot be read at all, before shapes are compared: their messages would mislead.
inline void refuse_kinds(const safetensors& stored, const rnn_names& where) {
  for (const auto& t : stored.tensors()) {
    if (!t.first.starts_with(where.prefix)) continue;
    const std::string name = t.first.substr(where.prefix.size());
    if (name.starts_with("weight_hr_l"))
      stored.refuse(t.first, "belongs to an LSTM with proj_size, which is not implemented");
    if (name.starts_with("weight_ih_l") && name.ends_with("_reverse"))
      stored.refuse(t.first,
                    "belongs to a bidirectional network, which is not implemented: a state that comes from "
                    "the end of the sequence has no gradient online");
  }
}

}  // namespace detail

/// Reads the weights of a recurrent layer of another library from a safetensors file (F32, F16 or BF16) into
/// those of `cell`, an elman, relu, gru or lstm, or into one layer of a stack of them. rnn_conventions is the
/// table of names, transposes, orders of gates and biases. Biases that both act on the same gate are added;
/// where the library was told to have none they become 0. A readout keeps what stands in theta, size().params
/// numbers. Throws unroll::error with function, file, tensor and both shapes, and then leaves theta as it
/// was.
template <class Cell>
void load_rnn(rnn_source from, const std::filesystem::path& path, const Cell& cell,
              params<typename Cell::scalar> theta, const rnn_names& where = {}) {
  check_size("load_rnn", "theta", theta.size(), cell.size().params);
  detail::check_function(from, cell, "load_rnn");
  const layout names = cell.layout();
  const detail::rnn_layers layers(names, "load_rnn");
  layers.check_layer(where.layer);
  const safetensors stored(byte_source::open(path, "load_rnn"));
  std::set<std::string> used;
  std::vector<typename Cell::scalar> read(theta.begin(), theta.end());
  detail::fill_layer(from, cell, layers, where.layer, stored, where, read.data(), used);
  std::copy(read.begin(), read.end(), theta.begin());
}

/// Reads the state_dict of torch.nn.RNN, GRU or LSTM, with as many layers as `cell` has (a cell has one, a
/// stack more), from a safetensors file (F32, F16 or BF16). weight_ih_lK, weight_hh_lK: w_x and w_h of layer
/// K. b = bias_ih_lK + bias_hh_lK, but of the candidate gate of a GRU, whose b is that of bias_ih_lK and b_hn
/// that of bias_hh_lK; without biases b is 0. With where.readout also the nn.Linear that makes y. The
/// nonlinearity of an nn.RNN is not in its file: `elman` is tanh, `relu` is relu. Refused by name:
/// bidirectional, proj_size, other numbers of layers, cells that torch does not have (leaky, linear), and
/// with an empty prefix whatever else the file holds. Throws unroll::error with function, file, tensor and
/// both shapes.
template <class Cell>
void load_torch_rnn(const std::filesystem::path& path, const Cell& cell, params<typename Cell::scalar> theta,
                    const rnn_names& where = {}) {
  check_size("load_torch_rnn", "theta", theta.size(), cell.size().params);
  detail::check_function(rnn_source::torch, cell, "load_torch_rnn");
  const layout names = cell.layout();
  const detail::rnn_layers layers(names, "load_torch_rnn");
  const safetensors stored(byte_source::open(path, "load_torch_rnn"));
  detail::refuse_kinds(stored, where);
  std::set<std::string> used;
  std::vector<typename Cell::scalar> read(theta.begin(), theta.end());
  for (index_t k = 0; k < layers.count(); ++k)
    detail::fill_layer(rnn_source::torch, cell, layers, k, stored, where, read.data(), used);
  if (!where.readout.empty()) detail::read_linear(stored, layers, where.readout, read.data(), used);
  detail::refuse_unread(stored, where, layers, used);
  std::copy(read.begin(), read.end(), theta.begin());
}

/// Writes the same file, as F32, in one step: bias_ih_lK is b and bias_hh_lK 0, but for b_hn, which stands in
/// bias_hh_lK. A readout has to be named, so that nothing is lost. Throws where a double is beyond the
/// floats.
template <class Cell>
void save_torch_rnn(const std::filesystem::path& path, const Cell& cell,
                    params<const typename Cell::scalar> theta, const rnn_names& where = {}) {
  using T = typename Cell::scalar;
  constexpr const char* function = "save_torch_rnn";
  check_size(function, "theta", theta.size(), cell.size().params);
  detail::check_function(rnn_source::torch, cell, function);
  const layout names = cell.layout();
  const detail::rnn_layers layers(names, function);
  layout stored;
  std::vector<T> values;
  const auto add_matrix = [&](const std::string& name, const layout_block& b) {  // row-major b
    stored.add(where.prefix + name, b.cols, b.rows);
    for (index_t i = 0; i < b.rows; ++i)
      for (index_t j = 0; j < b.cols; ++j) values.push_back(theta[b.offset + j * b.rows + i]);
  };
  const auto add_vector = [&](const std::string& name, const std::vector<T>& v) {
    stored.add(where.prefix + name, index_t(v.size()));
    values.insert(values.end(), v.begin(), v.end());
  };
  for (index_t k = 0; k < layers.count(); ++k) {
    if (layers.gates(k) == 3 && detail::resets_before(cell, k))
      fail(function, "cell", "is a GRU with reset_kind::before, torch's resets behind the product");
    const std::string l = "_l" + std::to_string(k);
    const layout_block &b = layers.block(k, "b"), *c = layers.find(k, "b_hn");
    add_matrix("weight_ih" + l, layers.block(k, "w_x"));
    add_matrix("weight_hh" + l, layers.block(k, "w_h"));
    std::vector<T> bias(theta.data() + b.offset, theta.data() + b.offset + b.size());
    add_vector("bias_ih" + l, bias);
    std::fill(bias.begin(), bias.end(), T(0));
    if (c) std::copy_n(theta.data() + c->offset, c->size(), bias.end() - c->size());
    add_vector("bias_hh" + l, bias);
  }
  if (const layout_block* w = layers.find("w_y")) {
    if (where.readout.empty())
      fail(function, "readout",
           "is empty, the cell has w_y, " + std::to_string(w->rows) + " x " + std::to_string(w->cols) +
               ": name the nn.Linear that it becomes");
    const layout_block& b = *layers.find("b_y");
    stored.add(where.readout + ".weight", w->cols, w->rows);
    for (index_t i = 0; i < w->rows; ++i)
      for (index_t j = 0; j < w->cols; ++j) values.push_back(theta[w->offset + j * w->rows + i]);
    stored.add(where.readout + ".bias", b.rows);
    values.insert(values.end(), theta.data() + b.offset, theta.data() + b.offset + b.size());
  }
  save_safetensors(path, stored, [&](const layout_block& b) { return values.data() + b.offset; });
}

}  // namespace unroll
