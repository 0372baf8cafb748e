// Every operation of the kernel bodies against the host's in double: in float to 1e-5, largest error over
// largest magnitude; in bfloat16 to twice the error of what PyTorch's operations compute. In any order of
// threads the same bits.
#include "unroll/testing/simt/executor.hpp"

#include "tests/exec/adapters_together.hpp"
#include "tests/exec/results.hpp"
#include "tests/support/catch.hpp"

using namespace unroll;
using namespace tests;
namespace simt = unroll::testing::simt;

namespace {

template <class E>
using A = typename E::numbers::activation;
template <class E>
using W = typename E::numbers::weight;
template <class E>
using P = typename E::numbers::parameter;

}  // namespace

using all_kinds = std::tuple<numbers<float>, numbers<bf16>, numbers<float, bf16>>;

TEMPLATE_LIST_TEST_CASE("simt: numbers move", "[simt]", both_kinds) {
  check<TestType>([]<class E>(const E& e) {
    const index_t rows = 1100;
    auto x = placed<P<E>>(e, rows * 5, 1);
    auto y = e.template allocate<A<E>>(rows * 5), g = e.template allocate<A<E>>(rows * 4);
    e.copy(shaped<const P<E>>(x, rows, 5), shaped<A<E>>(y, rows, 5));
    e.copy(matrix<const P<E>>(x.data() + 2 * rows, rows, 3),
           shaped<P<E>>(x, rows, 3));  // two columns to the front
    e.fill(matrix<A<E>>(y.data() + 2, 7, 2, rows), 1.5);
    const std::int32_t ids[] = {3, 0, 3, 4};
    e.gather_columns(shaped<const A<E>>(y, rows, 5), std::span<const std::int32_t>(ids),
                     shaped<A<E>>(g, rows, 4));
    auto sums = filled<P<E>>(e, rows * 5, 1);
    e.scatter_add_columns(shaped<const A<E>>(g, rows, 4), std::span<const std::int32_t>(ids),
                          shaped<P<E>>(sums, rows, 5));
    e.sum_columns(shaped<const A<E>>(y, rows, 5), sums.data());
    return fetched(e, x, y, g, sums);
  });
}

TEST_CASE("simt: vectors and their sums", "[simt]") {
  check<numbers<float>>([]<class E>(const E& e) {
    const index_t n = 9001;
    auto x = placed<P<E>>(e, n, 3), y = placed<P<E>>(e, n, 4);
    auto sum = e.template allocate<P<E>>(1), dot = sum, norm = sum, finite = e.template allocate<P<E>>(5);
    e.sum(x.data(), n, sum.data());
    e.dot(x.data(), y.data(), n, dot.data());
    e.norm(x.data(), n, norm.data());
    e.axpy(0.3, x.data(), y.data(), n);
    e.scale(-2, y.data(), n);
    e.all_finite(x.data(), n, 2, finite.data());
    const double large = std::is_same_v<P<E>, float> ? 3e30 : 3e200;
    e.fill(matrix<P<E>>(x.data() + 5000, 1, 1), large);
    e.all_finite(x.data(), n, 1, finite.data() + 1);
    e.all_finite(x.data(), n, 2, finite.data() + 2);
    e.fill(matrix<P<E>>(x.data() + 8999, 1, 1), NAN);
    e.all_finite(x.data(), n, 1, finite.data() + 3);
    const results r = fetched(e, finite);
    CHECK(r[0] == std::vector<double>{1, 1, 0, 0, 0});
    return fetched(e, sum, dot, norm, y);
  });
}

TEMPLATE_LIST_TEST_CASE("simt: products", "[simt]", all_kinds) {
  // whole tiles, 16 bytes at a time, and ragged ones
  struct sizes {
    index_t m, n, k, spare;
  };
  for (const auto& [m, n, k, spare] : {sizes{72, 65, 64, 0}, sizes{33, 7, 45, 3}})
    for (const op oa : {op::none, op::transpose})
      for (const op ob : {op::none, op::transpose})
        check<TestType>([&, m = m, n = n, k = k, spare = spare]<class E>(const E& e) {
          auto a = placed<W<E>>(e, 5000, 5);
          auto b = placed<A<E>>(e, 5000, 6), c = placed<A<E>>(e, m * n, 7);
          auto wide = placed<P<E>>(e, m * n, 8);
          const auto with = [spare = spare](op o, auto& block, index_t rows, index_t cols) {
            using U = std::remove_cvref_t<decltype(*block.data())>;
            return o == op::none ? shaped<const U>(block, rows, cols, spare)
                                 : shaped<const U>(block, cols, rows, spare);
          };
          e.gemm(oa, with(oa, a, m, k), ob, with(ob, b, k, n), oa == ob, shaped<A<E>>(c, m, n));
          e.gemm(oa, with(oa, a, m, k), ob, with(ob, b, k, n), oa != ob, shaped<P<E>>(wide, m, n));
          return fetched(e, c, wide);
        });
}

TEMPLATE_LIST_TEST_CASE("simt: adapters", "[simt]", both_kinds) {
  check<TestType>([]<class E>(const E& e) {
    const index_t in = 24, out = 40, rank = 130, n = 12;
    auto a = placed<P<E>>(e, in * rank, 8), b = placed<P<E>>(e, rank * out, 9);
    auto x = placed<A<E>>(e, in * n, 10), y = placed<A<E>>(e, out * n, 11), dy = y;
    auto da = filled<P<E>>(e, in * rank, 0.5), db = filled<P<E>>(e, rank * out, 0.5);
    auto dx = filled<A<E>>(e, in * n, 0.25);
    auto workspace = e.template allocate<A<E>>(e.adapter_workspace(in + out, n, true));
    const exec::adapter<P<E>> l{shaped<const P<E>>(a, in, rank), shaped<const P<E>>(b, rank, out), 0.125};
    e.adapt(l, shaped<const A<E>>(x, in, n), shaped<A<E>>(y, out, n), view<A<E>>(workspace));
    e.adapt_vjp(l,
                {shaped<const A<E>>(x, in, n),
                 shaped<const A<E>>(dy, out, n),
                 shaped<A<E>>(dx, in, n),
                 {shaped<P<E>>(da, in, rank), shaped<P<E>>(db, rank, out)},
                 2},
                view<A<E>>(workspace));
    return fetched(e, y, dx, da, db);
  });
}

TEMPLATE_LIST_TEST_CASE("simt: adapters of one x are one product, with the bits of one by one", "[simt]",
                        both_kinds) {
  const simt_of<TestType> e;
  check_adapters_together(e);
  // more ranks than are packed, together and in one of them
  for (const std::vector<index_t>& many : {std::vector<index_t>{200, 70}, std::vector<index_t>{140, 8}})
    CHECK(adapters_of_one_x(e, true, many, {1, 1}) == adapters_of_one_x(e, false, many, {1, 1}));
}

TEST_CASE("exec::host: adapters of one x are one product, with the bits of one by one") {
  check_adapters_together(exec::host<unroll::numbers<float>>());
  check_adapters_together(exec::host<unroll::numbers<double>>());
  check_adapters_together(exec::host<unroll::numbers<float, bf16>>());
}

TEMPLATE_LIST_TEST_CASE("simt: rmsnorm and its vjp", "[simt]", all_kinds) {
  check<TestType>([]<class E>(const E& e) {
    const index_t rows = 300, cols = 3;
    auto x = placed<A<E>>(e, rows * cols, 12), dy = placed<A<E>>(e, rows * cols, 13), y = x;
    auto gain = placed<W<E>>(e, rows, 14);
    auto dx = placed<A<E>>(e, rows * cols, 15);
    auto rstd = e.template allocate<P<E>>(cols), dgain = filled<P<E>>(e, rows, 2);
    e.rmsnorm(shaped<const A<E>>(y, rows, cols), gain.data(), 1e-3, shaped<A<E>>(y, rows, cols), rstd.data());
    e.rmsnorm_vjp(shaped<const A<E>>(x, rows, cols), gain.data(), rstd.data(),
                  shaped<const A<E>>(dy, rows, cols), shaped<A<E>>(dx, rows, cols), dgain.data());
    return fetched(e, y, rstd, dx, dgain);
  });
}

TEMPLATE_LIST_TEST_CASE("simt: rotary positions turn and turn back", "[simt]", both_kinds) {
  for (const bool neighbours : {false, true})
    for (const auto way : {kernels::turn::forward, kernels::turn::back})
      check<TestType>([&]<class E>(const E& e) {
        const index_t head = 8, positions[] = {4, 0, 2};
        std::vector<P<E>> angles;
        for (index_t i = 0; i < 5 * head; ++i) {
          const double angle =
              double(i / head) * std::pow(100.0, -2.0 * double(i % (head / 2)) / double(head));
          angles.push_back(P<E>(i % head < head / 2 ? std::cos(angle) : std::sin(angle)));
        }
        auto table = e.template allocate<P<E>>(index_t(angles.size()));
        e.upload(angles.data(), table.size(), table.data());
        auto x = placed<A<E>>(e, 3 * head * 6, 16);
        e.rotary(way, kernels::rotary_table<P<E>>{table.data(), head, 5, neighbours},
                 std::span<const index_t>(positions), shaped<A<E>>(x, 3 * head, 6));
        return fetched(e, x);
      });
}

TEMPLATE_LIST_TEST_CASE("simt: swiglu and its vjp", "[simt]", both_kinds) {
  check<TestType>([]<class E>(const E& e) {
    const index_t m = 40, n = 5;
    auto gated = placed<A<E>>(e, 2 * m * n, 17, 3), dout = placed<A<E>>(e, m * n, 18);
    auto out = e.template allocate<A<E>>(m * n), d = e.template allocate<A<E>>(2 * m * n);
    e.swiglu(shaped<const A<E>>(gated, 2 * m, n), shaped<A<E>>(out, m, n));
    const matrix<A<E>> half = rows_of(shaped<A<E>>(d, 2 * m, n), m, m);  // dout is the second half of dgated
    e.copy(shaped<const A<E>>(dout, m, n), half);
    e.swiglu_vjp(shaped<const A<E>>(gated, 2 * m, n), matrix<const A<E>>(half), shaped<A<E>>(d, 2 * m, n));
    return fetched(e, out, d);
  });
}

TEMPLATE_LIST_TEST_CASE("simt: attention and its vjp, a prefix, both masks", "[simt]", both_kinds) {
  // two sequences behind two blocks of three keys; the second sees one key of the second block only
  const std::array<kernels::prefix_range, 2> ranges{{{0, 2, 3}, {1, 1, 1}}};
  for (const bool in_ranges : {true, false})
    for (const kernels::attention_mask mask :
         {kernels::attention_mask{}, kernels::attention_mask{6, 4, 0}, kernels::attention_mask{-1, 0, 5},
          kernels::attention_mask{6, 4, 4}})
      check<TestType>([&]<class E>(const E& e) {
        const index_t tokens = mask.ordinals > 0 ? 8 : 7, n = 2 * (tokens - mask.first);
        auto q = placed<A<E>>(e, n * 40, 20), k = placed<A<E>>(e, 2 * tokens * 20, 21);
        auto v = placed<A<E>>(e, 2 * tokens * 20, 22), dout = placed<A<E>>(e, n * 40, 23);
        auto memory = placed<A<E>>(e, 240, 24), out = q, dk = k, dv = v;
        auto dmemory = filled<P<E>>(e, 240, 1), log_sum = e.template allocate<P<E>>(4 * n);
        const A<E>* const blocks[] = {memory.data(), memory.data() + 120};
        P<E>* const dbefore[] = {dmemory.data(), dmemory.data() + 120};
        exec::attention_call<typename E::numbers> call{{4, 2, 10},
                                                       mask,
                                                       2,
                                                       shaped<const A<E>>(q, 40, n),
                                                       shaped<const A<E>>(k, 20, 2 * tokens),
                                                       shaped<const A<E>>(v, 20, 2 * tokens),
                                                       {blocks, 0, 60, 3}};
        if (in_ranges) call.before.ranges = ranges;
        auto workspace =
            e.template allocate<A<E>>(E::attention_workspace(call.shape, {2, tokens, 2, 3, true}));
        e.attention(call, shaped<A<E>>(out, 40, n), log_sum.data(), view<A<E>>(workspace));
        const results forward = fetched(e, out, log_sum);
        e.attention_vjp(call,
                        {shaped<const A<E>>(out, 40, n), log_sum.data(), shaped<const A<E>>(dout, 40, n),
                         shaped<A<E>>(q, 40, n), shaped<A<E>>(dk, 20, 2 * tokens),
                         shaped<A<E>>(dv, 20, 2 * tokens), dbefore},
                        view<A<E>>(workspace));
        results all = fetched(e, q, dk, dv, dmemory);  // dq in the place of q
        all.insert(all.end(), forward.begin(), forward.end());
        return all;
      });
}

TEST_CASE("simt: pairs of attention are not left out", "[simt]") {
  using E = testing::simt::executor<numbers<float>>;
  exec::attention_adjoint<typename E::numbers> adjoint;
  adjoint.cut.pairs = 4;
  CHECK_THROWS_WITH(E{}.attention_vjp({}, adjoint, {}), Catch::Matchers::ContainsSubstring("cut"));
}

TEMPLATE_LIST_TEST_CASE("simt: attention of one token a sequence", "[simt]", both_kinds) {
  const std::array<kernels::prefix_range, 2> ranges{{{0, 2, 150}, {1, 1, 3}}};
  for (const bool in_ranges : {true, false})
    check<TestType>([&]<class E>(const E& e) {
      const index_t keys = 150, block = 2 * keys * 128;
      auto q = placed<A<E>>(e, 2 * 256, 60), k = placed<A<E>>(e, 2 * 128, 61),
           v = placed<A<E>>(e, 2 * 128, 62);
      auto memory = placed<A<E>>(e, 2 * block, 63), out = q;
      auto log_sum = e.template allocate<P<E>>(8);
      const A<E>* const blocks[] = {memory.data(), memory.data() + block};
      exec::attention_call<typename E::numbers> call{{4, 2, 64},
                                                     {},
                                                     2,
                                                     shaped<const A<E>>(q, 256, 2),
                                                     shaped<const A<E>>(k, 128, 2),
                                                     shaped<const A<E>>(v, 128, 2),
                                                     {blocks, 0, keys * 128, keys}};
      if (in_ranges) call.before.ranges = ranges;
      auto workspace = e.template allocate<A<E>>(E::attention_workspace(call.shape, {2, 1, 2, keys, false}));
      e.attention(call, shaped<A<E>>(out, 256, 2), log_sum.data(), view<A<E>>(workspace));
      return fetched(e, out, log_sum);
    });
}

TEMPLATE_LIST_TEST_CASE("simt: cross entropy over the output matrix and its vjp", "[simt]", all_kinds) {
  for (const double size : {1.0, 100.0})  // logits of a few, and of thousands
    check<TestType>([size]<class E>(const E& e) {
      const index_t hidden = 24, vocabulary = 70, n = 5;
      const std::int32_t targets[] = {3, 69, -1, 0, 7};
      auto output = placed<W<E>>(e, hidden * vocabulary, 30, size);
      auto normed = placed<A<E>>(e, hidden * n, 31), dnormed = normed;
      auto losses = filled<P<E>>(e, n, 9), again = losses,
           dlm_head = filled<P<E>>(e, hidden * vocabulary, 0.25);
      auto workspace = e.template allocate<A<E>>(E::cross_entropy_workspace(hidden, vocabulary, n));
      exec::cross_entropy_call<typename E::numbers> call{shaped<const W<E>>(output, hidden, vocabulary),
                                                         shaped<const A<E>>(normed, hidden, n), targets,
                                                         losses.data()};
      e.cross_entropy(call, view<A<E>>(workspace));
      call.losses = again.data();
      e.cross_entropy_vjp(call, {0.5, shaped<A<E>>(dnormed, hidden, n), dlm_head.data()},
                          view<A<E>>(workspace));
      return fetched(e, losses, again, dnormed, dlm_head);
    });
}

TEST_CASE("simt: tokens are chosen as the host chooses them", "[simt]") {
  using N = numbers<float>;
  const index_t n = 1500;
  auto logits = numbers_like<float>(n, 40, 3);
  for (std::size_t i = 0; i < 40; ++i) logits[37 * i] = logits[11];  // ties
  const auto choose = [&](const auto& e, const std::vector<float>& from, exec::sampling how,
                          std::int64_t step) {
    auto x = e.template allocate<float>(n), workspace = e.template allocate<float>(e.sample_workspace(n));
    auto token = e.template allocate<std::int32_t>(1);
    e.upload(from.data(), n, x.data());
    e.sample(x.data(), n, how, key{5}, step, view<float>(workspace), token.data());
    return exec::value(e, token.data());
  };
  const exec::host<N> host;
  int same = 0, others = 0;
  for (const exec::sampling how : {exec::sampling{1, 1}, {0.7, 0.9}, {2, 0.3}, {1.3, 1e-6}, {0, 1}})
    for (std::int64_t step = 0; step < 10; ++step) {
      const auto token = choose(simt::executor<N>(key{std::uint64_t(step)}), logits, how, step);
      same += token == choose(host, logits, how, step);
      others += token != choose(host, logits, how, 0);
    }
  CHECK(same == 50);
  CHECK(others > 10);
  // all equally probable: in the order of their ids
  const std::vector<float> flat(std::size_t(n), 0.5f);
  CHECK(choose(simt::executor<N>(), flat, {1, 0.5}, 3) == std::int32_t(draw_uniform({5}, 3) * 750));
  logits[700] = logits[800] = 50;
  CHECK(choose(simt::executor<N>(key{1}), logits, {0, 1}, 0) == 700);
}

TEST_CASE("simt: random numbers are the chooser's", "[simt]") {
  std::vector<double> drawn(777);
  draw_signs({9}, 4, view<double>(drawn));
  results signs;
  check<numbers<float>>([&]<class E>(const E& e) {
    auto x = e.template allocate<P<E>>(777), z = x;
    e.signs({9}, 4, x.data(), 777);
    e.normals({9}, 4, z.data(), 777);
    signs = fetched(e, x);
    return fetched(e, x, z);
  });
  CHECK(signs[0] == drawn);
}

TEST_CASE("simt: optimisers step as the host's", "[simt]") {
  for (const bool stops : {false, true})
    check<numbers<float>>([&]<class E>(const E& e) {
      const index_t n = 1030;
      auto theta = placed<P<E>>(e, n, 50), g = placed<P<E>>(e, n, 51), m = placed<P<E>>(e, n, 52);
      auto v = filled<P<E>>(e, n, 0.5), norm = filled<P<E>>(e, 1, 0), ok = filled<P<E>>(e, 1, stops ? 0 : 1);
      const auto before = theta;
      e.sgd(0.1, {theta.data(), g.data(), n, ok.data()});
      e.momentum({0.1, 0.9, false}, {theta.data(), g.data(), n, ok.data()}, m.data());
      e.momentum({0.1, 0.9, true}, {theta.data(), g.data(), n, ok.data()}, m.data());
      e.adamw({1e-2, 0.9, 0.99, 0.1, 0.1, 7}, {theta.data(), g.data(), n, ok.data()}, m.data(), v.data());
      CHECK((fetched(e, theta) == fetched(e, before)) == stops);
      e.sgd(0.1, {theta.data(), g.data(), n, nullptr});
      e.clip(1e9, g.data(), n, norm.data());
      const results unclipped = fetched(e, norm, g);
      e.clip(2, g.data(), n, norm.data());
      auto large = filled<P<E>>(e, 2, INFINITY);
      const results whole = fetched(e, large);
      e.clip(2, large.data(), 2, filled<P<E>>(e, 1, 0).data());
      CHECK(fetched(e, large) == whole);
      e.clamp(0.03, g.data(), n);
      e.clamp(1, large.data(), 2);
      CHECK(fetched(e, large) == whole);
      results all = fetched(e, theta, m, v, g, norm);
      all.insert(all.end(), unclipped.begin(), unclipped.end());
      return all;
    });
}

TEST_CASE("simt: blocks are zeroed, copied and moved", "[simt]") {
  const simt::executor<numbers<float>> e;
  auto a = e.allocate<float>(5);
  CHECK(fetched(e, a)[0] == std::vector<double>(5, 0.0));
  const std::vector<float> x{1, 2, 3, 4, 5};
  e.upload(x.data(), 5, a.data());
  const auto b = a;
  e.fill(matrix<float>(a.data(), 5, 1), 7);
  auto c = std::move(a);
  CHECK(fetched(e, b)[0] == std::vector<double>{1, 2, 3, 4, 5});
  CHECK(fetched(e, c)[0] == std::vector<double>(5, 7.0));
  CHECK(exec::value(e, c.data() + 2) == 7);
}
