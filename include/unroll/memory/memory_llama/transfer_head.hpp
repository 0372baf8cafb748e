#pragma once

#include "unroll/core/arena.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/llama/pass.hpp"

namespace unroll::llama {

/// Turns the memory of a layer, the normed input h of its attention, into keys and values:
///
///   K = R (W_K' h + scale B_K' A_K' h),    V = W_V' h + scale B_V' A_V' h
///
/// with the frozen W of the layer and R the rotation to the positions of the memory. The columns of h are
/// those of `sequences` memories, as many of each; positions has one entry a column. K and V of sequence b
/// lie from kv + b * stride on, kv_width x (h.cols / sequences) each. A view of all it needs.
template <class E>
struct transfer_head {
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

  const E& e;  ///< whose operations it takes
  const weight_map& map;
  const W* weights;                       ///< of the frozen model
  const lora_map& lora;                   ///< where its adapters lie
  const kernels::rotary_table<P>& table;  ///< cosines and sines of the positions

  /// Numbers of the workspace, of kind A.
  static index_t workspace_size(const config& c, index_t columns) {
    arena<A> space;
    space.template cut_as<P>(c.kv_width(), columns);
    space.template cut_as<M>(c.kv_width(), columns);
    space.cut(c.kv_width(), 2 * columns);
    space.cut_flat(E::adapter_work(c.hidden + c.kv_width(), columns, true));
    return space.used();
  }

  /// WRITES K and V.
  void forward(index_t layer, const P* theta, matrix<const A> h, std::span<const index_t> positions, M* kv,
               index_t stride, index_t sequences, view<A> workspace) const {
    arena<A> space(workspace);
    const index_t n = h.cols / sequences;
    const matrix<M> all = space.template cut_as<M>(map.shape().kv_width(), h.cols);
    const view<A> left = workspace.part(space.used(), workspace.size() - space.used());
    for (const layer_matrix m : {layer_matrix::k, layer_matrix::v}) {
      const matrix<M> y = sequences == 1 ? part(kv, m, n) : all;
      e.gemm(op::transpose, base(layer, m), op::none, h, false, y);
      if (lora.at(layer, m).a >= 0) e.adapt(adapter(layer, m, theta), h, y, left);
      if (m == layer_matrix::k) e.rotary(kernels::turn::forward, table, positions, y);
      for (index_t b = 0; sequences > 1 && b < sequences; ++b)
        e.copy(matrix<const M>(columns_of(y, b * n, n)), part(kv + b * stride, m, n));
    }
  }

  /// From the adjoints of K and V: ADDS to dh, and to dtheta (the head's gradient) where it is not null.
  /// dtheta gets the share of sequence 0 first.
  void vjp(index_t layer, const P* theta, matrix<const A> h, std::span<const index_t> positions, const P* dkv,
           index_t stride, index_t sequences, matrix<A> dh, P* dtheta, view<A> workspace) const {
    const index_t n = h.cols / sequences;
    arena<A> space(workspace);
    const matrix<P> dk = space.template cut_as<P>(map.shape().kv_width(), h.cols);
    const matrix<A> dy = space.cut(dk.rows, 2 * h.cols);
    const view<A> left = space.cut_flat(E::adapter_work(h.rows + dk.rows, h.cols, true));
    const auto own = [&](const auto& all, index_t b) { return columns_of(all, b * n, n); };
    for (index_t b = 0; b < sequences; ++b) e.copy(part(dkv + b * stride, layer_matrix::k, n), own(dk, b));
    e.rotary(kernels::turn::back, table, positions, dk);
    for (const layer_matrix m : {layer_matrix::k, layer_matrix::v}) {
      const matrix<A> d = columns_of(dy, m == layer_matrix::k ? 0 : h.cols, h.cols);
      for (index_t b = 0; b < sequences; ++b)
        e.copy(m == layer_matrix::k ? matrix<const P>(own(dk, b)) : part(dkv + b * stride, m, n), own(d, b));
      e.gemm(op::none, base(layer, m), op::none, d, true, dh);
      if (lora.at(layer, m).a < 0) continue;
      exec::adapter_gradient<P> gradient;
      if (dtheta) gradient = {factor_a(dtheta, layer, m), factor_b(dtheta, layer, m)};
      e.adapt_vjp(adapter(layer, m, theta), h, d, dh, gradient, sequences, left);
    }
  }

 private:
  matrix<const W> base(index_t layer, layer_matrix m) const {
    const auto& l = map[layer];
    return {weights + (m == layer_matrix::k ? l.k : l.v), map.shape().hidden, map.shape().kv_width()};
  }
  template <class U>
  matrix<U> factor_a(U* theta, index_t layer, layer_matrix m) const {
    return {theta + lora.at(layer, m).a, map.shape().hidden, lora.rank()};
  }
  template <class U>
  matrix<U> factor_b(U* theta, index_t layer, layer_matrix m) const {
    return {theta + lora.at(layer, m).b, lora.rank(), map.shape().kv_width()};
  }
  exec::adapter<P> adapter(index_t layer, layer_matrix m, const P* theta) const {
    return {factor_a(theta, layer, m), factor_b(theta, layer, m), lora.scale()};
  }
  template <class U>
  matrix<U> part(U* kv, layer_matrix m, index_t columns) const {
    const index_t width = map.shape().kv_width();
    return {kv + (m == layer_matrix::k ? 0 : width * columns), width, columns};
  }
};

}  // namespace unroll::llama
