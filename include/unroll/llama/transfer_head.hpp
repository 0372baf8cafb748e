#pragma once

#include "unroll/kernels/rotary.hpp"
#include "unroll/llama/pass.hpp"

namespace unroll::llama {

/// Turns the memory of a layer, the normed input h of its attention, into keys and values:
///
///   K = R (W_K' h + scale B_K' A_K' h),    V = W_V' h + scale B_V' A_V' h
///
/// with the frozen W of the layer and R the rotation to the positions of the memory. A view of all it needs.
template <class T>
struct transfer_head {
  const weight_map& map;
  const T* weights;
  const lora_map& lora;
  const kernels::rotary<T>& rotary;

  static index_t work_size(const config& c, index_t rank, index_t columns) {
    return (c.kv_width() + 2 * rank) * columns;
  }

  /// WRITES K and then V, kv_width x h.cols each, to kv.
  void forward(index_t layer, const T* theta, matrix<const T> h, std::span<const index_t> positions, T* kv,
               view<T> work) const {
    for (const target_matrix m : {target_matrix::k, target_matrix::v}) {
      const matrix<T> y = part(kv, m, h.cols);
      linalg::gemm(op::transpose, base(layer, m), op::none, h, false, y);
      const auto f = lora.at(layer, m);
      if (f.a >= 0) {
        const matrix<T> z(work.data(), lora.rank(), h.cols);
        linalg::gemm(op::transpose, factor_a(theta, f), op::none, h, false, z);
        linalg::scale(T(lora.scale()), z.data, z.rows * z.cols);
        linalg::gemm(op::transpose, factor_b(theta, f), op::none, z, true, y);
      }
    }
    rotary.rotate(part(kv, target_matrix::k, h.cols), positions);
  }

  /// From the adjoints of K and V: ADDS to dh, and to dtheta (the head's gradient) where it is not null.
  void vjp(index_t layer, const T* theta, matrix<const T> h, std::span<const index_t> positions, const T* dkv,
           matrix<T> dh, T* dtheta, view<T> work) const {
    const index_t n = h.cols, width = map.shape().kv_width();
    const matrix<T> dk(work.data(), width, n);
    std::copy_n(dkv, width * n, dk.data);
    rotary.rotate_back(dk, positions);
    const matrix<T> z(work.data() + width * n, lora.rank(), n), dz(z.data + z.rows * n, lora.rank(), n);
    for (const target_matrix m : {target_matrix::k, target_matrix::v}) {
      const matrix<const T> dy = m == target_matrix::k ? matrix<const T>(dk) : part(dkv, target_matrix::v, n);
      linalg::gemm(op::none, base(layer, m), op::none, dy, true, dh);
      const auto f = lora.at(layer, m);
      if (f.a < 0) continue;
      linalg::gemm(op::none, factor_b(theta, f), op::none, dy, false, dz);
      linalg::scale(T(lora.scale()), dz.data, dz.rows * n);
      linalg::gemm(op::none, factor_a(theta, f), op::none, dz, true, dh);
      if (!dtheta) continue;
      linalg::gemm(op::transpose, factor_a(theta, f), op::none, h, false, z);
      linalg::scale(T(lora.scale()), z.data, z.rows * n);
      linalg::gemm(op::none, z, op::transpose, dy, true, factor_b(dtheta, f));
      linalg::gemm(op::none, h, op::transpose, dz, true, factor_a(dtheta, f));
    }
  }

 private:
  matrix<const T> base(index_t layer, target_matrix m) const {
    const auto& l = map[layer];
    return {weights + (m == target_matrix::k ? l.k : l.v), map.shape().hidden, map.shape().kv_width()};
  }
  template <class U>
  matrix<U> factor_a(U* theta, lora_map::factors f) const {
    return {theta + f.a, map.shape().hidden, lora.rank()};
  }
  template <class U>
  matrix<U> factor_b(U* theta, lora_map::factors f) const {
    return {theta + f.b, lora.rank(), map.shape().kv_width()};
  }
  template <class U>
  matrix<U> part(U* kv, target_matrix m, index_t columns) const {
    const index_t width = map.shape().kv_width();
    return {kv + (m == target_matrix::k ? 0 : width * columns), width, columns};
  }
};

}  // namespace unroll::llama
