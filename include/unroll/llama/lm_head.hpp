#pragma once

#include <algorithm>
#include <span>

#include "unroll/core/arena.hpp"
#include "unroll/exec/of.hpp"
#include "unroll/llama/weights.hpp"

// The ends of a Llama: embedding below, final norm, output matrix and cross entropy on top. Tokens go through
// the head in chunks, so that logits of a few tokens only are alive. Weights and numbers live at the place of
// the executor `e`; tokens, targets and spans on the host. The functions without an executor are those of
// exec::host.
namespace unroll::llama {

namespace detail {

/// Tokens whose logits are alive together: about 2^23 numbers.
inline index_t lm_head_chunk(const config& c, index_t tokens) {
  return std::min(tokens, std::clamp<index_t>((index_t{1} << 23) / c.vocabulary, 16, 512));
}

template <class E>
struct lm_head_buffers {
  using A = typename E::numbers::activation;
  using P = typename E::numbers::accumulator;
  matrix<A> normed, dnormed;
  P *rstd, *losses, *total;
  view<A> workspace;

  lm_head_buffers(arena<A>& c, const config& m, index_t tokens) {
    const index_t n = lm_head_chunk(m, tokens);
    normed = c.cut(m.hidden, n);
    dnormed = c.cut(m.hidden, n);
    rstd = c.template cut_as<P>(n).data;
    losses = c.template cut_as<P>(tokens).data;
    total = c.template cut_as<P>(1).data;
    workspace = c.cut_flat(E::cross_entropy_workspace(m.hidden, m.vocabulary, n));
  }
  lm_head_buffers of(index_t n) const {
    lm_head_buffers part = *this;
    part.normed.cols = part.dnormed.cols = n;
    return part;
  }
};

template <class E>
void check_lm_head(const char* function, const config& c,
                   const matrix<const typename E::numbers::activation>& x, index_t workspace) {
  check_size(function, "x (rows)", x.rows, c.hidden);
  arena<typename E::numbers::activation> counting;
  lm_head_buffers<E>(counting, c, x.cols);
  check_at_least(function, "workspace", workspace, counting.used());
}

/// Calls f(call, first token, buffers) for every chunk with a scored token, after the norm; the
/// losses of other chunks become 0, and none(columns) is called.
template <class E, class F, class G>
void for_lm_head_chunks(const E& e, const weight_map& map, const typename E::numbers::weight* weights,
                        matrix<const typename E::numbers::activation> x, std::span<const token> targets,
                        typename E::numbers::accumulator* losses, const lm_head_buffers<E>& all, F&& f,
                        G&& none) {
  const config& m = map.shape();
  for (index_t n0 = 0; n0 < x.cols; n0 += all.normed.cols) {
    const index_t n = std::min(all.normed.cols, x.cols - n0);
    const auto wanted = targets.subspan(std::size_t(n0), std::size_t(n));
    if (std::any_of(wanted.begin(), wanted.end(), [](token id) { return id >= 0; })) {
      const lm_head_buffers<E> t = all.of(n);
      e.rmsnorm(columns_of(x, n0, n), weights + map.norm(), m.norm_epsilon, t.normed, t.rstd);
      f(
          exec::cross_entropy_call<typename E::numbers>{
              {weights + map.output(), m.hidden, m.vocabulary}, t.normed, wanted, losses + n0},
          n0, t);
    } else {
      e.fill(matrix<typename E::numbers::accumulator>(losses + n0, n, 1), 0);
      none(n0, n);
    }
  }
}

}  // namespace detail

/// x <- the embeddings of the tokens, hidden x tokens. Ids are not checked: see check_tokens.
template <class E>
void embed(const E& e, const weight_map& map, const typename E::numbers::weight* weights,
           std::span<const token> ids, matrix<typename E::numbers::activation> x) {
  const config& c = map.shape();
  UNROLL_ASSERT(x.rows == c.hidden && x.cols >= index_t(ids.size()));
  e.gather_columns(matrix(weights + map.embedding(), c.hidden, c.vocabulary), ids, x);
}
/// ADDS dx to the gradients of the tokens' embeddings.
template <class E>
void embed_vjp(const E& e, const weight_map& map, std::span<const token> ids,
               matrix<const typename E::numbers::activation> dx, typename E::numbers::parameter* dweights) {
  const config& c = map.shape();
  e.scatter_add_columns(dx, ids, matrix(dweights + map.embedding(), c.hidden, c.vocabulary));
}

/// Throws unroll::error, in the name of `function`, on an id that is outside the vocabulary and, for
/// targets, not negative.
inline void check_tokens(const char* function, const char* argument, const config& c,
                         std::span<const token> ids, bool targets = false) {
  for (const token id : ids)
    if (id >= c.vocabulary || (id < 0 && !targets))
      fail(
          function, argument,
          "holds " + std::to_string(id) + ", the vocabulary has " + std::to_string(c.vocabulary) + " tokens");
}

/// Numbers that the workspace of the functions below needs for so many tokens.
template <class E>
index_t lm_head_workspace(const config& c, index_t tokens) {
  arena<typename E::numbers::activation> counting;
  detail::lm_head_buffers<E>(counting, c, tokens);
  return counting.used();
}

/// x are outputs of the last layer. WRITES the sum of -log p(target) in nats to *total, and each one, 0 where
/// the target is -1, which is not scored, to `losses` (null: not wanted). 2 hidden vocabulary flops a token;
/// chunks in which nothing is scored cost nothing.
template <class E>
void lm_head_losses(const E& e, const weight_map& map, const typename E::numbers::weight* weights,
                    matrix<const typename E::numbers::activation> x, std::span<const token> targets,
                    typename E::numbers::accumulator* losses, typename E::numbers::accumulator* total,
                    view<typename E::numbers::activation> workspace) {
  detail::check_lm_head<E>("lm_head_nll", map.shape(), x, workspace.size());
  arena<typename E::numbers::activation> space(workspace);
  const detail::lm_head_buffers<E> t(space, map.shape(), x.cols);
  if (!losses) losses = t.losses;
  detail::for_lm_head_chunks(
      e, map, weights, x, targets, losses, t,
      [&](const auto& call, index_t, const auto& part) { e.cross_entropy(call, part.workspace); },
      [](index_t, index_t) {});
  e.sum(losses, x.cols, total);
}

/// The same, and the vjp: WRITES dloss d(sum)/dx to dx, and ADDS the gradients of the final norm and of the
/// output matrix to dweights unless it is null. dx may be x. 6 hidden vocabulary flops a token, 4 without
/// dweights.
template <class E>
void lm_head_losses_vjp(const E& e, const weight_map& map, const typename E::numbers::weight* weights,
                        matrix<const typename E::numbers::activation> x, std::span<const token> targets,
                        double dloss, matrix<typename E::numbers::activation> dx,
                        typename E::numbers::parameter* dweights, typename E::numbers::accumulator* losses,
                        typename E::numbers::accumulator* total,
                        view<typename E::numbers::activation> workspace) {
  using A = typename E::numbers::activation;
  UNROLL_ASSERT(dx.rows == x.rows && dx.cols == x.cols);
  detail::check_lm_head<E>("lm_head_vjp", map.shape(), x, workspace.size());
  arena<A> space(workspace);
  const detail::lm_head_buffers<E> t(space, map.shape(), x.cols);
  if (!losses) losses = t.losses;
  const auto chunk = [&](const auto& call, index_t n0, const detail::lm_head_buffers<E>& part) {
    const index_t n = part.normed.cols;
    e.cross_entropy_vjp(call, {dloss, part.dnormed, dweights ? dweights + map.output() : nullptr},
                        part.workspace);
    e.fill(part.normed, 0);  // dx may be x, which the norm's vjp reads: its result goes through here
    e.rmsnorm_vjp(columns_of(x, n0, n), weights + map.norm(), part.rstd, matrix<const A>(part.dnormed),
                  part.normed, dweights ? dweights + map.norm() : nullptr);
    e.copy(part.normed, columns_of(dx, n0, n));
  };
  detail::for_lm_head_chunks(e, map, weights, x, targets, losses, t, chunk,
                             [&](index_t n0, index_t n) { e.fill(columns_of(dx, n0, n), 0); });
  e.sum(losses, x.cols, total);
}

/// logits (vocabulary x n) of every column of x; workspace as lm_head_workspace(shape, n).
template <class E>
void lm_head_logits(const E& e, const weight_map& map, const typename E::numbers::weight* weights,
                    matrix<const typename E::numbers::activation> x,
                    matrix<typename E::numbers::parameter> logits,
                    view<typename E::numbers::activation> workspace) {
  const config& m = map.shape();
  detail::check_lm_head<E>("lm_head_logits", m, x, workspace.size());
  check_size("lm_head_logits", "logits (rows)", logits.rows, m.vocabulary);
  check_size("lm_head_logits", "logits (columns)", logits.cols, x.cols);
  arena<typename E::numbers::activation> space(workspace);
  const detail::lm_head_buffers<E> all(space, m, x.cols);
  for (index_t n0 = 0; n0 < x.cols; n0 += all.normed.cols) {
    const index_t n = std::min(all.normed.cols, x.cols - n0);
    const auto t = all.of(n);
    e.rmsnorm(columns_of(x, n0, n), weights + map.norm(), m.norm_epsilon, t.normed, nullptr);
    e.gemm(op::transpose, matrix(weights + map.output(), m.hidden, m.vocabulary), op::none, t.normed, false,
           columns_of(logits, n0, n));
  }
}

#if !defined(__CUDACC__)  // on the host
inline index_t lm_head_workspace(const config& c, index_t tokens) {
  return std::max(lm_head_workspace<exec::of<double>>(c, tokens),
                  lm_head_workspace<exec::of<float>>(c, tokens));
}
template <class T>
void embed(const weight_map& map, const T* weights, const token* ids, index_t n,
           std::type_identity_t<matrix<T>> x) {
  embed(exec::of<T>{}, map, weights, {ids, std::size_t(n)}, x);
}
template <class T>
void embed_vjp(const weight_map& map, const token* ids, index_t n, std::type_identity_t<matrix<const T>> dx,
               T* dweights) {
  embed_vjp(exec::of<T>{}, map, {ids, std::size_t(n)}, dx, dweights);
}
/// Returns the sum; each loss in nll (null: not wanted).
template <class T>
T lm_head_nll(const weight_map& map, const T* weights, std::type_identity_t<matrix<const T>> x,
              const token* targets, std::type_identity_t<T>* nll, std::type_identity_t<view<T>> workspace) {
  T total;
  lm_head_losses(exec::of<T>{}, map, weights, x, {targets, std::size_t(x.cols)}, nll, &total, workspace);
  return total;
}
template <class T>
T lm_head_vjp(const weight_map& map, const T* weights, std::type_identity_t<matrix<const T>> x,
              const token* targets, std::type_identity_t<T> dloss, matrix<T> dx,
              std::type_identity_t<T>* dweights, std::type_identity_t<T>* nll,
              std::type_identity_t<view<T>> workspace) {
  T total;
  lm_head_losses_vjp(exec::of<T>{}, map, weights, x, {targets, std::size_t(x.cols)}, double(dloss), dx,
                     dweights, nll, &total, workspace);
  return total;
}
template <class T>
void lm_head_logits(const weight_map& map, const T* weights, std::type_identity_t<matrix<const T>> x,
                    matrix<T> logits, std::type_identity_t<view<T>> workspace) {
  lm_head_logits(exec::of<T>{}, map, weights, x, logits, workspace);
}
#endif

}  // namespace unroll::llama
