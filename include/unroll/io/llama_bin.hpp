#pragma once

#include "unroll/io/llama_pretrained.hpp"
#include "unroll/io/safetensors.hpp"

namespace unroll::llama {

namespace detail {

using unroll::detail::in_quotes;

// What a .bin file says before its numbers.
struct bin_header {
  config shape;
  std::uint32_t version = 0;
  index_t group = 0;        // version 2: numbers that share a scale
  std::uint64_t first = 0;  // byte of the first number
};

inline bin_header read_bin_header(const byte_source& bytes) {
  bin_header h;
  const std::string kind = file_kind(bytes.read(0, std::min<std::uint64_t>(bytes.size(), 32)));
  const bool has_version = kind.starts_with("a llama2.c file");
  if (has_version) bytes.read(4, &h.version, sizeof h.version);
  if (h.version < 1 || h.version > 2) refuse_other_kinds(bytes);
  h.first = has_version ? 256 : 28;
  if (bytes.size() < h.first)
    bytes.refuse("has " + std::to_string(bytes.size()) + " bytes, the header alone has " +
                 std::to_string(h.first));
  std::array<std::int32_t, 7> sizes{};
  bytes.read(has_version ? 8 : 0, sizes.data(), sizeof sizes);
  config& c = h.shape;
  c.hidden = sizes[0];
  c.intermediate_size = sizes[1];
  c.layers = sizes[2];
  c.heads = sizes[3];
  c.kv_heads = sizes[4];
  c.vocabulary = sizes[5];
  c.context = sizes[6];
  c.pairs = rope_pairs::neighbours;
  if (has_version) {
    std::uint8_t tied = 0;
    bytes.read(36, &tied, 1);
    if (tied > 1)
      bytes.refuse("has " + std::to_string(tied) +
                   " at byte 36, where 1 says that the output matrix is the "
                   "embedding and 0 that it is not");
    c.tied = tied == 1;
  } else if (c.tied = c.vocabulary > 0; !c.tied) {
    c.vocabulary = -c.vocabulary;
  }
  if (c.heads < 1 || c.hidden % c.heads != 0)
    bytes.refuse("has hidden size " + std::to_string(c.hidden) + " and " + std::to_string(c.heads) +
                 " heads, which is no checkpoint of a Llama");
  c.head_dim = c.hidden / c.heads;
  check(c, bytes.function() + ": " + bytes.name());
  if (h.version == 2) {
    std::int32_t group = 0;
    bytes.read(37, &group, sizeof group);
    h.group = group;
    for (const auto& [name, width] :
         {std::pair("embedding", c.vocabulary), std::pair("q_proj", c.query_width()),
          std::pair("k_proj", c.kv_width()), std::pair("gate_proj", c.intermediate_size)})
      if (group < 1 || c.hidden * width % group != 0)
        bytes.refuse("has groups of " + std::to_string(group) + ", which do not divide the " +
                     std::to_string(c.hidden * width) + " numbers of " + name);
  }
  return h;
}

// The bytes of the whole file, in a type that no shape overflows.
inline double bin_bytes(const bin_header& h) {
  const config& c = h.shape;
  const double all = weight_count(c), norms = double(c.hidden) * (2 * double(c.layers) + 1);
  if (h.version == 0) return double(h.first) + 4 * (all + double(c.context) * double(c.head_dim));
  if (h.version == 1) return double(h.first) + 4 * all;
  return double(h.first) + 4 * norms + (all - norms) + 4 * ((all - norms) / double(h.group));
}

// The blocks of weight_map in the order of the file; -1: the tables of cos and sin.
inline std::vector<index_t> bin_order(const bin_header& h) {
  const index_t layers = h.shape.layers, embedding = 0, norm = 1 + 9 * layers;
  std::vector<index_t> order;
  const auto kind = [&](index_t m) {  // of the nine of a layer, for all layers
    for (index_t i = 0; i < layers; ++i) order.push_back(1 + 9 * i + m);
  };
  if (h.version == 0) {
    order.push_back(embedding);
    for (const index_t m : {0, 1, 2, 3, 4, 5, 6, 8, 7}) kind(m);
    order.insert(order.end(), {norm, -1});
  } else {
    for (const index_t m : {0, 5}) kind(m);
    order.insert(order.end(), {norm, embedding});
    for (const index_t m : {1, 2, 3, 4, 6, 8, 7}) kind(m);
  }
  if (!h.shape.tied) order.push_back(norm + 1);
  return order;
}

// A matrix of int8 and behind it, from out.size() bytes on, a float32 for every `group` of them: the numbers
// are their products in float32.
template <class T>
void read_int8(const byte_source& bytes, std::uint64_t at, index_t group, view<T> out) {
  constexpr index_t most = 4096;
  std::array<std::int8_t, std::size_t(most)> q;
  std::array<float, std::size_t(most) + 1> scales;
  const std::uint64_t first_scale = at + std::uint64_t(out.size());
  for (index_t i = 0; i < out.size(); i += most) {
    const index_t n = std::min(most, out.size() - i), g = i / group;
    bytes.read(at + std::uint64_t(i), q.data(), std::size_t(n));
    bytes.read(first_scale + 4 * std::uint64_t(g), scales.data(),
               4 * std::size_t((i + n - 1) / group - g + 1));
    for (index_t k = 0; k < n; ++k)
      out[i + k] = T(float(q[std::size_t(k)]) * scales[std::size_t((i + k) / group - g)]);
  }
}

}  // namespace detail

/// A file of llama2.c (commit d9862069), which has three versions, all of them with tensors [out, in]. The
/// first begins with seven int32 (hidden, intermediate_size, layers, heads, key-value heads, vocabulary,
/// context); float32 follow, each kind for all layers: embedding; attention norms, q, k, v, o, MLP norms,
/// gate, down, up; final norm; two tables [context, head_dim / 2] of cos and sin, which are passed over; the
/// output matrix when the vocabulary is negative.
///
/// Versions 1 and 2 begin with a header of 256 bytes: "24ka", the version, the seven int32, a byte that is 1
/// where the output matrix is the embedding, in version 2 an int32 group size, zeros. Version 1 has float32:
/// attention norms, MLP norms, final norm, embedding, q, k, v, o, gate, down, up, output matrix. Version 2
/// has its norms so; of every matrix the int8 and behind them a float32 for each group of them, which
/// multiplies the group. (Older writers of version 2 put all float32 at the end: the sizes do not tell.)
///
/// The model keeps its rope_pairs::neighbours. Throws unroll::error when the header is that of no Llama, when
/// the size is off by a byte, and on weights that are nan or infinite.
template <class T>
pretrained<T> load_bin(const byte_source& bytes, load_options options = {}) {
  const detail::bin_header h = detail::read_bin_header(bytes);
  const config& c = h.shape;
  // decided in doubles first, so that nothing below overflows
  const double needed = detail::bin_bytes(h);
  const auto differs = [&](const std::string& n) {
    bytes.refuse("has " + std::to_string(bytes.size()) + " bytes, its header needs " + n);
  };
  if (needed > 1e15) differs("more than 10^15");
  if (std::uint64_t(needed) != bytes.size()) differs(std::to_string(std::uint64_t(needed)));

  const weight_map map(c);
  pretrained<T> out{c, parameters<T>(map.size())};
  std::uint64_t at = h.first;
  for (const index_t i : detail::bin_order(h)) {
    if (i < 0) {
      at += sizeof(float) * std::uint64_t(c.context) * std::uint64_t(c.head_dim);
      continue;
    }
    const layout_block& b = map.names().blocks()[std::size_t(i)];
    const view<T> part(out.weights.data() + b.offset, b.size());
    const bool quantised = h.version == 2 && !b.name.ends_with("norm.weight");
    if (quantised)
      detail::read_int8(bytes, at, h.group, part);
    else
      unroll::detail::read_numbers<float>(bytes, at, part, [](float x) { return T(x); });
    const index_t bad =
        options.allow_non_finite ? part.size() : unroll::detail::first_non_finite(view<const T>(part));
    if (bad < part.size())
      bytes.refuse("tensor " + detail::in_quotes(b.name) + " is " + std::to_string(part[bad]) + " at " +
                   unroll::detail::position_text(file_shape(b), bad));
    at += quantised ? std::uint64_t(part.size()) + 4 * std::uint64_t(part.size() / h.group)
                    : sizeof(float) * std::uint64_t(part.size());
  }
  return out;
}

}  // namespace unroll::llama
