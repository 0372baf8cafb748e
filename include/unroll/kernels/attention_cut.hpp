#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/core/linalg.hpp"
#include "unroll/kernels/attention_shape.hpp"
#include "unroll/kernels/softmax.hpp"

namespace unroll::kernels {

namespace detail {

/// From the scores of one query to its probabilities, n each, in place.
template <class T>
struct probabilities_kernel {
  template <class Isa>
  UNROLL_INLINE static T run(T* s, index_t n, T log_sum, T root) {
    return exponentials_on<Isa>(s, n, log_sum / root, root, s);
  }
};

}  // namespace detail

/// The vjp of attention, as attention_vjp, of a random part of the pairs of a query and a key (attention_cut;
/// SUS backprop). With p_ti, dp_ti and ds_ti as there and w_ti of mean 1, 0 for what is cut,
///   dv_t += sum_i w_ti p_ti dout_i,   dk_t += sum_i w_ti ds_ti q_i,   dq_i = sum_t w_ti ds_ti k_t,
///   ds_ti = p_ti (dp_ti - out_i . dout_i) / sqrt(head_dim),
/// where out_i . dout_i, which is sum_t p_ti dp_ti, needs no pairs and is exact. Linear in the w: unbiased.
///
/// All scores are still computed: 2 head_dim multiplications and additions for a visible pair, and 8 head_dim
/// for one that is kept, of which a query of a head has `pairs` at most on average. `sequence`: its number in
/// the call. The rest as attention_vjp, the same workspace is enough.
template <class T>
void attention_cut_vjp(const attention_inputs<T>& in, const attention_cotangents<T>& given,
                       const attention_adjoints<T>& to, const attention_cut& cut, index_t sequence,
                       std::type_identity_t<view<T>> workspace) {
  constexpr index_t most = 16;  // queries whose scores are one product
  const attention_shape& shape = in.shape;
  const index_t head = shape.head_dim, n = in.q.cols, group = shape.heads / shape.kv_heads;
  index_t keys = in.mask.first + n;
  for (const key_block<T>& b : in.before) keys += b.k.cols;
  const T root = T(1 / std::sqrt(double(head)));
  const key draws = cut.draws_of(sequence);
  T* const scores = workspace.data();
  T* const dq = scores + keys * most;
  UNROLL_ASSERT(workspace.size() >= keys * most + head);
  for (index_t j = 0; j < shape.heads; ++j) {
    const index_t row = j / group * head;
    const auto of_head = [&](const auto& m) { return rows_of(m, row, head); };
    for (index_t i = 0, count = 0; i < n; i += count) {
      count = std::min(most, n - i);
      const matrix<const T> Q(in.q.data + j * head + i * in.q.stride, head, count, in.q.stride);
      index_t at = 0;
      const auto multiply = [&](const matrix<const T>& k) {
        linalg::gemm<T>(op::transpose, of_head(k), op::none, Q, false,
                        matrix<T>(scores + at, k.cols, count, keys));
        at += k.cols;
      };
      for (const key_block<T>& b : in.before) multiply(b.k);
      const index_t before = at;
      multiply(in.own.k);
      for (index_t c = 0; c < count; ++c) {
        const index_t token = in.mask.first + i + c, visible = in.mask.visible(i + c);
        T* const p = scores + c * keys;
        const T* const q = Q.data + c * Q.stride;
        const T* const dout = given.dout.data + j * head + (i + c) * given.dout.stride;
        const T along = linalg::dot(given.out.data + j * head + (i + c) * given.out.stride, dout, head);
        simd::dispatch<detail::probabilities_kernel<T>>(p, keys, given.log_sum[j + (i + c) * shape.heads],
                                                        root);
        std::fill_n(dq, head, T(0));
        // the pair with key `number`, column t of a block
        const auto send = [&](index_t number, index_t t, const key_block<T>& block,
                              const key_block_adjoint<T>& adjoint, double w) {
          const T* const k = of_head(block.k).data + t * block.k.stride;
          const T* const v = of_head(block.v).data + t * block.v.stride;
          const T a = T(w) * p[number], ds = a * (linalg::dot(v, dout, head) - along) * root;
          if (adjoint.dv.data) linalg::axpy<T>(a, dout, adjoint.dv.data + row + t * adjoint.dv.stride, head);
          if (adjoint.dk.data) linalg::axpy<T>(ds, q, adjoint.dk.data + row + t * adjoint.dk.stride, head);
          linalg::axpy<T>(ds, k, dq, head);
        };
        attention_cut::row sample(cut.pairs, draw_uniform(draws, j + token * shape.heads));
        const auto send_kept = [&](index_t from, index_t columns, const key_block<T>& block,
                                   const key_block_adjoint<T>& adjoint) {
          for (index_t t = 0; t < columns; ++t)
            if (const double w = sample.weight(double(p[from + t])); w != 0)
              send(from + t, t, block, adjoint, w);
        };
        for (std::size_t b = 0, from = 0; b < in.before.size(); ++b) {
          const key_block<T>& block = in.before[b];
          send_kept(index_t(from), block.k.cols, block,
                    to.dbefore.empty() ? key_block_adjoint<T>{} : to.dbefore[b]);
          from += std::size_t(block.k.cols);
        }
        send_kept(before, visible, in.own, to.own);
        if (in.mask.memory_token(i + c))  // its own key besides
          if (const double w = sample.weight(double(p[before + token])); w != 0)
            send(before + token, token, in.own, to.own, w);
        std::copy_n(dq, head, to.dq.data + j * head + (i + c) * to.dq.stride);
      }
    }
  }
}

}  // namespace unroll::kernels
