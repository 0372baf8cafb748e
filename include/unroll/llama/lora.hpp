#pragma once

#include <array>

#include "unroll/llama/weights.hpp"

namespace unroll::llama {

/// The matrices of a layer that can have an adapter.
enum class layer_matrix { q, k, v, o, gate, up, down };
/// Their names in a layer, those of HuggingFace.
inline constexpr std::array<const char*, 7> layer_matrix_names{
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

/// An adapter that has a rank and a scale of its own.
struct lora_module {
  index_t layer = 0;                      ///< of the Llama
  layer_matrix matrix = layer_matrix::q;  ///< of that layer
  index_t rank = 8;                       ///< of the product B A
  double scale = 1;                       ///< B A is multiplied by it

  friend bool operator==(const lora_module&, const lora_module&) = default;
};

struct lora_options {
  index_t rank = 8;   ///< of the product B A
  double alpha = 16;  ///< B A is multiplied by alpha / rank
  std::array<bool, 7> adapted{true, false, true, false, false, false, false};  ///< by layer_matrix
  index_t first_layer = 0;                                                     ///< that has adapters
  index_t layers = 0;  ///< adapted layers from first_layer on; 0: all that follow
  /// Where this is not empty: the adapters one by one, by layer and matrix, and nothing of the above counts.
  std::vector<lora_module> modules = {};
  bool bias = false;  ///< each adapter has a bias of its output
};

/// Low-rank adapters (Hu et al. 2022, arXiv 2106.09685) of frozen matrices W, in x out:
///
///   y = W' x + scale (B' (A' x) + b),    scale = alpha / rank,    b = 0 without lora_options::bias,
///
/// as one flat vector under PEFT's names. A is stored column-major in x rank and B rank x out, as W is;
/// lora_product multiplies.
class lora_map {
 public:
  /// Where the two factors of one matrix lie.
  struct factors {
    index_t a = -1;     ///< offset of A, in x rank; -1: no adapter
    index_t b = -1;     ///< offset of B, rank x out
    index_t in = 0;     ///< numbers that the matrix takes
    index_t out = 0;    ///< numbers that it gives
    index_t rank = 0;   ///< of this adapter
    double scale = 0;   ///< of this adapter
    index_t bias = -1;  ///< offset of b, out; -1: none
  };

  lora_map() = default;
  lora_map(const config& c, lora_options o, const std::string& prefix = "base_model.model.")
      : options_(std::move(o)) {
    table_.resize(std::size_t(c.layers));
    options_.modules.empty() ? add_all(c, prefix) : add_modules(c, prefix);
  }

  /// Numbers that the matrix takes.
  static index_t in_width(const config& c, layer_matrix m) {
    return m == layer_matrix::o ? c.query_width() : m == layer_matrix::down ? c.intermediate_size : c.hidden;
  }
  /// Numbers that the matrix gives.
  static index_t out_width(const config& c, layer_matrix m) {
    switch (m) {
      case layer_matrix::q:
        return c.query_width();
      case layer_matrix::k:
      case layer_matrix::v:
        return c.kv_width();
      case layer_matrix::gate:
      case layer_matrix::up:
        return c.intermediate_size;
      default:
        return c.hidden;
    }
  }

  index_t size() const { return names_.size(); }
  const layout& names() const& { return names_; }
  void names() && = delete;
  const lora_options& options() const { return options_; }
  index_t rank() const {
    return options_.rank;
  }  ///< of every adapter, unless options().modules says otherwise
  double scale() const { return options_.alpha / double(options_.rank); }  ///< likewise
  /// The adapter of that matrix of layer i; offsets -1 where there is none.
  factors at(index_t i, layer_matrix m) const {
    return table_.empty() ? factors{} : table_[std::size_t(i)][std::size_t(m)];
  }

 private:
  void add_all(const config& c, const std::string& prefix) {
    check_at_least("lora_map", "rank", options_.rank, 1);
    check_at_least("lora_map", "first_layer", options_.first_layer, 0);
    check_at_least("lora_map", "layers", options_.layers, 0);
    if (options_.layers == 0) options_.layers = c.layers - options_.first_layer;
    const index_t end = options_.first_layer + options_.layers;
    if (end > c.layers)
      fail("lora_map", "layers",
           "end at " + std::to_string(end) + ", the model has " + std::to_string(c.layers));
    for (index_t i = options_.first_layer; i < end; ++i)
      for (std::size_t m = 0; m < layer_matrix_names.size(); ++m)
        if (options_.adapted[m])
          add(c, prefix, {i, layer_matrix(m), options_.rank, options_.alpha / double(options_.rank)});
  }
  void add_modules(const config& c, const std::string& prefix) {
    std::pair<index_t, layer_matrix> last(-1, layer_matrix::q);
    for (const lora_module& m : options_.modules) {
      check_at_least("lora_map", "modules.rank", m.rank, 1);
      if (m.layer < 0 || m.layer >= c.layers)
        fail("lora_map", "modules.layer",
             "is " + std::to_string(m.layer) + ", the model has " + std::to_string(c.layers));
      if (const std::pair at(m.layer, m.matrix); at <= last)
        fail("lora_map", "modules",
             "are not in order at layer " + std::to_string(m.layer) + ", " +
                 layer_matrix_names[std::size_t(m.matrix)]);
      else
        last = at;
      add(c, prefix, m);
    }
  }
  void add(const config& c, const std::string& prefix, const lora_module& m) {
    const std::string name =
        prefix + "model.layers." + std::to_string(m.layer) + "." + layer_matrix_names[std::size_t(m.matrix)];
    factors f{.in = in_width(c, m.matrix), .out = out_width(c, m.matrix), .rank = m.rank, .scale = m.scale};
    f.a = names_.add(name + ".lora_A.weight", f.in, m.rank);
    f.b = names_.add(name + ".lora_B.weight", m.rank, f.out);
    if (options_.bias) f.bias = names_.add(name + ".lora_B.bias", f.out);
    table_[std::size_t(m.layer)][std::size_t(m.matrix)] = f;
  }

  lora_options options_;
  layout names_;
  std::vector<std::array<factors, 7>> table_;
};

/// A set of adapters that is added to the frozen weights; a null map: none.
template <class P>
struct adapters {
  const lora_map* map = nullptr;
  const P* theta = nullptr;  ///< map->size() numbers
};

/// WRITES a set of adapters: A normal with standard deviation 1 / sqrt(in); B zero, so that training begins
/// at the base model, or normal with standard deviation `b_scale`, so that no gradient is zero; biases as B.
template <class T>
void init_lora(const lora_map& map, params<T> theta, key k, double b_scale = 0) {
  check_size("init_lora", "theta", theta.size(), map.size());
  std::int64_t n = 0;
  for (const layout_block& b : map.names().blocks()) {
    const auto part = theta.part(b.offset, b.size());
    const bool is_a = b.name.ends_with("lora_A.weight");
    draw_normals(k, n++, part);
    for (T& x : part) x *= T(is_a ? 1 / std::sqrt(double(b.rows)) : b_scale);
  }
}

}  // namespace unroll::llama
