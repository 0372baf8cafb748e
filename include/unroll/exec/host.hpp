#pragma once

#include "unroll/core/arena.hpp"
#include "unroll/core/block.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/exec/host_weights.hpp"
#include "unroll/kernels/attention.hpp"
#include "unroll/kernels/cross_entropy.hpp"
#include "unroll/kernels/rotary.hpp"
#include "unroll/kernels/sampling.hpp"
#include "unroll/kernels/swiglu.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::exec {

/// The executor of this machine's CPU: everything is memory of the program, a call returns when it is done.
/// Has no state, so any number of threads may use one. See executor.hpp for what each operation is; the speed
/// is in docs/performance.md.
template <class N>
class host final {
  using W = typename N::weight;
  using T = typename N::activation;
  static_assert(
      (std::same_as<T, float> ||
       std::same_as<T, double>)&&(std::same_as<W, T> || (std::same_as<W, bf16> && std::same_as<T, float>)),
      "exec::host has numbers<float>, numbers<double> and numbers<float, bf16>: bfloat16 activations "
      "need an executor that rounds them, testing::simt or cuda::stream");

 public:
  using numbers = N;
  static constexpr place where = place::host;
  template <class U, class Space = plain_space>
  using block = unroll::block<U, Space>;

  // Blocks and copies.
  template <class U, class Space = plain_space>
  block<U, Space> allocate(index_t n) const {
    return block<U, Space>(n);
  }
  template <class U>
  void upload(const U* from, index_t n, U* here) const {
    if (from != here) std::copy_n(from, n, here);
  }
  template <class U>
  void download(const U* here, index_t n, U* to) const {
    if (here != to) std::copy_n(here, n, to);
  }
  void synchronise() const {}

  // Movement.
  template <class U>
  void fill(matrix<U> x, double value) const {
    for (index_t j = 0; j < x.cols; ++j) std::fill_n(x.data + j * x.stride, x.rows, U(value));
  }
  template <class U, class V>
  void copy(matrix<U> from, matrix<V> to) const {
    for (index_t j = 0; j < from.cols; ++j)
      detail::copy_numbers(from.data + j * from.stride, from.rows, to.data + j * to.stride);
  }
  template <class U, class V>
  void gather_columns(matrix<U> from, std::span<const std::int32_t> ids, matrix<V> to) const {
    for (std::size_t j = 0; j < ids.size(); ++j)
      detail::copy_numbers(from.data + index_t(ids[j]) * from.stride, from.rows,
                           to.data + index_t(j) * to.stride);
  }
  template <class U>
  void scatter_add_columns(matrix<U> from, std::span<const std::int32_t> ids, matrix<T> to) const {
    for (std::size_t j = 0; j < ids.size(); ++j)
      linalg::axpy(1, from.data + index_t(j) * from.stride, to.data + index_t(ids[j]) * to.stride, from.rows);
  }

  // Vectors.
  void axpy(double alpha, const T* x, T* y, index_t n) const { linalg::axpy(T(alpha), x, y, n); }
  void scale(double alpha, T* x, index_t n) const { linalg::scale(T(alpha), x, n); }
  void sum_columns(matrix<const T> x, T* y) const { linalg::sum_columns(x, y); }
  /// In double, one after another.
  void sum(const T* x, index_t n, T* out) const {
    double sum = 0;
    for (index_t i = 0; i < n; ++i) sum += double(x[i]);
    *out = T(sum);
  }
  void dot(const T* x, const T* y, index_t n, T* out) const { *out = linalg::dot(x, y, n); }
  void norm(const T* x, index_t n, T* out) const { *out = linalg::norm(x, n); }
  void all_finite(const T* x, index_t n, int power, T* out) const {
    *out = power == 1 ? T(linalg::all_finite(x, n))
                      : T(simd::sum<T>([](const auto& u) UNROLL_INLINE { return u * u * T(0); }, n, x) == 0);
  }

  // Products.
  template <class A, class B, class C>
  void gemm(op oa, matrix<A> a, op ob, matrix<B> b, bool add, matrix<C> c) const {
    detail::product<T>(oa, matrix<const A>(a), ob, matrix<const B>(b), add, c);
  }
  /// By slices of the rank.
  static index_t adapter_work(index_t, index_t tokens, bool vjp) {
    return (vjp ? 2 : 1) * arena<T>::rounded(rank_slice * tokens);
  }
  void adapt(const adapter<T>& l, matrix<const T> x, matrix<T> y, view<T> work) const {
    for_slices(l.a.cols, [&](index_t r, index_t rank) {
      const matrix<T> z(work.data(), rank, x.cols);
      linalg::gemm<T>(op::transpose, columns_of(l.a, r, rank), op::none, x, false, z);
      linalg::scale(T(l.scale), z.data, rank * x.cols);
      linalg::gemm<T>(op::transpose, rows_of(l.b, r, rank), op::none, z, true, y);
    });
  }
  void adapt_vjp(const adapter<T>& l, matrix<const T> x, matrix<const T> dy, matrix<T> dx,
                 const adapter_gradient<T>& dl, index_t sequences, view<T> work) const {
    for_slices(l.a.cols, [&](index_t r, index_t rank) {
      arena<T> room(work);
      const matrix<T> z = room.cut(rank, dy.cols), dz = room.cut(rank, dy.cols);
      linalg::gemm<T>(op::none, rows_of(l.b, r, rank), op::none, dy, false, dz);
      linalg::scale(T(l.scale), dz.data, rank * dy.cols);
      if (dx.data) linalg::gemm<T>(op::none, columns_of(l.a, r, rank), op::none, dz, true, dx);
      if (!dl.a.data && !dl.b.data) return;
      linalg::gemm<T>(op::transpose, columns_of(l.a, r, rank), op::none, x, false, z);
      linalg::scale(T(l.scale), z.data, rank * dy.cols);
      const index_t length = dy.cols / sequences;
      for (index_t s = 0; s < sequences; ++s) {
        const auto own = [&](const auto& m) { return columns_of(m, s * length, length); };
        if (dl.b.data)
          linalg::gemm<T>(op::none, own(z), op::transpose, own(dy), true, rows_of(dl.b, r, rank));
        if (dl.a.data)
          linalg::gemm<T>(op::none, own(x), op::transpose, own(dz), true, columns_of(dl.a, r, rank));
      }
    });
  }

  // Model.
  void rmsnorm(matrix<const T> x, const W* gain, double epsilon, matrix<T> y, T* rstd) const {
    detail::rmsnorm<T>(x, gain, T(epsilon), y, rstd);
  }
  void rmsnorm_vjp(matrix<const T> x, const W* gain, const T* rstd, matrix<const T> dy, matrix<T> dx,
                   T* dgain) const {
    detail::rmsnorm_vjp<T>(x, gain, rstd, dy, dx, dgain);
  }
  void rotary(kernels::turn way, const kernels::rotary_table<T>& table, std::span<const index_t> positions,
              matrix<T> x) const {
    if (way == kernels::turn::forward)
      kernels::rotate<kernels::turn::forward>(table, positions, x);
    else
      kernels::rotate<kernels::turn::back>(table, positions, x);
  }
  void swiglu(matrix<const T> gated, matrix<T> out) const {
    for (index_t j = 0; j < out.cols; ++j) {
      const T* g = gated.data + j * gated.stride;
      kernels::swiglu(g, g + out.rows, out.data + j * out.stride, out.rows);
    }
  }
  void swiglu_vjp(matrix<const T> gated, matrix<const T> dout, matrix<T> dgated) const {
    const index_t m = dout.rows;
    for (index_t j = 0; j < dout.cols; ++j) {
      const T* g = gated.data + j * gated.stride;
      T* d = dgated.data + j * dgated.stride;
      kernels::swiglu_vjp(g, g + m, dout.data + j * dout.stride, d, d + m, m);
    }
  }
  static index_t attention_work(const kernels::attention_shape& shape, index_t, index_t length,
                                index_t blocks, index_t keys, bool vjp) {
    arena<T> c;
    c.cut_flat(kernels::attention_work(shape, length, blocks * keys, keys));
    c.template cut_objects<kernels::key_block<T>>(blocks);
    if (vjp) c.template cut_objects<kernels::key_block_adjoint<T>>(blocks);
    return c.used();
  }
  void attention(const attention_call<N>& c, matrix<T> out, T* log_sum, view<T> work) const {
    for_sequences(c, work, [&](auto at, auto own, auto before, index_t, index_t first, view<T> scratch) {
      kernels::attention<T>(c.shape, c.mask, at(c.q), before, {own(c.k), own(c.v)}, at(out),
                            log_sum ? log_sum + first * c.shape.heads : nullptr, scratch);
    });
  }
  void attention_vjp(const attention_call<N>& c, const attention_adjoint<N>& d, view<T> work) const {
    fill(d.dk, 0);
    fill(d.dv, 0);
    arena<T> room(work);
    const auto dbefore = room.template cut_objects<kernels::key_block_adjoint<T>>(index_t(d.dbefore.size()));
    for_sequences(
        c, work.part(room.used(), work.size() - room.used()),
        [&](auto at, auto own, auto before, index_t first_block, index_t first, view<T> scratch) {
          const auto wanted = d.dbefore.empty() ? dbefore : dbefore.first(before.size());
          for (std::size_t b = 0; b < wanted.size(); ++b) {
            T* const to = d.dbefore[std::size_t(first_block) + b];
            const auto like = [&](const matrix<const T>& m, index_t offset) {
              return matrix<T>(to ? to + offset : nullptr, m.rows, m.cols);
            };
            wanted[b] = {like(before[b].k, c.before.key_offset), like(before[b].v, c.before.value_offset)};
          }
          kernels::attention_vjp<T>(c.shape, c.mask, at(c.q), before, {own(c.k), own(c.v)}, at(d.out),
                                    d.log_sum + first * c.shape.heads, at(d.dout), at(d.dq), wanted,
                                    {own(d.dk), own(d.dv)}, scratch);
        });
  }
  static index_t cross_entropy_work(index_t, index_t vocabulary, index_t tokens) {
    return arena<T>::rounded(kernels::logit_stride(vocabulary) * tokens);
  }
  void cross_entropy(const cross_entropy_call<N>& c, view<T> work) const {
    const matrix<T> logits = logits_of(c, work);
    for (index_t j = 0; j < logits.cols; ++j)
      c.losses[j] =
          kernels::cross_entropy(logits.data + j * logits.stride, logits.rows, c.targets[std::size_t(j)]);
  }
  void cross_entropy_vjp(const cross_entropy_call<N>& c, const cross_entropy_adjoint<N>& d,
                         view<T> work) const {
    const matrix<T> logits = logits_of(c, work);
    for (index_t j = 0; j < logits.cols; ++j)
      c.losses[j] = kernels::cross_entropy_vjp(logits.data + j * logits.stride, logits.rows,
                                               c.targets[std::size_t(j)], T(d.dloss));
    gemm(op::none, c.output, op::none, logits, false, d.dnormed);
    if (d.doutput)
      linalg::gemm<T>(op::none, c.normed, op::transpose, logits, true,
                      {d.doutput, c.output.rows, c.output.cols});
  }
  void argmax(const T* logits, index_t n, std::int32_t* out) const {
    *out = std::int32_t(std::max_element(logits, logits + n) - logits);
  }
  static index_t sample_work(index_t n) { return kernels::sampling_work<T>(n); }
  void sample(const T* logits, index_t n, const sampling& how, key k, std::int64_t step, view<T> work,
              std::int32_t* out) const {
    *out = kernels::sample(logits, n, how.temperature, how.top_p, draw_uniform(k, step), work);
  }

  // Random numbers.
  void signs(key k, std::int64_t step, T* x, index_t n) const { draw_signs(k, step, view<T>(x, n)); }
  void normals(key k, std::int64_t step, T* x, index_t n) const { draw_normals(k, step, view<T>(x, n)); }

  // Optimisers.
  void sgd(double rate, T* theta, const T* g, index_t n, const T* ok) const {
    if (ok && *ok == 0) return;
    for (index_t i = 0; i < n; ++i) theta[i] -= T(rate) * g[i];
  }
  void momentum(const momentum_step& how, T* theta, const T* g, T* v, index_t n, const T* ok) const {
    if (ok && *ok == 0) return;
    const T rate = T(how.rate), mu = T(how.momentum);
    for (index_t i = 0; i < n; ++i) {
      v[i] = mu * v[i] + g[i];
      theta[i] -= rate * (how.nesterov ? g[i] + mu * v[i] : v[i]);
    }
  }
  void adamw(const adamw_step& how, T* theta, const T* g, T* m, T* v, index_t n, const T* ok) const {
    if (ok && *ok == 0) return;
    const double t = double(how.step);
    const T b1 = T(how.beta1), b2 = T(how.beta2), a1 = T(1 - how.beta1), a2 = T(1 - how.beta2);
    const T first = T(how.rate / (1 - std::pow(how.beta1, t))),
            second = T(1 / std::sqrt(1 - std::pow(how.beta2, t)));
    const T epsilon = T(how.epsilon), shrink = T(how.rate * how.decay);
    for (index_t i = 0; i < n; ++i) {
      m[i] = b1 * m[i] + a1 * g[i];
      v[i] = b2 * v[i] + a2 * g[i] * g[i];
      theta[i] -= first * m[i] / (std::sqrt(v[i]) * second + epsilon) + shrink * theta[i];
    }
  }
  void clip(double most, T* g, index_t n, T* norm) const {
    *norm = linalg::norm(g, n);
    if (double(*norm) > most && std::isfinite(*norm)) linalg::scale(T(most / double(*norm)), g, n);
  }

  friend bool operator==(const host&, const host&) = default;

 private:
  static constexpr index_t rank_slice = 64;  // columns of an adapter's A taken at a time

  template <class F>
  static void for_slices(index_t rank, F&& f) {
    for (index_t r = 0; r < rank; r += rank_slice) f(r, std::min(rank_slice, rank - r));
  }
  /// f(columns of its queries, of its keys, its key blocks, their first one, its first query, work) for every
  /// sequence.
  template <class F>
  void for_sequences(const attention_call<N>& c, view<T> work, F&& f) const {
    arena<T> room(work);
    const auto blocks = room.template cut_objects<kernels::key_block<T>>(index_t(c.before.blocks.size()));
    const view<T> scratch = work.part(room.used(), work.size() - room.used());
    const index_t length = c.k.cols / c.sequences, queries = c.q.cols / c.sequences;
    for (index_t s = 0; s < c.sequences; ++s) {
      const kernels::prefix_range seen = c.before.range(s);
      for (index_t b = 0; b < seen.blocks; ++b) {
        const T* const at = c.before.blocks[std::size_t(seen.first + b)];
        blocks[std::size_t(b)] = {{at + c.before.key_offset, c.shape.kv_width(), seen.keys},
                                  {at + c.before.value_offset, c.shape.kv_width(), seen.keys}};
      }
      f([&](const auto& m) { return columns_of(m, s * queries, queries); },
        [&](const auto& m) { return columns_of(m, s * length, length); },
        std::span<const kernels::key_block<T>>(blocks.first(std::size_t(seen.blocks))), seen.first,
        s * queries, scratch);
    }
  }
  matrix<T> logits_of(const cross_entropy_call<N>& c, view<T> work) const {
    const matrix<T> logits(work.data(), c.output.cols, c.normed.cols, kernels::logit_stride(c.output.cols));
    gemm(op::transpose, c.output, op::none, c.normed, false, logits);
    return logits;
  }
};

}  // namespace unroll::exec
