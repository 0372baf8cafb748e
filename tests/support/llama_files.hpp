#pragma once

#include "unroll/io/llama_checkpoint.hpp"

// Files of Llamas, made in memory, well formed or not.
namespace made {

template <class T>
std::string raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

/// A .safetensors file with any header.
inline std::string with_header(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + data;
}

struct tensor {
  std::string name, dtype;
  std::vector<unroll::index_t> shape;
  std::string bytes;
};

inline std::string safetensors(const std::vector<tensor>& tensors) {
  auto header = nlohmann::ordered_json::object();
  std::string data;
  for (const tensor& t : tensors) {
    header[t.name] = {{"dtype", t.dtype},
                      {"shape", t.shape},
                      {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
    data += t.bytes;
  }
  return with_header(header.dump(), data);
}

/// No two of its sizes are equal where a mistake could hide.
inline unroll::llama::config tiny(bool tied = true) {
  unroll::llama::config c;
  c.hidden = 8;
  c.intermediate_size = 10;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 2;
  c.vocabulary = 11;
  c.context = 16;
  c.tied = tied;
  return c;
}

/// Numbers 1/4, 2/4, ...: all different, exact in float.
template <class T>
unroll::parameters<T> counted(unroll::index_t size) {
  unroll::parameters<T> w(size);
  for (unroll::index_t i = 0; i < size; ++i) w[i] = T(i + 1) / 4;
  return w;
}

/// The tensors of a Llama as F32.
inline std::vector<tensor> tensors(const unroll::llama::weight_map& map, const unroll::parameters<float>& w) {
  std::vector<tensor> out;
  for (const auto& b : map.names().blocks())
    out.push_back({b.name, "F32", unroll::file_shape(b),
                   raw(std::vector<float>(w.data() + b.offset, w.data() + b.offset + b.size()))});
  return out;
}

/// What unroll::error says when `f` throws it; empty when nothing is thrown.
template <class F>
std::string message(F&& f) {
  try {
    f();
  } catch (const unroll::error& e) {
    return e.what();
  }
  return {};
}

template <class A, class B>
bool same_bits(const A& a, const B& b) {
  return std::size_t(a.size()) == std::size_t(b.size()) &&
         std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(*a.data())) == 0;
}

}  // namespace made
