#pragma once

#include "unroll/exec/executor.hpp"
#include "unroll/io/llama_checkpoint.hpp"

namespace unroll::llama {

/// Reads the Llama of `path` for whoever holds its weights elsewhere: begin(shape) once, then
/// put(first, numbers), which says that the weights from `first` on, laid out by weight_map(shape), are these
/// W. Of GGUF, and of a folder with config.json and safetensors, in one file or in several, never more than
/// 4 MiB are in host memory at a time, of the tensors one after another; a .bin is loaded whole first.
/// Returns the shape. Throws unroll::error as load_llama does: before begin() where the files do not fit the
/// config.
template <class W, class Begin, class Put>
config load_pieces(const std::filesystem::path& path, Begin&& begin, Put&& put, load_options options = {}) {
  const char* function = "load_llama";
  const auto in_pieces = [&](const weight_map& map, auto&& read) {  // read(block's number, first, part)
    begin(map.shape());
    constexpr index_t most = (index_t{4} << 20) / index_t(sizeof(W));
    buffer<W> piece(std::min(most, map.size()));
    for (std::size_t n = 0; n < map.names().blocks().size(); ++n) {
      const layout_block& b = map.names().blocks()[n];
      for (index_t i = 0; i < b.size(); i += most) {
        const view<W> part(piece.data(), std::min(most, b.size() - i));
        read(n, i, part);
        put(b.offset + i, params<const W>(part.data(), part.size()));
      }
    }
  };
  std::error_code code;
  if (!std::filesystem::is_directory(path, code)) {
    if (is_gguf(byte_source::open(path, function))) {
      const gguf_files files = gguf_files::open(path, function);
      config c = gguf_config(files);
      const auto names = detail::gguf_names(c);
      in_pieces(detail::checked_map(c, files), [&](std::size_t n, index_t i, view<W> part) {
        files.holding(names[n]).read(names[n], i, part, options.allow_non_finite);
      });
      return c;
    }
    const pretrained<W> whole = load_llama<W>(path, options);
    begin(whole.shape);
    put(index_t(0), params<const W>(whole.weights));
    return whole.shape;
  }
  const auto source = byte_source::open(path / "config.json", function);
  config c = parse_config(source.read(0, source.size()), source.name(), function);
  const tensor_files files = tensor_files::open(path, function);
  const weight_map map = detail::checked_map(c, files);
  in_pieces(map, [&](std::size_t n, index_t i, view<W> part) {
    const std::string& name = map.names().blocks()[n].name;
    files.holding(name).read(name, i, part, options.allow_non_finite);
  });
  detail::check_tied<W>(c, files, options);
  return c;
}

/// A Llama from files, its weights at the place of an executor.
template <class E>
struct placed_llama {
  config shape;
  typename E::template block<typename E::numbers::weight, param_space>
      weights;  ///< laid out by weight_map(shape)
};

/// The Llama of `path` at the place of `e`: its weights are there once and in host memory never, see
/// load_pieces. Throws unroll::error as load_llama does, and what the executor's allocate throws.
template <exec::executor E>
placed_llama<E> load_llama_at(const std::filesystem::path& path, const E& e, load_options options = {}) {
  using W = typename E::numbers::weight;
  placed_llama<E> out;
  out.shape = load_pieces<W>(
      path, [&](const config& c) { out.weights = e.template allocate<W, param_space>(weight_map(c).size()); },
      [&](index_t first, params<const W> part) {
        e.upload(part.data(), part.size(), out.weights.data() + first);
      },
      options);
  e.synchronise();
  return out;
}

}  // namespace unroll::llama
