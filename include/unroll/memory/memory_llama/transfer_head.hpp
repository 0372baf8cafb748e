#pragma once

#include "unroll/core/arena.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/llama/lora_product.hpp"
#include "unroll/llama/weights.hpp"

namespace unroll::llama {

/// The keys and values of one layer in `count` memories of as many columns each: those of memory b lie from
/// first + b stride on, K before V, kv_width x columns each. T: of memories, or of their adjoints.
template <class T>
struct layer_memories {
  T* first;           ///< the keys of memory 0
  index_t stride;     ///< may be negative
  index_t count = 1;  ///< memories
};

/// Turns what the encoder leaves at the memory tokens, the normed input h of a layer's attention, into keys
/// and values of the decoder (UIO-LLMs, arXiv 2406.18173, section 3):
///
///   K = R (W_K' h + scale B_K' (A_K' h)),    V = W_V' h + scale B_V' (A_V' h)
///
/// with the frozen W of the layer and R the rotation to the positions of the memories. h is hidden x columns:
/// those of one memory after another, as many of each. A view of all it needs, made for one call.
template <class E>
struct transfer_head {
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

  const E& e;  ///< whose operations it takes
  const weight_map& map;
  const W* weights;                       ///< map.size() numbers
  adapters<P> lora;                       ///< on W_K and W_V
  const kernels::rotary_table<P>& table;  ///< cosines and sines of the positions

  /// Numbers of the workspace, of kind A.
  static index_t workspace_size(const config& c, index_t columns) {
    arena<A> space;
    space.template cut_as<P>(c.kv_width(), columns);
    space.template cut_as<M>(c.kv_width(), columns);
    space.cut(c.kv_width(), 2 * columns);
    space.cut_flat(E::adapter_workspace(c.hidden + c.kv_width(), columns, true));
    return space.used();
  }

  /// WRITES K and V, kv_width x columns together, from h, hidden x columns. positions: one a column of h;
  /// workspace: workspace_size().
  void forward(index_t layer, matrix<const A> h, std::span<const index_t> positions, layer_memories<M> kv,
               view<A> workspace) const {
    arena<A> space(workspace);
    const index_t n = h.cols / kv.count;
    const matrix<M> all = space.template cut_as<M>(map.shape().kv_width(), h.cols);
    const lora_product<E> adapted{e, lora, layer, space.rest()};
    for (const layer_matrix m : {layer_matrix::k, layer_matrix::v}) {
      const matrix<M> y = kv.count == 1 ? part(kv, 0, m, n) : all;
      e.gemm(op::transpose, base(layer, m), op::none, h, false, y);
      adapted.add(m, h, y);
      if (m == layer_matrix::k) e.rotary(kernels::turn::forward, table, positions, y);
      for (index_t b = 0; kv.count > 1 && b < kv.count; ++b)
        e.copy(matrix<const M>(columns_of(y, b * n, n)), part(kv, b, m, n));
    }
  }

  /// From dkv, the adjoints of K and V: ADDS to dh, hidden x columns, and to the gradient `da` of the
  /// adapters (null: not wanted), the share of memory 0 first. h and workspace: as in forward.
  void vjp(index_t layer, matrix<const A> h, std::span<const index_t> positions, layer_memories<const P> dkv,
           matrix<A> dh, P* da, view<A> workspace) const {
    const index_t n = h.cols / dkv.count;
    arena<A> space(workspace);
    const matrix<P> dk = space.template cut_as<P>(map.shape().kv_width(), h.cols);
    const matrix<A> dy = space.cut(dk.rows, 2 * h.cols);
    const lora_product<E> adapted{e, lora, layer,
                                  space.cut_flat(E::adapter_workspace(h.rows + dk.rows, h.cols, true))};
    const auto own = [&](const auto& all, index_t b) { return columns_of(all, b * n, n); };
    for (index_t b = 0; b < dkv.count; ++b) e.copy(part(dkv, b, layer_matrix::k, n), own(dk, b));
    e.rotary(kernels::turn::back, table, positions, dk);
    for (const layer_matrix m : {layer_matrix::k, layer_matrix::v}) {
      const matrix<A> d = columns_of(dy, m == layer_matrix::k ? 0 : h.cols, h.cols);
      for (index_t b = 0; b < dkv.count; ++b)
        e.copy(m == layer_matrix::k ? matrix<const P>(own(dk, b)) : part(dkv, b, m, n), own(d, b));
      e.gemm(op::none, base(layer, m), op::none, d, true, dh);
      adapted.add_vjp(m, h, d, dh, da, dkv.count);
    }
  }

 private:
  /// The frozen matrix, hidden x kv_width.
  matrix<const W> base(index_t layer, layer_matrix m) const {
    const auto& l = map[layer];
    return {weights + (m == layer_matrix::k ? l.k : l.v), map.shape().hidden, map.shape().kv_width()};
  }
  /// K or V of memory b, kv_width x columns.
  template <class U>
  matrix<U> part(layer_memories<U> kv, index_t b, layer_matrix m, index_t columns) const {
    const index_t width = map.shape().kv_width();
    return {kv.first + b * kv.stride + (m == layer_matrix::k ? 0 : width * columns), width, columns};
  }
};

}  // namespace unroll::llama
