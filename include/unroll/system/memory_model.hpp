#pragma once

#include <concepts>
#include <span>

#include "unroll/core/numbers.hpp"
#include "unroll/core/view.hpp"
#include "unroll/kernels/attention_shape.hpp"

namespace unroll {

/// Sizes of a memory model, each in numbers of its kind; bytes_of() gives them in bytes.
struct memory_dims {
  index_t params = 0;  ///< trainable parameters, theta
  index_t memory = 0;  ///< the memory of one segment, m_s: the leaf that losses send adjoints to
  index_t tape = 0;    ///< activations that one write saves for its vjp: one live encoder graph
};

/// The graphs of one batch of n writes, and what is sent back through them. N: the model's numbers.
template <class N>
struct write_graphs {
  view<const typename N::activation> tape;  ///< n size().tape, of a write of the same batch
  view<const typename N::adjoint> dm;       ///< n size().memory, the adjoints of its memories
};

/// What a vjp of a memory model ADDS to; what is null or empty is not wanted.
template <class N>
struct memory_gradients {
  /// dpast[u]: size().memory numbers, the adjoint of m_u, or null; as many as `past` has.
  std::span<typename N::adjoint* const> dpast = {};
  dparams<typename N::parameter> dtheta = {};  ///< size().params, or empty
  /// Of a read: pairs of attention that its vjp may leave out, with draws named by the segment; a model
  /// without attention leaves out nothing.
  kernels::attention_cut cut = {};
};

namespace detail {

template <class M>
struct memory_numbers {
  using type = numbers<typename M::scalar>;
};
template <class M>
requires requires { typename M::numbers; }
struct memory_numbers<M> {
  using type = typename M::numbers;
};

}  // namespace detail

/// The kinds of numbers of a memory model.
template <class M>
using numbers_of = typename detail::memory_numbers<M>::type;

// What each call of a memory model is asked with, one concept a call, so that a message can name the one that
// is missing.
namespace detail {

template <class M>
using segments_of_model = std::span<const typename M::input>;
template <class M>
using past_of = std::span<const typename numbers_of<M>::memory* const>;
template <class M>
using activations_of = view<typename numbers_of<M>::activation>;

template <class M>
concept memory_types = std::floating_point<typename M::scalar> && std::copyable<typename M::input> &&
                       std::is_same_v < typename numbers_of<M>::parameter,
typename M::scalar > ;
template <class M>
concept memory_sizes = requires(const M& m, index_t n) {
  { m.size() } -> std::same_as<memory_dims>;
  { m.independent() } -> std::same_as<bool>;
  { m.workspace(n, n) } -> std::same_as<index_t>;
};
template <class M>
concept memory_write = requires(const M& m, segments_of_model<M> xs, index_t s, past_of<M> past,
                                params<const typename M::scalar> theta,
                                view<typename numbers_of<M>::memory> out, activations_of<M> a) {
  { m.write(xs, s, theta, past, out, a, a) } -> std::same_as<void>;
};
template <class M>
concept memory_write_vjp = requires(const M& m, segments_of_model<M> xs, index_t s, past_of<M> past,
                                    params<const typename M::scalar> theta,
                                    write_graphs<numbers_of<M>> graphs, memory_gradients<numbers_of<M>> to,
                                    activations_of<M> workspace) {
  { m.write_vjp(xs, s, theta, past, graphs, to, workspace) } -> std::same_as<void>;
};
template <class M>
concept memory_read = requires(const M& m, segments_of_model<M> xs, index_t t, past_of<M> past,
                               params<const typename M::scalar> theta,
                               typename numbers_of<M>::accumulator* losses, activations_of<M> workspace) {
  { m.read(xs, t, theta, past, losses, workspace) } -> std::same_as<void>;
};
template <class M>
concept memory_read_vjp = requires(const M& m, segments_of_model<M> xs, index_t t, past_of<M> past,
                                   params<const typename M::scalar> theta,
                                   typename numbers_of<M>::accumulator* losses,
                                   memory_gradients<numbers_of<M>> to, activations_of<M> workspace) {
  { m.read_vjp(xs, t, theta, past, losses, to, workspace) } -> std::same_as<void>;
};

}  // namespace detail

/// Segments x_0 .. x_{T-1} write memories that later segments read:
///
///   write : (theta, x_s [, m_0 .. m_{s-1}]) -> m_s
///   read  : (theta, x_t, m_0 .. m_{t-1})    -> J_t
///
/// A fully connected recurrence: the gradient of sum_t J_t is
///   sum_t dJ_t/dtheta + sum_s A_s dm_s/dtheta,   A_s = sum_{t>s} dJ_t/dm_s
/// (UIO-LLMs, arXiv 2406.18173, equation 5; with writes that read, A_s also has sum_{u>s} A_u dm_u/dm_s).
///
/// Every call takes one or several consecutive segments, xs = x_s .. x_{s+n-1}, a batch. Whatever n is,
/// memories, losses and adjoints of memories have the bits of one by one, and so has dtheta, to which the
/// segments' shares are added one after another. Writes that read earlier memories are called with one
/// segment.
///
///   using scalar = the type of theta and of its gradient, float or double
///   using input = a segment: anything copyable
///   memory_dims size() const
///   bool independent() const                  whether write ignores the earlier memories
///   index_t workspace(index_t earlier, index_t batch) const
///       numbers that one call needs for up to `batch` segments, the last of which stands behind up to
///       `earlier` memories
///   void write(xs, s, theta, past, view<memory> m, view<activation> tape, view<activation> workspace) const
///       WRITES the n memories, one after another; an empty tape: without a graph, with the same bits. The
///       n tapes are one piece, which the batch may lay out as it likes
///   void write_vjp(xs, s, theta, past, write_graphs<numbers> graphs, memory_gradients<numbers> to,
///                  view<activation> workspace) const
///       ADDS the sum of dm_i . dm_{s+i}/dtheta to dtheta, that of the last segment first, and
///       dm . dm_s/dm_u to dpast[u]
///   void read(xs, t, theta, past, accumulator* losses, view<activation> workspace) const
///       WRITES the losses J_t .. J_{t+n-1}, each summed over the tokens of its segment
///   void read_vjp(xs, t, theta, past, accumulator* losses, memory_gradients<numbers> to,
///                 view<activation> workspace) const
///       the same, and ADDS dJ_{t+i}/dm_s to dpast[s] and dJ_{t+i}/dtheta to dtheta, that of the first
///       segment first
///
/// Theta has size().params numbers, m n times size().memory, tape n times size().tape, losses n, the
/// workspace what workspace() says. past[s] points to the size().memory numbers of m_s: all that the last
/// segment of the batch sees, of which segment t + i sees the first t + i, so that a batch of n reads takes t
/// + n - 1. An independent model's write takes an empty `past` and leaves dpast alone. No call allocates, nor
/// waits for what it has begun: numbers lie where the model's executor has them, and whoever wants to see a
/// loss asks that executor.
///
/// Optional members:
///   using numbers = unroll::numbers<...>  what memories, adjoints, activations and losses (accumulators) are
///                                         stored in; numbers<scalar> without the member
///   executor() const                      where the numbers lie; the host without the member
///   std::string identity() const          the options that sizes do not show: whoever resumes a saved stream
///                                         must have the same. Without the member, a model of the same sizes
///                                         and kinds, as independent as the other, is taken for the same
///   bool reads_params() const        false: read leaves theta alone; read_vjp is then given an empty dtheta
///   bool finite(const input& x) const     false when x holds NaN or infinity; throws when it is invalid
///   bool memories_on_host() const         true: `past` and `dpast` are in memory of the host, all else is at
///                                         the executor's place; see exec/offload.hpp
///   index_t write_workspace(index_t earlier, index_t batch) const
///                                         the part of workspace() that write and write_vjp need:
///                                         rematerialise then holds its graphs in the rest
///   index_t scored(const input& x) const  number of losses (tokens) in the sum that read returns for x,
///                                         one without the member
template <class M>
concept memory_model =
    std::copyable<M> && detail::memory_types<M> && detail::memory_sizes<M> && detail::memory_write<M> &&
    detail::memory_write_vjp<M> && detail::memory_read<M> && detail::memory_read_vjp<M>;

/// The first line of every estimator over memories: a wrong model stops here, with the signature to write as
/// the message.
template <class M>
constexpr bool require_memory_model() {
  static_assert(
      requires { typename M::scalar; } && requires { typename M::input; },
      "a memory model needs member types `scalar` (float or double) and `input` (copyable)");
  static_assert(std::copyable<M>, "a memory model must be copyable: every estimator owns a copy");
  static_assert(detail::memory_types<M>,
                "a memory model's `scalar` is float or double, its `input` copyable, and `numbers`, where it "
                "has them, store parameters as `scalar`");
  static_assert(detail::memory_sizes<M>,
                "a memory model needs: unroll::memory_dims size() const; bool independent() const; "
                "index_t workspace(index_t earlier, index_t batch) const");
  static_assert(
      detail::memory_write<M>,
      "a memory model needs: void write(std::span<const input> xs, index_t s, "
      "unroll::params<const scalar> theta, std::span<const memory* const> past, "
      "unroll::view<memory> m, unroll::view<activation> tape, unroll::view<activation> workspace) const");
  static_assert(detail::memory_write_vjp<M>,
                "a memory model needs: void write_vjp(std::span<const input> xs, index_t s, "
                "unroll::params<const scalar> theta, std::span<const memory* const> past, "
                "unroll::write_graphs<numbers> graphs, unroll::memory_gradients<numbers> to, "
                "unroll::view<activation> workspace) const   (it ADDS to to.dpast and to.dtheta; numbers is "
                "unroll::numbers<scalar>, unless the model has its own)");
  static_assert(detail::memory_read<M>,
                "a memory model needs: void read(std::span<const input> xs, index_t t, "
                "unroll::params<const scalar> theta, std::span<const memory* const> past, "
                "accumulator* losses, unroll::view<activation> workspace) const");
  static_assert(detail::memory_read_vjp<M>,
                "a memory model needs: void read_vjp(std::span<const input> xs, index_t t, "
                "unroll::params<const scalar> theta, std::span<const memory* const> past, "
                "accumulator* losses, unroll::memory_gradients<numbers> to, "
                "unroll::view<activation> workspace) const   (it ADDS to to.dpast and to.dtheta; numbers is "
                "unroll::numbers<scalar>, unless the model has its own)");
  return memory_model<M>;
}

/// What the sizes of a memory model are in bytes, by kind.
struct memory_bytes {
  std::size_t params = 0;   ///< theta, and as many again for its gradient
  std::size_t memory = 0;   ///< one memory
  std::size_t adjoint = 0;  ///< the adjoint of one memory
  std::size_t tape = 0;     ///< one live encoder graph
};
/// Those of a model, from its sizes and the kinds of its numbers.
template <memory_model M>
memory_bytes bytes_of(const M& model) {
  using N = numbers_of<M>;
  const memory_dims d = model.size();
  const auto bytes = [](index_t n, std::size_t one) { return std::size_t(n) * one; };
  return {bytes(d.params, sizeof(typename N::parameter)), bytes(d.memory, sizeof(typename N::memory)),
          bytes(d.memory, sizeof(typename N::adjoint)), bytes(d.tape, sizeof(typename N::activation))};
}

}  // namespace unroll
