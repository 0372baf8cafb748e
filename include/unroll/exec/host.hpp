#pragma once

#include "unroll/core/arena.hpp"
#include "unroll/core/block.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/exec/host_weights.hpp"
#include "unroll/exec/packed_adapters.hpp"
#include "unroll/kernels/attention.hpp"
#include "unroll/kernels/attention_cut.hpp"
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
  void clamp(double most, T* x, index_t n) const {
    for (index_t i = 0; i < n; ++i)
      if (std::abs(double(x[i])) > most && std::isfinite(x[i])) x[i] = T(std::copysign(most, double(x[i])));
  }
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
  static index_t adapter_workspace(index_t, index_t tokens, bool vjp) {
    return (vjp ? 2 : 1) * arena<T>::rounded(rank_slice * tokens);
  }
  void adapt(const adapter<T>& l, matrix<const T> x, matrix<T> y, view<T> workspace) const {
    for_slices(l.a.cols, [&](index_t r, index_t rank) {
      const matrix<T> z(workspace.data(), rank, x.cols);
      linalg::gemm<T>(op::transpose, columns_of(l.a, r, rank), op::none, x, false, z);
      linalg::scale(T(l.scale), z.data, rank * x.cols);
      linalg::gemm<T>(op::transpose, rows_of(l.b, r, rank), op::none, z, true, y);
    });
  }
  void adapt_vjp(const adapter<T>& l, const adapter_adjoint<N>& d, view<T> workspace) const {
    for_slices(l.a.cols, [&](index_t r, index_t rank) {
      arena<T> rest(workspace);
      const index_t n = d.dy.cols, length = n / d.sequences;
      const matrix<T> z = rest.cut(rank, n), dz = rest.cut(rank, n);
      linalg::gemm<T>(op::none, rows_of(l.b, r, rank), op::none, d.dy, false, dz);
      linalg::scale(T(l.scale), dz.data, rank * n);
      if (d.dx.data) linalg::gemm<T>(op::none, columns_of(l.a, r, rank), op::none, dz, true, d.dx);
      const auto& [da, db] = d.gradient;
      if (!da.data && !db.data) return;
      linalg::gemm<T>(op::transpose, columns_of(l.a, r, rank), op::none, d.x, false, z);
      linalg::scale(T(l.scale), z.data, rank * n);
      for (index_t s = 0; s < d.sequences; ++s) {
        const auto own = [&](const auto& m) { return columns_of(m, s * length, length); };
        if (db.data) linalg::gemm<T>(op::none, own(z), op::transpose, own(d.dy), true, rows_of(db, r, rank));
        if (da.data)
          linalg::gemm<T>(op::none, own(d.x), op::transpose, own(dz), true, columns_of(da, r, rank));
      }
    });
  }

  static index_t adapters_workspace(index_t in, index_t out, index_t tokens, bool vjp) {
    return std::max(adapter_workspace(in + out, tokens, vjp),
                    packed<scaled_product>::workspace_size(rank_slice, in, out, tokens, vjp, false));
  }
  void adapt_all(std::span<const adapted<N>> of, matrix<const T> x, view<T> workspace) const {
    if (can_pack(of, rank_slice, rank_slice)) return packed<scaled_product>(*this, workspace, {}).add(of, x);
    for (const adapted<N>& one : of) adapt(one.l, x, one.y, workspace);
  }
  void adapt_all_vjp(std::span<const adapted_adjoint<N>> of, matrix<const T> x, matrix<T> dx,
                     index_t sequences, view<T> workspace) const {
    if (can_pack(of, rank_slice, rank_slice))
      return packed<scaled_product>(*this, workspace, {}).add_vjp(of, x, dx, sequences);
    for (const adapted_adjoint<N>& one : of)
      adapt_vjp(one.l, {x, one.dy, dx, one.gradient, sequences}, workspace);
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
  static index_t attention_workspace(const kernels::attention_shape& shape, const attention_size& size) {
    arena<T> counting;
    counting.cut_flat(kernels::attention_workspace(shape, size.length, size.blocks * size.keys, size.keys));
    counting.template cut_objects<kernels::key_block<T>>(size.blocks);
    if (size.vjp) counting.template cut_objects<kernels::key_block_adjoint<T>>(size.blocks);
    return counting.used();
  }
  void attention(const attention_call<N>& c, matrix<T> out, T* log_sum, view<T> workspace) const {
    for_sequences(c, workspace, [&](const sequence& s, const kernels::attention_inputs<T>& in, view<T> rest) {
      kernels::attention<T>(in, s.queries(out), log_sum ? log_sum + s.first_query * c.shape.heads : nullptr,
                            rest);
    });
  }
  void attention_vjp(const attention_call<N>& c, const attention_adjoint<N>& d, view<T> workspace) const {
    fill(d.dk, 0);
    fill(d.dv, 0);
    arena<T> cut(workspace);
    const auto dbefore = cut.template cut_objects<kernels::key_block_adjoint<T>>(index_t(d.dbefore.size()));
    for_sequences(
        c, workspace.part(cut.used(), workspace.size() - cut.used()),
        [&](const sequence& s, const kernels::attention_inputs<T>& in, view<T> rest) {
          const auto wanted = d.dbefore.empty() ? dbefore : dbefore.first(in.before.size());
          for (std::size_t b = 0; b < wanted.size(); ++b) {
            T* const to = d.dbefore[std::size_t(s.first_block) + b];
            const auto like = [&](const matrix<const T>& m, index_t offset) {
              return matrix<T>(to ? to + offset : nullptr, m.rows, m.cols);
            };
            wanted[b] = {like(in.before[b].k, c.before.key_offset),
                         like(in.before[b].v, c.before.value_offset)};
          }
          const kernels::attention_cotangents<T> given{
              s.queries(d.out), d.log_sum + s.first_query * c.shape.heads, s.queries(d.dout)};
          const kernels::attention_adjoints<T> to{s.queries(d.dq), wanted, {s.tokens(d.dk), s.tokens(d.dv)}};
          if (d.cut.pairs > 0)
            kernels::attention_cut_vjp<T>(in, given, to, d.cut, s.first_query / s.query_count, rest);
          else
            kernels::attention_vjp<T>(in, given, to, rest);
        });
  }
  static index_t cross_entropy_workspace(index_t, index_t vocabulary, index_t tokens) {
    return arena<T>::rounded(kernels::logit_stride(vocabulary) * tokens);
  }
  void cross_entropy(const cross_entropy_call<N>& c, view<T> workspace) const {
    const matrix<T> logits = logits_of(c, workspace);
    for (index_t j = 0; j < logits.cols; ++j)
      c.losses[j] =
          kernels::cross_entropy(logits.data + j * logits.stride, logits.rows, c.targets[std::size_t(j)]);
  }
  void cross_entropy_vjp(const cross_entropy_call<N>& c, const cross_entropy_adjoint<N>& d,
                         view<T> workspace) const {
    const matrix<T> logits = logits_of(c, workspace);
    for (index_t j = 0; j < logits.cols; ++j)
      c.losses[j] = kernels::cross_entropy_vjp(logits.data + j * logits.stride, logits.rows,
                                               c.targets[std::size_t(j)], T(d.dloss));
    gemm(op::none, c.lm_head, op::none, logits, false, d.dnormed);
    if (d.dlm_head)
      linalg::gemm<T>(op::none, c.normed, op::transpose, logits, true,
                      {d.dlm_head, c.lm_head.rows, c.lm_head.cols});
  }
  void argmax(const T* logits, index_t n, std::int32_t* out) const {
    *out = std::int32_t(std::max_element(logits, logits + n) - logits);
  }
  static index_t sample_workspace(index_t n) { return kernels::sampling_workspace<T>(n); }
  void sample(const T* logits, index_t n, const sampling& how, key k, std::int64_t step, view<T> workspace,
              std::int32_t* out) const {
    *out = kernels::sample(logits, n, how.temperature, how.top_p, draw_uniform(k, step), workspace);
  }

  // Random numbers.
  void signs(key k, std::int64_t step, T* x, index_t n) const { draw_signs(k, step, view<T>(x, n)); }
  void normals(key k, std::int64_t step, T* x, index_t n) const { draw_normals(k, step, view<T>(x, n)); }

  // Optimisers.
  void sgd(double rate, const optimised<T>& on) const {
    if (on.ok && *on.ok == 0) return;
    for (index_t i = 0; i < on.n; ++i) on.theta[i] -= T(rate) * on.g[i];
  }
  void momentum(const momentum_step& how, const optimised<T>& on, T* v) const {
    if (on.ok && *on.ok == 0) return;
    const auto [theta, g, n, ok] = on;
    const T rate = T(how.rate), mu = T(how.momentum);
    for (index_t i = 0; i < n; ++i) {
      v[i] = mu * v[i] + g[i];
      theta[i] -= rate * (how.nesterov ? g[i] + mu * v[i] : v[i]);
    }
  }
  void adamw(const adamw_step& how, const optimised<T>& on, T* m, T* v) const {
    if (on.ok && *on.ok == 0) return;
    const auto [theta, g, n, ok] = on;
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

  template <class Product>
  using packed = packed_adapters<T, host, Product>;
  struct scaled_product {
    void operator()(op oa, matrix<const T> a, op ob, matrix<const T> b, double alpha, bool add,
                    matrix<T> c) const {
      linalg::gemm<T>(oa, a, ob, b, add, c);
      for (index_t j = 0; alpha != 1 && j < c.cols; ++j)
        linalg::scale(T(alpha), c.data + j * c.stride, c.rows);
    }
  };
  template <class F>
  static void for_slices(index_t rank, F&& f) {
    for (index_t r = 0; r < rank; r += rank_slice) f(r, std::min(rank_slice, rank - r));
  }
  /// Where one sequence of a call lies.
  struct sequence {
    index_t first_query, query_count, first_token, token_count;
    index_t first_block;  // of the prefix that it sees

    template <class M>
    M queries(const M& m) const {
      return columns_of(m, first_query, query_count);
    }
    template <class M>
    M tokens(const M& m) const {
      return columns_of(m, first_token, token_count);
    }
  };
  /// f(sequence, its inputs, what is left of the workspace) for every sequence.
  template <class F>
  void for_sequences(const attention_call<N>& c, view<T> workspace, F&& f) const {
    arena<T> cut(workspace);
    const auto blocks = cut.template cut_objects<kernels::key_block<T>>(index_t(c.before.blocks.size()));
    const view<T> rest = workspace.part(cut.used(), workspace.size() - cut.used());
    const index_t tokens = c.k.cols / c.sequences, queries = c.q.cols / c.sequences;
    for (index_t i = 0; i < c.sequences; ++i) {
      const kernels::prefix_range seen = c.before.range(i);
      for (index_t b = 0; b < seen.blocks; ++b) {
        const T* const at = c.before.blocks[std::size_t(seen.first + b)];
        blocks[std::size_t(b)] = {{at + c.before.key_offset, c.shape.kv_width(), seen.keys},
                                  {at + c.before.value_offset, c.shape.kv_width(), seen.keys}};
      }
      const sequence s{i * queries, queries, i * tokens, tokens, seen.first};
      f(s,
        {c.shape,
         c.mask,
         s.queries(c.q),
         blocks.first(std::size_t(seen.blocks)),
         {s.tokens(c.k), s.tokens(c.v)}},
        rest);
    }
  }
  matrix<T> logits_of(const cross_entropy_call<N>& c, view<T> workspace) const {
    const index_t vocabulary = c.lm_head.cols;
    const matrix<T> logits(workspace.data(), vocabulary, c.normed.cols, kernels::logit_stride(vocabulary));
    gemm(op::transpose, c.lm_head, op::none, c.normed, false, logits);
    return logits;
  }
};

}  // namespace unroll::exec
