#pragma once

#include <cmath>
#include <memory>

#include "unroll/core/arena.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/exec/kept_cast.hpp"
#include "unroll/exec/packed_adapters.hpp"
#include "unroll/kernels/attention_body.hpp"
#include "unroll/kernels/cross_entropy_body.hpp"
#include "unroll/kernels/decode_attention_body.hpp"
#include "unroll/kernels/flash_attention_body.hpp"
#include "unroll/kernels/flash_attention_vjp_body.hpp"
#include "unroll/kernels/gemm_body.hpp"
#include "unroll/kernels/gemm_mma_body.hpp"
#include "unroll/kernels/movement_body.hpp"
#include "unroll/kernels/optimiser_body.hpp"
#include "unroll/kernels/random_body.hpp"
#include "unroll/kernels/rmsnorm_body.hpp"
#include "unroll/kernels/rotary_body.hpp"
#include "unroll/kernels/sampling_body.hpp"
#include "unroll/kernels/swiglu_body.hpp"
#include "unroll/kernels/vector_body.hpp"

namespace unroll::exec {

/// The operations of an executor by the bodies of kernels/, on whatever machine runs these: see executor.hpp.
/// With bfloat16 activations products run on tensor cores, whatever is multiplied is rounded to bfloat16
/// before and sums are float; with float activations everything is float. A machine is a cheap handle:
///   run(body)                enqueues all blocks of a body
///   staged(span)             an object with data(): the span's numbers at the place, until what is enqueued
///                            while it lives has run
///   partial_sums()           double* at the place, for most_parts numbers; used by one operation at a time
///   product(oa, a, ob, b, alpha, add, c)
///                            optional: c = alpha op(a) op(b) [+ c] and true, or false where it leaves these
///                            operands to the bodies
/// and a class derived from this one brings blocks and copies, and may hide operations behind faster ones.
template <class N, class Machine>
class body_executor {
  using W = typename N::weight;
  using T = typename N::activation;
  using P = typename N::parameter;
  static_assert(std::same_as<P, float>,
                "kernel bodies have numbers<float>, numbers<bf16> and numbers<float, bf16>: sums in float");

 public:
  using numbers = N;
  static constexpr place where = place::device;

  explicit body_executor(Machine machine) : machine_(std::move(machine)) {}
  const Machine& machine() const { return machine_; }  ///< what runs the bodies
  /// What is kept in kind T, too, by whoever has a kept_cast; shared by copies.
  const std::shared_ptr<kept_casts<P, T>>& casts() const { return casts_; }

  // Movement.
  template <class U>
  void fill(matrix<U> x, double value) const {
    run(kernels::fill_body<U>{x, float(value)});
  }
  template <class U, class V>
  void copy(matrix<U> from, matrix<V> to) const {
    const void* const source = from.data;
    const void *const begin = to.data, *const end = to.data + to.stride * to.cols;
    const bool in_order = begin < source && source < end;
    run(kernels::copy_body<std::remove_const_t<U>, V>{from, to, in_order});
  }
  template <class U, class V>
  void gather_columns(matrix<U> from, std::span<const std::int32_t> ids, matrix<V> to) const {
    const auto at = machine_.staged(ids);
    run(kernels::gather_columns_body<std::remove_const_t<U>, V>{from, at.data(),
                                                                columns_of(to, 0, index_t(ids.size()))});
  }
  template <class U, class V>
  void scatter_add_columns(matrix<U> from, std::span<const std::int32_t> ids, matrix<V> to) const {
    const auto at = machine_.staged(ids);
    run(kernels::scatter_add_columns_body<std::remove_const_t<U>, V>{columns_of(from, 0, index_t(ids.size())),
                                                                     at.data(), to});
  }

  // Vectors.
  template <class U>
  void axpy(double alpha, const U* x, P* y, index_t n) const {
    run(kernels::axpy_body<U, P>{float(alpha), x, y, n});
  }
  void scale(double alpha, P* x, index_t n) const { run(kernels::scale_body<P>{float(alpha), x, n}); }
  void clamp(double most, P* x, index_t n) const { run(kernels::clamp_body<P>{float(most), x, n}); }
  template <class U>
  void sum_columns(matrix<U> x, P* y) const {
    run(kernels::sum_columns_body<std::remove_const_t<U>, P>{x, y});
  }
  void sum(const P* x, index_t n, P* out) const { reduce<kernels::reduction::sum>(x, x, n, out); }
  void dot(const P* x, const P* y, index_t n, P* out) const { reduce<kernels::reduction::dot>(x, y, n, out); }
  void norm(const P* x, index_t n, P* out) const { reduce<kernels::reduction::norm>(x, x, n, out); }
  template <class U>
  void all_finite(const U* x, index_t n, int power, P* out) const {
    if (power == 1)
      reduce<kernels::reduction::finite>(x, x, n, out);
    else
      reduce<kernels::reduction::finite_square>(x, x, n, out);
  }

  // Products.
  template <class A, class B, class C>
  void gemm(op oa, matrix<A> a, op ob, matrix<B> b, bool add, matrix<C> c) const {
    product(oa, a, ob, b, 1, add, c);
  }
  /// The factors are cast to T, so that products have operands of one kind.
  static index_t adapter_workspace(index_t width, index_t tokens, bool vjp) {
    return (vjp ? 2 : 1) * arena<T>::rounded(rank_slice * tokens) +
           (std::same_as<T, P> ? 0 : arena<T>::rounded(rank_slice * width));
  }
  /// By slices of the rank.
  void adapt(const adapter<P>& l, matrix<const T> x, matrix<T> y, view<T> workspace) const {
    for_slices(l, workspace, [&](index_t, matrix<const T> a, matrix<const T> b, arena<T>& rest) {
      const matrix<T> z = rest.cut(a.cols, x.cols);
      product(op::transpose, a, op::none, x, l.scale, false, z);
      product(op::transpose, b, op::none, z, 1, true, y);
    });
  }
  void adapt_vjp(const adapter<P>& l, const adapter_adjoint<N>& d, view<T> workspace) const {
    for_slices(l, workspace, [&](index_t r, matrix<const T> a, matrix<const T> b, arena<T>& rest) {
      const index_t rank = a.cols, n = d.dy.cols, length = n / d.sequences;
      const matrix<T> z = rest.cut(rank, n), dz = rest.cut(rank, n);
      product(op::none, b, op::none, d.dy, l.scale, false, dz);
      if (d.dx.data) product(op::none, a, op::none, dz, 1, true, d.dx);
      const auto& [da, db] = d.gradient;
      if (!da.data && !db.data) return;
      product(op::transpose, a, op::none, d.x, l.scale, false, z);
      for (index_t s = 0; s < d.sequences; ++s) {
        const auto own = [&](const auto& m) { return columns_of(m, s * length, length); };
        if (db.data) product(op::none, own(z), op::transpose, own(d.dy), 1, true, rows_of(db, r, rank));
        if (da.data) product(op::none, own(d.x), op::transpose, own(dz), 1, true, columns_of(da, r, rank));
      }
    });
  }

  /// Of up to twice the ranks of a slice.
  static index_t adapters_workspace(index_t in, index_t out, index_t tokens, bool vjp) {
    const index_t one = adapter_workspace(in + out, tokens, vjp),
                  all = packed::workspace_size(packed_rank, in, out, tokens, vjp, !std::same_as<T, P>);
    return one < all ? all : one;
  }
  void adapt_all(std::span<const adapted<N>> of, matrix<const T> x, view<T> workspace) const {
    if (can_pack(of, packed_rank, rank_slice)) return packed(*this, workspace, {*this}).add(of, x);
    for (const adapted<N>& one : of) adapt(one.l, x, one.y, workspace);
  }
  void adapt_all_vjp(std::span<const adapted_adjoint<N>> of, matrix<const T> x, matrix<T> dx,
                     index_t sequences, view<T> workspace) const {
    if (can_pack(of, packed_rank, rank_slice))
      return packed(*this, workspace, {*this}).add_vjp(of, x, dx, sequences);
    for (const adapted_adjoint<N>& one : of)
      adapt_vjp(one.l, {x, one.dy, dx, one.gradient, sequences}, workspace);
  }

  // Model.
  void rmsnorm(matrix<const T> x, const W* gain, double epsilon, matrix<T> y, P* rstd) const {
    run(kernels::rmsnorm_body<T, W, P>{x, gain, float(epsilon), y, rstd});
  }
  void rmsnorm_vjp(matrix<const T> x, const W* gain, const P* rstd, matrix<const T> dy, matrix<T> dx,
                   P* dgain) const {
    run(kernels::rmsnorm_vjp_body<T, W, P>{x, gain, rstd, dy, dx});
    if (dgain) run(kernels::rmsnorm_dgain_body<T, P>{x, rstd, dy, dgain});
  }
  template <class U>
  void rotary(kernels::turn way, const kernels::rotary_table<P>& table, std::span<const index_t> positions,
              matrix<U> x) const {
    const auto at = machine_.staged(positions);
    run(kernels::rotary_body<U, P>{way, table, at.data(), index_t(positions.size()), x});
  }
  void swiglu(matrix<const T> gated, matrix<T> out) const { run(kernels::swiglu_body<T>{gated, out}); }
  void swiglu_vjp(matrix<const T> gated, matrix<const T> dout, matrix<T> dgated) const {
    run(kernels::swiglu_vjp_body<T>{gated, dout, dgated});
  }

  /// The shares of a pass over one token a sequence, whatever the length, so that a shorter pass needs no
  /// more; for the vjp on tensor cores also one number P a head and query.
  static index_t attention_workspace(const kernels::attention_shape& shape, const attention_size& size) {
    if (!has_flash(shape)) return 0;
    const index_t n = size.blocks * size.keys + 1;
    const index_t shares = shape.head_dim == 64
                               ? kernels::attention_shares<64>::numbers(size.sequences, shape.heads, n)
                               : kernels::attention_shares<128>::numbers(size.sequences, shape.heads, n);
    const index_t delta = size.vjp ? size.sequences * size.length * shape.heads : 0;
    return arena<T>::rounded((shares < delta ? delta : shares) * index_t(sizeof(P) / sizeof(T)));
  }
  void attention(const attention_call<N>& c, matrix<T> out, P* log_sum, view<T> workspace) const {
    if constexpr (std::same_as<T, bf16>)
      if (on_tensor_cores(c) && aligned(out))
        return with_flash(c, [&](const kernels::flash_operands& on, auto head) {
          constexpr int Head = head.value;
          if (c.k.cols != c.sequences || c.mask.ordinals >= 0)
            return run(kernels::flash_attention_body<Head>{on, out, log_sum});
          const kernels::attention_shares<Head> shares{
              reinterpret_cast<float*>(workspace.data()),
              kernels::key_parts::bound(on.before.all.blocks * on.before.all.keys + 1)};
          run(kernels::decode_attention_body<Head>{on, shares});
          run(kernels::decode_attention_join_body<Head>{on, shares, out, log_sum});
        });
    with_operands(c, [&](const auto& on, auto lanes) {
      run(kernels::attention_body<T, lanes.value>{on, out, log_sum});
    });
  }
  /// dq last: it may be the memory of q or of dout.
  void attention_vjp(const attention_call<N>& c, const attention_adjoint<N>& d, view<T> workspace) const {
    if (d.cut.pairs > 0) fail("attention_vjp", "cut", "is not implemented in kernel bodies: take exec::host");
    const auto dbefore = machine_.staged(d.dbefore);
    if constexpr (std::same_as<T, bf16>)
      if (on_tensor_cores(c) && aligned(d.out) && aligned(d.dout) && aligned(d.dq) && aligned(d.dk) &&
          aligned(d.dv))
        return with_flash(c, [&](const kernels::flash_operands& on, auto head) {
          constexpr int Head = head.value;
          float* const delta = reinterpret_cast<float*>(workspace.data());
          run(kernels::flash_delta_body<Head>{d.out, d.dout, c.shape.heads, delta});
          const kernels::flash_cotangents given{d.log_sum, delta, d.dout};
          run(kernels::flash_dkv_body<Head, false>{on, given, d.dk, d.dv});
          if (!d.dbefore.empty())
            run(kernels::flash_dkv_body<Head, true>{.on = on,
                                                    .given = given,
                                                    .dbefore = dbefore.data(),
                                                    .prefix_blocks = index_t(d.dbefore.size()),
                                                    .block_keys = c.before.keys});
          run(kernels::flash_dq_body<Head>{on, given, d.dq});
        });
    with_operands(c, [&](const auto& on, auto lanes) {
      const kernels::attention_cotangents<T, P> given{d.out, d.log_sum, d.dout};
      run(kernels::attention_dkv_body<T, lanes.value>{on, given, d.dk, d.dv});
      if (!d.dbefore.empty())
        run(kernels::attention_prefix_vjp_body<T, lanes.value, P>{.on = on,
                                                                  .d = given,
                                                                  .dbefore = dbefore.data(),
                                                                  .prefix_blocks = index_t(d.dbefore.size()),
                                                                  .keys = c.before.keys});
      run(kernels::attention_dq_body<T, lanes.value>{on, given, d.dq});
    });
  }

  /// Logits are float; their cotangents are cast to T, so that products have operands of one kind.
  static index_t cross_entropy_workspace(index_t, index_t vocabulary, index_t tokens) {
    const index_t numbers = arena<T>::rounded(vocabulary * tokens);
    return arena<T>::rounded(numbers * index_t(sizeof(P) / sizeof(T)) + index_t(alignof(P))) +
           (std::same_as<T, P> ? 0 : numbers);
  }
  void cross_entropy(const cross_entropy_call<N>& c, view<T> workspace) const {
    losses(c, false, 0, workspace);
  }
  void cross_entropy_vjp(const cross_entropy_call<N>& c, const cross_entropy_adjoint<N>& d,
                         view<T> workspace) const {
    const auto with = [&](const auto& dlogits) {
      product(op::none, c.lm_head, op::none, dlogits, 1, false, d.dnormed);
      if (d.dlm_head)
        product(op::none, c.normed, op::transpose, dlogits, 1, true,
                matrix<P>(d.dlm_head, c.lm_head.rows, c.lm_head.cols));
    };
    const matrix<const P> dlogits = losses(c, true, d.dloss, workspace);
    if constexpr (std::same_as<T, P>) {
      with(dlogits);
    } else {
      const index_t size = arena<T>::rounded(dlogits.rows * dlogits.cols);
      const matrix<T> cast(workspace.data() + workspace.size() - size, dlogits.rows, dlogits.cols);
      copy(dlogits, cast);
      with(matrix<const T>(cast));
    }
  }
  void argmax(const P* logits, index_t n, std::int32_t* out) const {
    run(kernels::argmax_body<P>{logits, n, out});
  }
  static index_t sample_workspace(index_t n) { return n; }
  void sample(const P* logits, index_t n, const sampling& how, key k, std::int64_t step, view<P> workspace,
              std::int32_t* out) const {
    if (how.temperature == 0) return argmax(logits, n, out);
    run(kernels::sample_body<P>{.logits = logits,
                                .n = n,
                                .temperature = float(how.temperature),
                                .top_p = how.top_p,
                                .u = draw_uniform(k, step),
                                .weight = workspace.data(),
                                .out = out});
  }

  // Random numbers.
  void signs(key k, std::int64_t step, P* x, index_t n) const { run(kernels::signs_body<P>{k, step, x, n}); }
  void normals(key k, std::int64_t step, P* x, index_t n) const {
    run(kernels::normals_body<P>{k, step, x, n});
  }

  // Optimisers.
  void sgd(double rate, const optimised<P>& on) const {
    run(kernels::sgd_body<P>{.rate = float(rate), .theta = on.theta, .g = on.g, .n = on.n, .ok = on.ok});
  }
  void momentum(const momentum_step& how, const optimised<P>& on, P* v) const {
    run(kernels::momentum_body<P>{.rate = float(how.rate),
                                  .momentum = float(how.momentum),
                                  .nesterov = how.nesterov,
                                  .theta = on.theta,
                                  .g = on.g,
                                  .v = v,
                                  .n = on.n,
                                  .ok = on.ok});
  }
  void adamw(const adamw_step& how, const optimised<P>& on, P* m, P* v) const {
    const double t = double(how.step);
    run(kernels::adamw_body<P>{.beta1 = float(how.beta1),
                               .beta2 = float(how.beta2),
                               .rest1 = float(1 - how.beta1),
                               .rest2 = float(1 - how.beta2),
                               .first = float(how.rate / (1 - std::pow(how.beta1, t))),
                               .second = float(1 / std::sqrt(1 - std::pow(how.beta2, t))),
                               .epsilon = float(how.epsilon),
                               .shrink = float(how.rate * how.decay),
                               .theta = on.theta,
                               .g = on.g,
                               .m = m,
                               .v = v,
                               .n = on.n,
                               .ok = on.ok});
  }
  void clip(double most, P* g, index_t n, P* norm_of_g) const {
    norm(g, n, norm_of_g);
    run(kernels::scale_body<P>{.alpha = 1, .x = g, .n = n, .norm = norm_of_g, .most = float(most)});
  }

 private:
  static constexpr index_t rank_slice = 128;              // columns of an adapter's A taken at a time
  static constexpr index_t packed_rank = 2 * rank_slice;  // of one x: the rows that product_split takes
  struct scaled_product {
    const body_executor& e;
    template <class C>
    void operator()(op oa, matrix<const T> a, op ob, matrix<const T> b, double alpha, bool add,
                    matrix<C> c) const {
      e.product(oa, a, ob, b, alpha, add, c);
    }
  };
  using packed = packed_adapters<T, body_executor, scaled_product>;

  template <class Body>
  void run(const Body& body) const {
    casts_->written_by(body);
    machine_.run(body);
  }
  template <kernels::reduction what, class U>
  void reduce(const U* x, const U* y, index_t n, P* out) const {
    double* const partial = machine_.partial_sums();
    const kernels::reduce_body<what, U> first{x, y, n, partial};
    run(first);
    run(kernels::finish_reduction_body<what, P>{partial, first.blocks(), out});
  }
  template <class A, class B, class C>
  void product(op oa, matrix<A> a, op ob, matrix<B> b, double alpha, bool add, matrix<C> c) const {
    using U = std::remove_const_t<A>;
    using V = std::remove_const_t<B>;
    if constexpr (requires { machine_.product(oa, a, ob, b, alpha, add, c); })
      if (machine_.product(oa, a, ob, b, alpha, add, c)) return;
    if constexpr (std::same_as<T, bf16>)
      run(kernels::gemm_mma_body<U, V, C>{oa, a, ob, b, float(alpha), add, c});
    else
      run(kernels::gemm_body<U, V, C>{oa, a, ob, b, float(alpha), add, c});
  }
  /// f(the slice's first column of A, A and B of the slice as T, what is left of the workspace).
  template <class F>
  void for_slices(const adapter<P>& l, view<T> workspace, F&& f) const {
    for (index_t r = 0; r < l.a.cols; r += rank_slice) {
      arena<T> rest(workspace);
      const index_t rank = l.a.cols - r < rank_slice ? l.a.cols - r : rank_slice;
      const matrix<const T> a = as_kind<T>(*this, columns_of(l.a, r, rank), rest);
      const matrix<const T> b = as_kind<T>(*this, rows_of(l.b, r, rank), rest);
      f(r, a, b, rest);
    }
  }
  static bool has_flash(const kernels::attention_shape& shape) {
    return std::same_as<T, bf16> && (shape.head_dim == 64 || shape.head_dim == 128);
  }
  template <class U>
  static bool aligned(const matrix<U>& m) {
    return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.stride % 8 == 0 && m.stride < 1 << 23;
  }
  static bool on_tensor_cores(const attention_call<N>& c) {
    for (const T* const block : c.before.blocks)
      if (reinterpret_cast<std::uintptr_t>(block) % 16 != 0) return false;
    return has_flash(c.shape) && aligned(c.q) && aligned(c.k) && aligned(c.v) &&
           c.before.key_offset % 8 == 0 && c.before.value_offset % 8 == 0;
  }
  /// f(operands, the size of a head): attention on tensor cores.
  template <class F>
  void with_flash(const attention_call<N>& c, F&& f) const {
    const auto blocks = machine_.staged(c.before.blocks);
    const auto ranges = machine_.staged(c.before.ranges);
    const kernels::flash_operands on{.shape = c.shape,
                                     .mask = c.mask,
                                     .sequences = c.sequences,
                                     .q = c.q,
                                     .k = c.k,
                                     .v = c.v,
                                     .before = {.blocks = blocks.data(),
                                                .key_offset = c.before.key_offset,
                                                .value_offset = c.before.value_offset,
                                                .ranges = c.before.ranges.empty() ? nullptr : ranges.data(),
                                                .all = {0, index_t(c.before.blocks.size()), c.before.keys}}};
    if (c.shape.head_dim == 64)
      f(on, std::integral_constant<int, 64>{});
    else
      f(on, std::integral_constant<int, 128>{});
  }
  /// f(operands, the numbers of a head that a lane has).
  template <class F>
  void with_operands(const attention_call<N>& c, F&& f) const {
    const auto blocks = machine_.staged(c.before.blocks);
    const auto ranges = machine_.staged(c.before.ranges);
    const kernels::attention_operands<T> on{.shape = c.shape,
                                            .mask = c.mask,
                                            .sequences = c.sequences,
                                            .q = c.q,
                                            .k = c.k,
                                            .v = c.v,
                                            .blocks = blocks.data(),
                                            .key_offset = c.before.key_offset,
                                            .value_offset = c.before.value_offset,
                                            .ranges = c.before.ranges.empty() ? nullptr : ranges.data(),
                                            .all = {0, index_t(c.before.blocks.size()), c.before.keys}};
    const auto with = [&]<int E>(std::integral_constant<int, E> lanes) { f(on, lanes); };
    if (c.shape.head_dim <= 32)
      with(std::integral_constant<int, 1>{});
    else if (c.shape.head_dim <= 64)
      with(std::integral_constant<int, 2>{});
    else if (c.shape.head_dim <= 128)
      with(std::integral_constant<int, 4>{});
    else if (c.shape.head_dim <= 256)
      with(std::integral_constant<int, 8>{});
    else
      fail("attention", "head_dim", "is " + std::to_string(c.shape.head_dim) + ", kernels have at most 256");
  }
  /// Returns the logits, which with `vjp` have become the cotangents of the logits.
  matrix<P> losses(const cross_entropy_call<N>& c, bool vjp, double dloss, view<T> workspace) const {
    const std::uintptr_t aligned =
        (reinterpret_cast<std::uintptr_t>(workspace.data()) + alignof(P) - 1) / alignof(P) * alignof(P);
    const matrix<P> logits(reinterpret_cast<P*>(aligned), c.lm_head.cols, c.normed.cols);
    product(op::transpose, c.lm_head, op::none, c.normed, 1, false, logits);
    const auto targets = machine_.staged(c.targets);
    run(kernels::cross_entropy_body<P>{
        .logits = logits, .targets = targets.data(), .losses = c.losses, .vjp = vjp, .dloss = float(dloss)});
    return logits;
  }

  Machine machine_;
  std::shared_ptr<kept_casts<P, T>> casts_ = std::make_shared<kept_casts<P, T>>();
};

}  // namespace unroll::exec
