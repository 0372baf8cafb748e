#pragma once

#include <span>

#include "unroll/core/arena.hpp"
#include "unroll/kernels/rmsnorm.hpp"
#include "unroll/llama/weights.hpp"

// The ends of a Llama: embedding below, final norm, output matrix and cross entropy on top. Tokens go through
// the head in chunks, so that logits of a few tokens only are alive.
namespace unroll::llama {

namespace detail {

/// Tokens whose logits are alive together: about 2^23 numbers.
inline index_t head_chunk(const config& c, index_t tokens) {
  return std::min(tokens, std::clamp<index_t>((index_t{1} << 23) / c.vocabulary, 16, 512));
}
/// Distance between two columns of logits: an odd number of cache lines, so that they spread over the cache.
inline index_t logit_stride(const config& c) { return ((c.vocabulary + 15) / 16 | 1) * 16; }

/// logits <- exp(logits - largest); returns log sum exp(logits), and `share` = 1 / the sum of the results.
template <class T>
T exponentials(T* logits, index_t n, T* share) {
  const T most = simd::largest(logits, n, logits[0]);
  simd::map([most](auto u) { return simd::exp<T>(u - most); }, n, logits, logits);
  const T sum = T(simd::sum<T>([](auto u) { return u; }, n, logits));
  *share = 1 / sum;
  return most + std::log(sum);
}

template <class T>
struct head_scratch {
  matrix<T> normed, dnormed, logits;
  T* rstd;

  head_scratch(arena<T>& c, const config& m, index_t tokens) {
    const index_t n = head_chunk(m, tokens);
    normed = c.cut(m.hidden, n);
    dnormed = c.cut(m.hidden, n);
    rstd = c.cut(n).data;
    logits = c.cut(logit_stride(m), n);
    logits.rows = m.vocabulary;
  }
};

template <class T>
void check_head_work(const char* function, const config& c, index_t tokens, index_t work) {
  arena<T> counting;
  head_scratch<T>(counting, c, tokens);
  check_at_least(function, "work", work, counting.used());
}

/// Calls f(first, tokens of the chunk, their logits, scratch) for every chunk with a scored token.
template <class T, class F>
void for_head_chunks(const char* function, const weight_map& map, const T* weights, matrix<const T> x,
                     const token* targets, view<T> work, F&& f) {
  const config& m = map.shape();
  check_size(function, "x (rows)", x.rows, m.hidden);
  check_head_work<T>(function, m, x.cols, work.size());
  arena<T> room(work);
  const head_scratch<T> t(room, m, x.cols);
  for (index_t n0 = 0; n0 < x.cols; n0 += t.normed.cols) {
    const index_t n = std::min(t.normed.cols, x.cols - n0);
    const bool any = std::any_of(targets + n0, targets + n0 + n, [](token id) { return id >= 0; });
    head_scratch<T> part = t;
    part.normed.cols = part.dnormed.cols = part.logits.cols = n;
    if (any) {
      kernels::rmsnorm<T>(columns_of(x, n0, n), weights + map.norm(), T(m.norm_epsilon), part.normed,
                          part.rstd);
      linalg::gemm<T>(op::transpose, {weights + map.output(), m.hidden, m.vocabulary}, op::none, part.normed,
                      false, part.logits);
    }
    f(n0, n, any, part);
  }
}

}  // namespace detail

/// x <- the embeddings of n tokens, hidden x n. Ids are not checked: see check_tokens.
template <class T>
void embed(const weight_map& map, const T* weights, const token* ids, index_t n,
           std::type_identity_t<matrix<T>> x) {
  const index_t d = map.shape().hidden;
  UNROLL_ASSERT(x.rows == d && x.cols >= n);
  for (index_t j = 0; j < n; ++j)
    std::copy_n(weights + map.embedding() + index_t(ids[j]) * d, d, x.data + j * x.stride);
}
/// ADDS dx to the gradients of the tokens' embeddings.
template <class T>
void embed_vjp(const weight_map& map, const token* ids, index_t n, std::type_identity_t<matrix<const T>> dx,
               T* dweights) {
  const index_t d = map.shape().hidden;
  for (index_t j = 0; j < n; ++j)
    linalg::axpy(1, dx.data + j * dx.stride, dweights + map.embedding() + index_t(ids[j]) * d, d);
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

/// Numbers of work that the functions below need for so many tokens.
inline index_t head_work(const config& c, index_t tokens) {
  arena<double> doubles;
  arena<float> floats;
  detail::head_scratch<double>(doubles, c, tokens);
  detail::head_scratch<float>(floats, c, tokens);
  return std::max(doubles.used(), floats.used());
}

/// x are outputs of the last layer. Returns the sum of -log p(target) in nats, and each one in nll (null:
/// not wanted; 0 where the target is -1, which is not scored). 2 hidden vocabulary flops a token; chunks in
/// which nothing is scored cost nothing.
template <class T>
T head_nll(const weight_map& map, const T* weights, std::type_identity_t<matrix<const T>> x,
           const token* targets, std::type_identity_t<T>* nll, std::type_identity_t<view<T>> work) {
  double sum = 0;
  detail::for_head_chunks<T>("head_nll", map, weights, x, targets, work,
                             [&](index_t n0, index_t n, bool, const detail::head_scratch<T>& t) {
                               for (index_t j = 0; j < n; ++j) {
                                 const token id = targets[n0 + j];
                                 T loss = 0, share;
                                 if (id >= 0) {
                                   T* logits = t.logits.data + j * t.logits.stride;
                                   const T wanted = logits[id];
                                   loss = detail::exponentials(logits, t.logits.rows, &share) - wanted;
                                 }
                                 if (nll) nll[n0 + j] = loss;
                                 sum += double(loss);
                               }
                             });
  return T(sum);
}

/// The same, and the vjp: WRITES dloss d(sum)/dx to dx, and ADDS the gradients of the final norm and of the
/// output matrix to dweights unless it is null. dx may be x. 6 hidden vocabulary flops a token, 4 without
/// dweights.
template <class T>
T head_vjp(const weight_map& map, const T* weights, std::type_identity_t<matrix<const T>> x,
           const token* targets, std::type_identity_t<T> dloss, matrix<T> dx,
           std::type_identity_t<T>* dweights, std::type_identity_t<T>* nll,
           std::type_identity_t<view<T>> work) {
  const config& m = map.shape();
  UNROLL_ASSERT(dx.rows == x.rows && dx.cols == x.cols);
  double sum = 0;
  const auto chunk = [&](index_t n0, index_t n, bool any, const detail::head_scratch<T>& t) {
    const matrix<T> d = columns_of(dx, n0, n);
    for (index_t j = 0; j < n; ++j) {
      const token id = targets[n0 + j];
      T loss = 0, share = 0;
      T* logits = t.logits.data + j * t.logits.stride;
      if (id >= 0) {
        const T wanted = logits[id];
        loss = detail::exponentials(logits, m.vocabulary, &share) - wanted;
        linalg::scale(dloss * share, logits, m.vocabulary);
        logits[id] -= dloss;
      } else if (any) {
        std::fill_n(logits, m.vocabulary, T(0));
      }
      if (nll) nll[n0 + j] = loss;
      sum += double(loss);
    }
    const matrix<const T> xs = columns_of(x, n0, n);
    if (any) {
      const matrix<const T> w(weights + map.output(), m.hidden, m.vocabulary);
      linalg::gemm<T>(op::none, w, op::none, t.logits, false, t.dnormed);
      if (dweights)
        linalg::gemm<T>(op::none, t.normed, op::transpose, t.logits, true,
                        {dweights + map.output(), m.hidden, m.vocabulary});
      // dx may be x, which the norm's vjp reads: its result goes through t.normed.
      for (index_t j = 0; j < n; ++j) std::fill_n(t.normed.data + j * m.hidden, m.hidden, T(0));
      kernels::rmsnorm_vjp(xs, weights + map.norm(), t.rstd, t.dnormed, t.normed,
                           dweights ? dweights + map.norm() : nullptr);
    }
    for (index_t j = 0; j < n; ++j)
      if (any)
        std::copy_n(t.normed.data + j * m.hidden, m.hidden, d.data + j * d.stride);
      else
        std::fill_n(d.data + j * d.stride, m.hidden, T(0));
  };
  detail::for_head_chunks<T>("head_vjp", map, weights, x, targets, work, chunk);
  return T(sum);
}

/// logits (vocabulary x n) of every column of x; work as head_work(shape, n).
template <class T>
void head_logits(const weight_map& map, const T* weights, std::type_identity_t<matrix<const T>> x,
                 matrix<T> logits, std::type_identity_t<view<T>> work) {
  const config& m = map.shape();
  check_size("head_logits", "x (rows)", x.rows, m.hidden);
  check_size("head_logits", "logits (rows)", logits.rows, m.vocabulary);
  check_size("head_logits", "logits (columns)", logits.cols, x.cols);
  detail::check_head_work<T>("head_logits", m, x.cols, work.size());
  arena<T> room(work);
  const detail::head_scratch<T> t(room, m, x.cols);
  for (index_t n0 = 0; n0 < x.cols; n0 += t.normed.cols) {
    const index_t n = std::min(t.normed.cols, x.cols - n0);
    const matrix<T> normed = columns_of(t.normed, 0, n);
    kernels::rmsnorm<T>(columns_of(x, n0, n), weights + map.norm(), T(m.norm_epsilon), normed, nullptr);
    linalg::gemm<T>(op::transpose, {weights + map.output(), m.hidden, m.vocabulary}, op::none, normed, false,
                    columns_of(logits, n0, n));
  }
}

}  // namespace unroll::llama
