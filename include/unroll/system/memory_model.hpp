#pragma once

#include <concepts>
#include <span>

#include "unroll/core/view.hpp"

namespace unroll {

/// Sizes of a memory model, in numbers of its scalar.
struct memory_dims {
  index_t params = 0;  ///< trainable parameters, theta
  index_t memory = 0;  ///< the memory of one segment, m_s: the leaf that losses send adjoints to
  index_t tape = 0;    ///< what one write saves for its vjp: one live encoder graph
};

/// Segments x_0 .. x_{T-1} write memories that later segments read:
///
///   write : (theta, x_s [, m_0 .. m_{s-1}]) -> m_s
///   read  : (theta, x_t, m_0 .. m_{t-1})    -> J_t
///
/// A fully connected recurrence: the gradient of sum_t J_t is
///   sum_t dJ_t/dtheta + sum_s A_s dm_s/dtheta,   A_s = sum_{t>s} dJ_t/dm_s
/// (UIO-LLMs, arXiv 2406.18173, equation 5; with writes that read, A_s also has sum_{u>s} A_u dm_u/dm_s).
///
///   using scalar = float or double;  using input = a segment: anything copyable
///   memory_dims size() const
///   bool independent() const                  whether write ignores the earlier memories
///   index_t workspace(index_t earlier) const  numbers that one call needs with up to `earlier` memories
///   void write(x, s, theta, past, view<T> m, view<T> tape, view<T> work) const
///       WRITES the memory of segment s; an empty tape: without a graph, with the same bits
///   void write_vjp(x, s, theta, past, view<const T> tape, view<const T> dm, std::span<T* const> dpast,
///                  dparams<T> dtheta, view<T> work) const
///       ADDS dm . dm_s/dtheta to dtheta, and dm . dm_s/dm_u to dpast[u] where it is not null
///   T read(x, t, theta, past, view<T> work) const
///       the loss J_t, summed over the tokens of the segment
///   T read_vjp(x, t, theta, past, std::span<T* const> dpast, dparams<T> dtheta, view<T> work) const
///       the same, and ADDS dJ_t/dm_s to dpast[s] where it is not null, dJ_t/dtheta to dtheta
///
/// Optional members:
///   bool reads_params() const        false: read leaves theta alone; read_vjp is then given an empty dtheta
///   bool finite(const input& x) const     false when x holds NaN or infinity; throws when it is invalid
///   index_t scored(const input& x) const  number of losses (tokens) in the sum that read returns for x,
///                                         one without the member
///
/// past[s] points to m_s, s = 0 .. t-1. An independent model's write takes an empty `past` and leaves dpast
/// alone. No call allocates.
template <class M>
concept memory_model = std::copyable<M> &&
    requires(const M& m, const typename M::input& x, index_t s, params<const typename M::scalar> theta,
             std::span<const typename M::scalar* const> past, std::span<typename M::scalar* const> dpast,
             dparams<typename M::scalar> dtheta, view<typename M::scalar> out,
             view<const typename M::scalar> in) {
  requires std::floating_point<typename M::scalar>;
  requires std::copyable<typename M::input>;
  { m.size() } -> std::same_as<memory_dims>;
  { m.independent() } -> std::same_as<bool>;
  { m.workspace(s) } -> std::same_as<index_t>;
  m.write(x, s, theta, past, out, out, out);
  m.write_vjp(x, s, theta, past, in, in, dpast, dtheta, out);
  { m.read(x, s, theta, past, out) } -> std::same_as<typename M::scalar>;
  { m.read_vjp(x, s, theta, past, dpast, dtheta, out) } -> std::same_as<typename M::scalar>;
};

}  // namespace unroll
