#pragma once

#include <vector>

#include "unroll/exec/executor.hpp"
#include "unroll/rng/draw.hpp"

// Every operation of an executor on small inputs, and what it writes; for comparing two executors.
namespace executor_test {

using namespace unroll;

/// What an operation has written, as floats.
using results = std::vector<float>;

/// Numbers around 0 of size 1 that a bfloat16 can hold, at an executor's place.
template <class U, class E>
auto numbers_at(const E& e, index_t n, std::uint64_t seed, double size = 1) {
  std::vector<U> x;
  for (index_t i = 0; i < n; ++i)
    x.push_back(U(float(bf16(float(size * draw_normal({seed}, 0, std::uint64_t(i)))))));
  auto at = e.template allocate<U>(n);
  e.upload(x.data(), n, at.data());
  return at;
}
template <class E, class Block>
void append(const E& e, const Block& from, results& to) {
  using U = std::remove_const_t<std::remove_pointer_t<decltype(from.data())>>;
  std::vector<U> x(static_cast<std::size_t>(from.size()));
  e.download(from.data(), from.size(), x.data());
  e.synchronise();
  for (const U u : x) to.push_back(float(u));
}
template <class U, class Block>
matrix<U> shaped(Block& b, index_t rows, index_t cols, index_t spare = 0) {
  return {b.data(), rows, cols, rows + spare};
}

template <class E>
using kind = typename E::numbers::activation;

template <class E>
results movement(const E& e) {
  using T = kind<E>;
  results r;
  auto x = numbers_at<float>(e, 5 * 1100, 1);
  auto y = e.template allocate<T>(5 * 1100);
  e.copy(shaped<const float>(x, 1100, 5), shaped<T>(y, 1100, 5));
  e.copy(matrix<const float>(x.data() + 2 * 1100, 1100, 3), shaped<float>(x, 1100, 3));
  e.fill(matrix<T>(y.data() + 2, 7, 2, 1100), 1.5);
  const std::int32_t ids[] = {3, 0, 3, 4};
  auto g = e.template allocate<T>(4 * 1100);
  e.gather_columns(shaped<const T>(y, 1100, 5), std::span<const std::int32_t>(ids), shaped<T>(g, 1100, 4));
  e.scatter_add_columns(shaped<const T>(g, 1100, 4), std::span<const std::int32_t>(ids),
                        shaped<float>(x, 1100, 5));
  append(e, x, r), append(e, y, r), append(e, g, r);
  return r;
}

template <class E>
results vectors(const E& e) {
  results r;
  const index_t n = 9001;
  auto x = numbers_at<float>(e, n, 3), y = numbers_at<float>(e, n, 4);
  auto out = e.template allocate<float>(6);
  e.sum(x.data(), n, out.data());
  e.dot(x.data(), y.data(), n, out.data() + 1);
  e.norm(x.data(), n, out.data() + 2);
  e.all_finite(x.data(), n, 2, out.data() + 3);
  e.axpy(0.3, x.data(), y.data(), n);
  e.scale(-2, y.data(), n);
  e.sum_columns(shaped<const float>(x, 3000, 3), y.data());
  e.clamp(0.5, x.data(), n);
  e.clip(2, x.data(), n, out.data() + 4);
  append(e, out, r), append(e, x, r), append(e, y, r);
  return r;
}

template <class E>
results products(const E& e) {
  using T = kind<E>;
  results r;
  for (const index_t spare : {0, 3})
    for (const op oa : {op::none, op::transpose})
      for (const op ob : {op::none, op::transpose}) {
        const index_t m = spare ? 33 : 72, n = spare ? 7 : 65, k = spare ? 45 : 64;
        const auto of = [&](op o, index_t rows, index_t cols, auto& b) {
          return o == op::none ? shaped<const T>(b, rows, cols, spare)
                               : shaped<const T>(b, cols, rows, spare);
        };
        auto a = numbers_at<T>(e, 5000, 5), b = numbers_at<T>(e, 5000, 6), c = numbers_at<T>(e, m * n, 7);
        auto wide = numbers_at<float>(e, m * n, 8);
        e.gemm(oa, of(oa, m, k, a), ob, of(ob, k, n, b), oa == ob, shaped<T>(c, m, n));
        e.gemm(oa, of(oa, m, k, a), ob, of(ob, k, n, b), oa != ob, shaped<float>(wide, m, n));
        append(e, c, r), append(e, wide, r);
      }
  return r;
}

template <class E>
results adapters(const E& e) {
  using T = kind<E>;
  results r;
  const index_t in = 24, out = 40, rank = 130, n = 12;
  auto a = numbers_at<float>(e, in * rank, 8), b = numbers_at<float>(e, rank * out, 9);
  auto x = numbers_at<T>(e, in * n, 10), y = numbers_at<T>(e, out * n, 11), dx = numbers_at<T>(e, in * n, 12);
  auto da = numbers_at<float>(e, in * rank, 13), db = numbers_at<float>(e, rank * out, 14);
  auto workspace = e.template allocate<T>(e.adapter_workspace(in + out, n, true));
  const exec::adapter<float> l{{a.data(), in, rank}, {b.data(), rank, out}, 0.125};
  e.adapt(l, shaped<const T>(x, in, n), shaped<T>(y, out, n), workspace);
  e.adapt_vjp(l,
              {shaped<const T>(x, in, n),
               shaped<const T>(y, out, n),
               shaped<T>(dx, in, n),
               {{da.data(), in, rank}, {db.data(), rank, out}},
               2},
              workspace);
  append(e, y, r), append(e, dx, r), append(e, da, r), append(e, db, r);
  return r;
}

/// Two of one x.
template <class E>
results adapters_together(const E& e) {
  using T = kind<E>;
  using N = typename E::numbers;
  results r;
  const index_t in = 24, out = 40, rank = 16, n = 12;
  auto a = numbers_at<float>(e, 2 * in * rank, 8), b = numbers_at<float>(e, 2 * rank * out, 9);
  auto x = numbers_at<T>(e, in * n, 10), y = numbers_at<T>(e, 2 * out * n, 11);
  auto dx = numbers_at<T>(e, in * n, 12);
  auto da = numbers_at<float>(e, 2 * in * rank, 13), db = numbers_at<float>(e, 2 * rank * out, 14);
  auto workspace = e.template allocate<T>(E::adapters_workspace(in, out, n, true));
  std::vector<exec::adapted<N>> of;
  std::vector<exec::adapted_adjoint<N>> back;
  for (index_t i = 0; i < 2; ++i) {
    const exec::adapter<float> l{
        {a.data() + i * in * rank, in, rank}, {b.data() + i * rank * out, rank, out}, 0.125};
    const matrix<T> own(y.data() + i * out * n, out, n);
    of.push_back({l, own});
    back.push_back(
        {l, own, {{da.data() + i * in * rank, in, rank}, {db.data() + i * rank * out, rank, out}}});
  }
  e.adapt_all(std::span<const exec::adapted<N>>(of), shaped<const T>(x, in, n), workspace);
  e.adapt_all_vjp(std::span<const exec::adapted_adjoint<N>>(back), shaped<const T>(x, in, n),
                  shaped<T>(dx, in, n), 2, workspace);
  append(e, y, r), append(e, dx, r), append(e, da, r), append(e, db, r);
  return r;
}

template <class E>
results norms(const E& e) {
  using T = kind<E>;
  results r;
  const index_t rows = 4096, cols = 3;
  auto x = numbers_at<T>(e, rows * cols, 12), dy = numbers_at<T>(e, rows * cols, 13);
  auto gain = numbers_at<typename E::numbers::weight>(e, rows, 14);
  auto y = e.template allocate<T>(rows * cols), dx = numbers_at<T>(e, rows * cols, 15);
  auto rstd = e.template allocate<float>(cols), dgain = numbers_at<float>(e, rows, 16);
  const auto X = shaped<const T>(x, rows, cols), D = shaped<const T>(dy, rows, cols);
  e.rmsnorm(X, gain.data(), 1e-5, shaped<T>(y, rows, cols), rstd.data());
  e.rmsnorm_vjp(X, gain.data(), rstd.data(), D, shaped<T>(dx, rows, cols), dgain.data());
  append(e, y, r), append(e, rstd, r), append(e, dx, r), append(e, dgain, r);
  return r;
}

template <class E>
results rotations(const E& e) {
  using T = kind<E>;
  results r;
  const index_t positions[] = {4, 0, 2};
  for (const index_t head : {8, 32}) {  // pairs one by one, and eight at a time
    auto table = numbers_at<float>(e, 5 * head, 17);
    auto x = numbers_at<T>(e, 18 * head, 18);
    for (const bool neighbours : {false, true}) {
      const kernels::rotary_table<float> t{table.data(), head, 5, neighbours};
      e.rotary(kernels::turn::forward, t, positions, shaped<T>(x, 3 * head, 6));
      append(e, x, r);
      e.rotary(kernels::turn::back, t, positions, shaped<T>(x, 3 * head, 6));
      append(e, x, r);
    }
    // spans that fill all of the memory they go through, several times, each used twice
    std::vector<index_t> many(500000);
    const kernels::rotary_table<float> t{table.data(), head, 5, false};
    for (index_t round = 0; round < 10; ++round) {
      for (index_t i = 0; i < 6; ++i) many[std::size_t(i)] = (round + i * i) % 5;
      for (const auto way : {kernels::turn::forward, kernels::turn::back})
        e.rotary(way, t, std::span<const index_t>(many), shaped<T>(x, 3 * head, 6));
      e.rotary(kernels::turn::forward, t, std::span<const index_t>(many), shaped<T>(x, 3 * head, 6));
      e.scale(0.9, table.data(), table.size());
    }
    append(e, x, r);
  }
  return r;
}

template <class E>
results activations(const E& e) {
  using T = kind<E>;
  results r;
  const index_t m = 500, n = 3;
  auto gated = numbers_at<T>(e, 2 * m * n, 19, 4), dout = numbers_at<T>(e, m * n, 20);
  auto out = e.template allocate<T>(m * n), d = e.template allocate<T>(2 * m * n);
  e.swiglu(shaped<const T>(gated, 2 * m, n), shaped<T>(out, m, n));
  e.swiglu_vjp(shaped<const T>(gated, 2 * m, n), shaped<const T>(dout, m, n), shaped<T>(d, 2 * m, n));
  append(e, out, r), append(e, d, r);
  return r;
}

template <class E>
results attention(const E& e) {
  using T = kind<E>;
  results r;
  const kernels::attention_shape shape{4, 2, 12};
  for (const kernels::attention_mask mask :
       {kernels::attention_mask{}, kernels::attention_mask{6, 4, 0}, kernels::attention_mask{6, 4, 4}}) {
    const index_t tokens = 8, queries = tokens - mask.first;
    auto q = numbers_at<T>(e, 2 * queries * 48, 20), k = numbers_at<T>(e, 2 * tokens * 24, 21);
    auto v = numbers_at<T>(e, 2 * tokens * 24, 22), dout = numbers_at<T>(e, 2 * queries * 48, 23);
    auto memory = numbers_at<T>(e, 2 * 144, 24);
    auto dmemory = numbers_at<float>(e, 2 * 144, 25);
    const T* const blocks[] = {memory.data(), memory.data() + 144};
    float* const dblocks[] = {dmemory.data(), dmemory.data() + 144};
    const kernels::prefix_range ranges[] = {{0, 2, 3}, {1, 1, 1}};
    auto out = e.template allocate<T>(q.size()), dq = e.template allocate<T>(q.size());
    auto dk = e.template allocate<T>(k.size()), dv = e.template allocate<T>(k.size());
    auto log_sum = e.template allocate<float>(2 * queries * 4);
    auto workspace = e.template allocate<T>(e.attention_workspace(shape, {2, tokens, 2, 3, true}));
    const exec::attention_call<typename E::numbers> call{shape,
                                                         mask,
                                                         2,
                                                         shaped<const T>(q, 48, 2 * queries),
                                                         shaped<const T>(k, 24, 2 * tokens),
                                                         shaped<const T>(v, 24, 2 * tokens),
                                                         {blocks, 0, 72, 3, ranges}};
    e.attention(call, shaped<T>(out, 48, 2 * queries), log_sum.data(), workspace);
    e.attention_vjp(call,
                    {shaped<const T>(out, 48, 2 * queries), log_sum.data(),
                     shaped<const T>(dout, 48, 2 * queries), shaped<T>(dq, 48, 2 * queries),
                     shaped<T>(dk, 24, 2 * tokens), shaped<T>(dv, 24, 2 * tokens), dblocks},
                    workspace);
    append(e, out, r), append(e, log_sum, r), append(e, dq, r), append(e, dk, r), append(e, dv, r);
    append(e, dmemory, r);
  }
  return r;
}

/// Of one token a sequence, with heads that bfloat16 takes through decode_attention_body.hpp.
template <class E>
results decoding(const E& e) {
  using T = kind<E>;
  results r;
  const index_t keys = 150, block = 2 * keys * 128;
  const kernels::attention_shape shape{4, 2, 64};
  auto q = numbers_at<T>(e, 2 * 256, 30), k = numbers_at<T>(e, 2 * 128, 31),
       v = numbers_at<T>(e, 2 * 128, 32);
  auto memory = numbers_at<T>(e, 2 * block, 33), out = e.template allocate<T>(2 * 256);
  auto log_sum = e.template allocate<float>(8);
  const T* const blocks[] = {memory.data(), memory.data() + block};
  const kernels::prefix_range ranges[] = {{0, 2, 150}, {1, 1, 3}};
  auto workspace = e.template allocate<T>(e.attention_workspace(shape, {2, 1, 2, keys, false}));
  exec::attention_call<typename E::numbers> call{shape,
                                                 {},
                                                 2,
                                                 shaped<const T>(q, 256, 2),
                                                 shaped<const T>(k, 128, 2),
                                                 shaped<const T>(v, 128, 2),
                                                 {blocks, 0, keys * 128, keys, ranges}};
  e.attention(call, shaped<T>(out, 256, 2), log_sum.data(), workspace);
  append(e, out, r), append(e, log_sum, r);
  return r;
}

template <class E>
results losses(const E& e) {
  using T = kind<E>;
  using W = typename E::numbers::weight;
  results r;
  const index_t hidden = 24, vocabulary = 700, n = 5;
  auto output = numbers_at<W>(e, hidden * vocabulary, 30);
  auto normed = numbers_at<T>(e, hidden * n, 31), dnormed = e.template allocate<T>(hidden * n);
  const std::int32_t targets[] = {3, 69, -1, 0, 7};
  auto loss = e.template allocate<float>(n), again = e.template allocate<float>(n);
  auto dlm_head = numbers_at<float>(e, hidden * vocabulary, 32);
  auto workspace = e.template allocate<T>(e.cross_entropy_workspace(hidden, vocabulary, n));
  exec::cross_entropy_call<typename E::numbers> call{
      shaped<const W>(output, hidden, vocabulary), shaped<const T>(normed, hidden, n), targets, loss.data()};
  e.cross_entropy(call, workspace);
  call.losses = again.data();
  e.cross_entropy_vjp(call, {0.5, shaped<T>(dnormed, hidden, n), dlm_head.data()}, workspace);
  append(e, loss, r), append(e, again, r), append(e, dnormed, r), append(e, dlm_head, r);
  return r;
}

template <class E>
results choices(const E& e) {
  results r;
  const index_t n = 1500;
  auto logits = numbers_at<float>(e, n, 40, 3), workspace = e.template allocate<float>(e.sample_workspace(n));
  auto token = e.template allocate<std::int32_t>(22);
  e.argmax(logits.data(), n, token.data());
  for (std::int64_t step = 0; step < 20; ++step)
    e.sample(logits.data(), n, {step % 2 ? 0.7 : 1.3, step % 3 ? 0.9 : 1.0}, key{5}, step, workspace,
             token.data() + 1 + step);
  append(e, token, r);
  return r;
}

template <class E>
results random_numbers(const E& e) {
  results r;
  auto x = e.template allocate<float>(100001), y = e.template allocate<float>(100001);
  e.signs(key{9}, 4, x.data(), x.size());
  e.normals(key{9}, 5, y.data(), y.size());
  append(e, x, r), append(e, y, r);
  return r;
}

template <class E>
results optimisers(const E& e) {
  results r;
  const index_t n = 3001;
  auto theta = numbers_at<float>(e, n, 50), g = numbers_at<float>(e, n, 51), m = numbers_at<float>(e, n, 52);
  auto v = e.template allocate<float>(n), u = e.template allocate<float>(n),
       ok = e.template allocate<float>(2);
  const float flags[] = {1, 0};
  e.upload(flags, 2, ok.data());
  e.sgd(0.1, {theta.data(), g.data(), n, ok.data()});
  e.momentum({0.1, 0.9, true}, {theta.data(), g.data(), n, ok.data()}, u.data());
  e.adamw({1e-2, 0.9, 0.99, 1e-6, 0.1, 7}, {theta.data(), g.data(), n, ok.data()}, m.data(), v.data());
  e.adamw({1e-2, 0.9, 0.99, 1e-6, 0.1, 8}, {theta.data(), g.data(), n, ok.data() + 1}, m.data(), v.data());
  append(e, theta, r), append(e, m, r), append(e, v, r), append(e, u, r);
  return r;
}

}  // namespace executor_test
