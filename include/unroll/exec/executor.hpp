#pragma once

#include <concepts>

#include "unroll/core/view.hpp"
#include "unroll/exec/operations.hpp"
#include "unroll/kernels/rotary_table.hpp"
#include "unroll/rng/key.hpp"

namespace unroll {

/// Where numbers lie.
enum class place { host, device };

namespace exec {

/// An executor E makes a model run on a machine. It is a cheap handle, owns a place, and has ONE closed list
/// of operations, below: whoever writes the next executor writes these, and no model, policy or optimiser
/// changes.
///
///   using numbers                    the kinds, see core/numbers.hpp: weight W, activation A, memory M,
///                                    parameter P (also of adjoints and of all that is summed up)
///   static constexpr place where
///   template <class U, class Space = plain_space> using block
///                                    owns U at this place: data(), size(), bytes(); a copy has memory of its
///                                    own
///
/// All operations are const and return nothing; they happen in the order of the calls. Results stay at the
/// place: `download` and `synchronise` bring them to the host, `exec::value` brings one. Pointers and
/// matrices (column-major) live at the place, std::span is host memory, which is free again when the call
/// returns. Sizes are those of the caller, who has checked them. U and V stand for any kind of `numbers`;
/// sums are formed in P or wider. Same arguments, same bits. Nothing allocates but `allocate`. Outputs
/// overlap no inputs unless it says so.
///
/// blocks and copies
///   allocate<U>(n)                   a block of n zeros U
///   upload(host, n, here)            n numbers U of the host to this place, in order with the operations;
///                                    those of the host may change when the call returns
///   download(here, n, host)          the other way; there after synchronise()
///   synchronise()                    returns when everything called before has happened
///
/// movement (matrices of any kind)
///   fill(x, value)                   x = value
///   copy(x, y)                       y = x, also between kinds: a cast, rounded to nearest. Columns may move
///                                    to columns in front of them in the same matrix
///   gather_columns(x, ids, y)        y_j = x_ids[j]: the embedding; y: as many columns as ids
///   scatter_add_columns(x, ids, y)   y_ids[j] += x_j, j in order: its vjp; x: as many columns as ids
///
/// vectors (n numbers of kind P unless it says U)
///   axpy(alpha, x, y, n)             y += alpha x;  x: U
///   scale(alpha, x, n)               x *= alpha
///   clamp(most, x, n)                x_i = most with the sign of x_i where most < |x_i| < infinity
///   sum_columns(x, y)                y += sum_j x_j;  x: rows x n of any kind; y: rows
///   sum(x, n, out)                   *out = x_0 + x_1 + ...
///   dot(x, y, n, out), norm(x, n, out)
///   all_finite(x, n, power, out)     *out = 1 where every x_i ^ power is finite, else 0; power is 1 or 2;
///                                    x: U
///
/// products
///   gemm(oa, a, ob, b, add, c)       c = op(a) op(b), or c += where `add`; any kinds
///   adapt(l, x, y, workspace)        y += scale b' (a' x), see `adapter`; x: in x n, y: out x n, A
///   adapt_vjp(l, adjoint, workspace) dx += scale a (b dy) unless dx.data is null; with z = scale a' x and
///                                    dz = scale b dy, gradient.b += z dy' and gradient.a += x dz', the
///                                    columns taken as `sequences` equal parts, whose terms are added one
///                                    after another
///   adapt_all(of, x, workspace)      adapt for each of up to 3 `adapted`, with its bits; x: in x n. Where
///                                    their scales are one and their ranks several and few together,
///                                    [a_1 a_2 ..]' x is one product
///   adapt_all_vjp(of, x, dx, sequences, workspace)
///                                    adapt_vjp for each `adapted_adjoint`; dx: in x n, or null data
///   adapter_workspace(width, tokens, vjp)
///                                    numbers A of workspace, whatever the rank; width: rows of x and y
///                                    together
///   adapters_workspace(in, out, tokens, vjp)
///                                    the same of adapt_all and adapt_all_vjp; in: rows of x, out: of the
///                                    tallest y
///
/// model (A unless it says otherwise; n tokens are the columns)
///   rmsnorm(x, gain, epsilon, y, rstd)       y = gain x rstd, rstd = 1 / sqrt(mean(x^2) + epsilon); x, y:
///                                    rows x n, y may be x; gain: rows W; rstd: n P, may be null. (The
///                                    residual of a layer is added by the product in front of it.)
///   rmsnorm_vjp(x, gain, rstd, dy, dx, dgain)     with h = gain dy: dx += rstd h - x rstd^3 mean(h x),
///                                    dgain (rows P) += dy x rstd unless it is null; dy, dx: as x
///   rotary(turn, table, positions, x)        turns every head of every column in place: column j has the
///                                    position positions[j % positions.size()]; table: P; x: A or P, a
///                                    multiple of table.head_dim rows
///   swiglu(gated, out)               gated: [gate; up], 2 m x n; out = up gate logistic(gate), m x n
///   swiglu_vjp(gated, dout, dgated)  with s = logistic(gate): dgate = dout up s (1 + gate (1 - s)),
///                                    dup = dout gate s; dout may be either half of dgated
///   attention(call, out, log_sum, workspace) for every head, out_i = sum_t p_ti v_t over what query i sees,
///                                    p_ti = exp(s_ti - log_sum_i), s_ti = k_t . q_i / sqrt(head_dim); out:
///                                    query_width x queries; log_sum: heads x queries P, may be null. A
///                                    sequence's bits depend on nothing of the others
///   attention_vjp(call, adjoint, workspace)  with dp_ti = v_t . dout_i and
///                                    ds_ti = p_ti (dp_ti - out_i . dout_i) / sqrt(head_dim):
///                                    dv_t = sum_i p_ti dout_i, dk_t = sum_i ds_ti q_i,
///                                    dq_i = sum_t ds_ti k_t; terms of the prefix added sequence by sequence
///   attention_workspace(shape, size) numbers A of workspace for calls of this attention_size or smaller
///   cross_entropy(call, workspace)   losses of the tokens; logits = lm_head' normed
///   cross_entropy_vjp(call, adjoint, workspace)
///                                    the same, and with d = dloss (softmax(logits) - one_hot(target)), 0
///                                    where not scored: dnormed = lm_head d, dlm_head += normed d'
///   cross_entropy_workspace(hidden, vocabulary, tokens)
///                                    numbers A of workspace for both; the caller brings tokens in chunks
///   argmax(logits, n, out)           *out (int32) = the lowest index of the largest; logits: P
///   sample(logits, n, how, key, step, workspace, out)
///                                    *out (int32) = a token drawn by draw_uniform(key, step), see `sampling`
///   sample_workspace(n)              numbers P of workspace
///
/// random (P, by the chooser's names)
///   signs(key, step, x, n)           x_i = -1 or +1: draw_signs
///   normals(key, step, x, n)         draw_normals
///
/// optimisers (P), of the n numbers of `optimised`; v and m: n numbers
///   sgd(rate, on)                    theta -= rate g
///   momentum(how, on, v)             v = momentum v + g, theta -= rate v (or rate (g + momentum v))
///   adamw(how, on, m, v)             see optim/adam.hpp
///   clip(most, g, n, norm)           *norm = the norm of g; where it is above `most`, g *= most / norm
template <class E>
concept executor = std::copyable<E> &&
    requires(const E e, index_t n, typename E::numbers::parameter* p, const typename E::numbers::weight* gain,
             key k, std::span<const std::int32_t> ids) {
  typename E::numbers;
  { E::where } -> std::convertible_to<place>;
  requires requires(
      matrix<const typename E::numbers::weight> w, matrix<typename E::numbers::activation> a,
      matrix<const typename E::numbers::activation> x, view<typename E::numbers::activation> workspace,
      std::span<const index_t> positions, std::int32_t * token, std::int64_t step,
      view<typename E::numbers::parameter> for_sample,
      const kernels::rotary_table<typename E::numbers::parameter>& table,
      const adapter<typename E::numbers::parameter>& l, const adapter_adjoint<typename E::numbers>& dl,
      const optimised<typename E::numbers::parameter>& on, const attention_call<typename E::numbers>& c,
      const attention_adjoint<typename E::numbers>& dc, const cross_entropy_call<typename E::numbers>& ce,
      const cross_entropy_adjoint<typename E::numbers>& dce, kernels::attention_shape shape) {
    e.template allocate<typename E::numbers::weight>(n);
    e.synchronise();
    e.upload(p, n, p);
    e.download(p, n, p);
    e.fill(a, 0.0);
    e.copy(x, a);
    e.gather_columns(w, ids, a);
    e.scatter_add_columns(x, ids, matrix<typename E::numbers::parameter>(p, n, n));
    e.axpy(1.0, p, p, n);
    e.scale(1.0, p, n);
    e.clamp(1.0, p, n);
    e.sum_columns(x, p);
    e.sum(p, n, p);
    e.dot(p, p, n, p);
    e.norm(p, n, p);
    e.all_finite(p, n, 1, p);
    e.gemm(op::transpose, w, op::none, x, true, a);
    e.adapt(l, x, a, workspace);
    e.adapt_vjp(l, dl, workspace);
    { E::adapter_workspace(n, n, true) } -> std::same_as<index_t>;
    e.adapt_all(std::span<const adapted<typename E::numbers>>(), x, workspace);
    e.adapt_all_vjp(std::span<const adapted_adjoint<typename E::numbers>>(), x, a, n, workspace);
    { E::adapters_workspace(n, n, n, true) } -> std::same_as<index_t>;
    e.rmsnorm(x, gain, 1e-5, a, p);
    e.rmsnorm_vjp(x, gain, p, x, a, p);
    e.rotary(kernels::turn::back, table, positions, a);
    e.swiglu(x, a);
    e.swiglu_vjp(x, x, a);
    e.attention(c, a, p, workspace);
    e.attention_vjp(c, dc, workspace);
    { E::attention_workspace(shape, attention_size{}) } -> std::same_as<index_t>;
    e.cross_entropy(ce, workspace);
    e.cross_entropy_vjp(ce, dce, workspace);
    { E::cross_entropy_workspace(n, n, n) } -> std::same_as<index_t>;
    e.argmax(p, n, token);
    e.sample(p, n, sampling{}, k, step, for_sample, token);
    { E::sample_workspace(n) } -> std::same_as<index_t>;
    e.signs(k, step, p, n);
    e.normals(k, step, p, n);
    e.sgd(1.0, on);
    e.momentum(momentum_step{}, on, p);
    e.adamw(adamw_step{}, on, p, p);
    e.clip(1.0, p, n, p);
  };
};

/// The one number at `here`, brought to the host: waits for everything before.
template <class E, class U>
U value(const E& e, const U* here) {
  U host;
  e.download(here, 1, &host);
  e.synchronise();
  return host;
}

template <class N>
class host;

namespace detail {
template <class X>
struct executor_of {
  using type = X;
};
template <std::floating_point T>
struct executor_of<T> {
  using type = host<numbers<T>>;
};
template <class A, class W>
struct executor_of<numbers<A, W>> {
  using type = host<numbers<A, W>>;
};
template <>
struct executor_of<bf16> {
  using type = host<numbers<bf16>>;
};
}  // namespace detail

/// What models take: an executor, or the numbers of exec::host, or the one type of all its numbers.
/// memory_llama<float> is memory_llama<exec::host<numbers<float>>> under a shorter name.
template <class X>
using of = typename detail::executor_of<X>::type;

}  // namespace exec
}  // namespace unroll
