#pragma once

#include "unroll/core/arena.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/llama/pass.hpp"

namespace unroll::llama {

/// Turns the memory of a layer, the normed input h of its attention, into keys and values:
///
///   K = R (W_K' h + scale B_K' A_K' h),    V = W_V' h + scale B_V' A_V' h
///
/// with the frozen W of the layer and R the rotation to the positions of the memory. A view of all it needs.
template <class E>
struct transfer_head {
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

  const E& e;
  const weight_map& map;
  const W* weights;
  const lora_map& lora;
  const kernels::rotary_table<P>& table;

  /// Numbers of work, of kind A.
  static index_t work_size(const config& c, index_t columns) {
    arena<A> room;
    room.template cut_as<P>(c.kv_width(), columns);
    room.cut(c.kv_width(), 2 * columns);
    room.cut_flat(E::adapter_work(columns, true));
    return room.used();
  }

  /// WRITES K and then V, kv_width x h.cols each, to kv.
  void forward(index_t layer, const P* theta, matrix<const A> h, std::span<const index_t> positions, M* kv,
               view<A> work) const {
    for (const target_matrix m : {target_matrix::k, target_matrix::v}) {
      const matrix<M> y = part(kv, m, h.cols);
      e.gemm(op::transpose, base(layer, m), op::none, h, false, y);
      if (lora.at(layer, m).a >= 0) e.adapt(adapter(layer, m, theta), h, y, work);
    }
    e.rotary(kernels::turn::forward, table, positions, part(kv, target_matrix::k, h.cols));
  }

  /// From the adjoints of K and V: ADDS to dh, and to dtheta (the head's gradient) where it is not null.
  void vjp(index_t layer, const P* theta, matrix<const A> h, std::span<const index_t> positions, const P* dkv,
           matrix<A> dh, P* dtheta, view<A> work) const {
    const index_t n = h.cols;
    arena<A> room(work);
    const matrix<P> dk = room.template cut_as<P>(map.shape().kv_width(), n);
    e.copy(part(dkv, target_matrix::k, n), dk);
    e.rotary(kernels::turn::back, table, positions, dk);
    const matrix<A> dy = room.cut(dk.rows, 2 * n);
    const view<A> left = room.cut_flat(E::adapter_work(n, true));
    for (const target_matrix m : {target_matrix::k, target_matrix::v}) {
      const matrix<A> d = columns_of(dy, m == target_matrix::k ? 0 : n, n);
      e.copy(m == target_matrix::k ? matrix<const P>(dk) : part(dkv, target_matrix::v, n), d);
      e.gemm(op::none, base(layer, m), op::none, d, true, dh);
      if (lora.at(layer, m).a < 0) continue;
      exec::adapter_gradient<P> gradient;
      if (dtheta) gradient = {factor_a(dtheta, layer, m), factor_b(dtheta, layer, m)};
      e.adapt_vjp(adapter(layer, m, theta), h, d, dh, gradient, 1, left);
    }
  }

 private:
  matrix<const W> base(index_t layer, target_matrix m) const {
    const auto& l = map[layer];
    return {weights + (m == target_matrix::k ? l.k : l.v), map.shape().hidden, map.shape().kv_width()};
  }
  template <class U>
  matrix<U> factor_a(U* theta, index_t layer, target_matrix m) const {
    return {theta + lora.at(layer, m).a, map.shape().hidden, lora.rank()};
  }
  template <class U>
  matrix<U> factor_b(U* theta, index_t layer, target_matrix m) const {
    return {theta + lora.at(layer, m).b, lora.rank(), map.shape().kv_width()};
  }
  exec::adapter<P> adapter(index_t layer, target_matrix m, const P* theta) const {
    return {factor_a(theta, layer, m), factor_b(theta, layer, m), lora.scale()};
  }
  template <class U>
  matrix<U> part(U* kv, target_matrix m, index_t columns) const {
    const index_t width = map.shape().kv_width();
    return {kv + (m == target_matrix::k ? 0 : width * columns), width, columns};
  }
};

}  // namespace unroll::llama
