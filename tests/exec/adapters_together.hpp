#pragma once

#include <vector>

#include "tests/exec/results.hpp"

// Adapters of one x together and one after another, for the tests of executors.
namespace tests {

/// What adapters of these ranks and scales of one x add, together or by one call each: y, dx and the
/// gradients.
template <class E>
results adapters_of_one_x(const E& e, bool together, const std::vector<index_t>& ranks,
                          const std::vector<double>& scales, index_t in = 24, index_t n = 12) {
  using N = typename E::numbers;
  using A = typename N::activation;
  using P = typename N::parameter;
  using block = typename E::template block<P>;
  const index_t sequences = 3;
  std::vector<block> a, b, da, db;
  std::vector<typename E::template block<A>> y, dy;
  index_t tallest = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const index_t out = 16 + 8 * index_t(i);
    tallest = out;
    a.push_back(placed<P>(e, in * ranks[i], 10 * i + 1));
    b.push_back(placed<P>(e, ranks[i] * out, 10 * i + 2));
    y.push_back(placed<A>(e, out * n, 10 * i + 3));
    dy.push_back(placed<A>(e, out * n, 10 * i + 4));
    da.push_back(placed<P>(e, in * ranks[i], 10 * i + 5));
    db.push_back(placed<P>(e, ranks[i] * out, 10 * i + 6));
  }
  auto x = placed<A>(e, in * n, 7), dx = placed<A>(e, in * n, 8);
  auto workspace = e.template allocate<A>(E::adapters_workspace(in, tallest, n, true));
  const matrix<const A> input = shaped<const A>(x, in, n);
  std::vector<exec::adapted<N>> of;
  std::vector<exec::adapted_adjoint<N>> back;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const index_t out = 16 + 8 * index_t(i), rank = ranks[i];
    const exec::adapter<P> l{shaped<const P>(a[i], in, rank), shaped<const P>(b[i], rank, out), scales[i]};
    of.push_back({l, shaped<A>(y[i], out, n)});
    back.push_back({l, shaped<const A>(dy[i], out, n), {}});
    if (i != 1) back.back().gradient = {shaped<P>(da[i], in, rank), shaped<P>(db[i], rank, out)};
  }
  const view<A> space(workspace);
  if (together) {
    e.adapt_all(std::span<const exec::adapted<N>>(of), input, space);
    e.adapt_all_vjp(std::span<const exec::adapted_adjoint<N>>(back), input, shaped<A>(dx, in, n), sequences,
                    space);
  } else {
    for (const auto& one : of) e.adapt(one.l, input, one.y, space);
    for (const auto& one : back)
      e.adapt_vjp(one.l, {input, one.dy, shaped<A>(dx, in, n), one.gradient, sequences}, space);
  }
  results out = fetched(e, dx);
  for (std::size_t i = 0; i < ranks.size(); ++i)
    for (auto& r : fetched(e, y[i], da[i], db[i])) out.push_back(std::move(r));
  return out;
}

/// Whether they have the same bits both ways: packed, with other scales, with too many ranks, of rank 1,
/// alone.
template <class E>
void check_adapters_together(const E& e) {
  const auto same = [&](const std::vector<index_t>& ranks, const std::vector<double>& scales) {
    CHECK(adapters_of_one_x(e, true, ranks, scales) == adapters_of_one_x(e, false, ranks, scales));
  };
  same({8, 5, 3}, {0.25, 0.25, 0.25});
  same({16, 8}, {3, 3});
  same({8, 5}, {0.25, 0.5});
  same({1, 6}, {2, 2});
  same({7}, {2});
  CHECK(adapters_of_one_x(e, true, {8, 16, 8}, {1, 1, 1}, 200, 70) ==
        adapters_of_one_x(e, false, {8, 16, 8}, {1, 1, 1}, 200, 70));
}

}  // namespace tests
