#pragma once

#include "unroll/memory/memory_llama/model.hpp"

namespace unroll::llama {

/// How the trainable parameters begin.
struct memory_start {
  token mem = -1;  ///< `<mem>` begins as the embedding of this token, as a rule the end of text; -1: random
  double b_scale = 0;  ///< of both sets of adapters, see init_lora: 0 begins at the frozen model
};

/// WRITES theta. Random `<mem>` are normal with standard deviation 0.02. `embedding`: that of the frozen
/// model, hidden x V. Throws unroll::error on wrong sizes and on a token outside the vocabulary.
template <class W, class T>
void init_memory(const memory_map& map, matrix<const W> embedding, params<T> theta, key k,
                 memory_start start = {}) {
  check_size("init_memory", "theta", theta.size(), map.size());
  if (start.mem >= embedding.cols)
    fail("init_memory", "mem",
         "is " + std::to_string(start.mem) + ", the vocabulary has " + std::to_string(embedding.cols));
  init_lora(map.encoder(), map.encoder_part(theta), fold(k, 0), start.b_scale);
  init_lora(map.transfer_head(), map.transfer_head_part(theta), fold(k, 1), start.b_scale);
  const params<T> mem = map.memory_part(theta);
  draw_normals(fold(k, 2), 0, mem);
  for (T& x : mem) x *= T(0.02);
  if (start.mem < 0) return;
  for (index_t at = 0; at < mem.size(); at += embedding.rows)
    for (index_t i = 0; i < embedding.rows; ++i)
      mem[at + i] = T(embedding.data[i + start.mem * embedding.stride]);
}

/// WRITES theta, at the host. Throws unroll::error on a wrong size and a token outside
/// the vocabulary.
template <class X>
void init_memory(const memory_llama<X>& model, params<typename memory_llama<X>::P> theta, key k,
                 memory_start start = {}) {
  static_assert(exec::of<X>::where == place::host, "init_memory draws on the host: upload what it draws");
  const config& c = model.shape();
  const auto* const w = model.weights().data();
  init_memory(model.trainable(), matrix(w + model.stack().map().embedding(), c.hidden, c.vocabulary), theta,
              k, start);
}

}  // namespace unroll::llama
