#pragma once

#include "tests/exec/torch_executor.hpp"
#include "tests/support/catch.hpp"
#include "unroll/exec/host.hpp"

// How tests of testing::simt compare executors.
namespace tests {

using results = std::vector<std::vector<double>>;  // what an operation has written, by its outputs

/// Numbers around 0 of size 1 that a bfloat16 can hold.
template <class U>
std::vector<U> numbers_like(index_t n, std::uint64_t seed, double size = 1) {
  std::vector<U> x;
  for (index_t i = 0; i < n; ++i)
    x.push_back(U(float(bf16(size * draw_normal({seed}, 0, std::uint64_t(i))))));
  return x;
}
/// The same at the place of an executor.
template <class U, class E>
auto placed(const E& e, index_t n, std::uint64_t seed, double size = 1) {
  const std::vector<U> x = numbers_like<U>(n, seed, size);
  auto at = e.template allocate<U>(n);
  e.upload(x.data(), n, at.data());
  return at;
}
template <class U, class E>
auto filled(const E& e, index_t n, double value) {
  auto at = e.template allocate<U>(n);
  e.fill(matrix<U>(at.data(), n, 1), value);
  return at;
}
template <class E, class... Blocks>
results fetched(const E& e, Blocks&... blocks) {
  const auto one = [&e](auto& b) {
    std::vector<std::remove_cvref_t<decltype(*b.data())>> x(static_cast<std::size_t>(b.size()));
    e.download(b.data(), b.size(), x.data());
    e.synchronise();
    return std::vector<double>(x.begin(), x.end());
  };
  return {one(blocks)...};
}
template <class U, class Block>
matrix<U> shaped(Block& b, index_t rows, index_t cols, index_t spare = 0) {
  return {b.data(), rows, cols, rows + spare};
}

inline double distance_of(const std::vector<double>& x, const std::vector<double>& y) {
  REQUIRE(x.size() == y.size());
  double most = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double e = std::abs(x[i] - y[i]);
    most = e <= most ? most : e;  // NaN counts
    size = std::max(size, std::abs(y[i]));
  }
  return most / size;
}

/// testing::simt of these numbers.
template <class N>
using simt_of =
    std::conditional_t<std::is_same_v<N, unroll::numbers<bf16>>, torch_executor, testing::simt::executor<N>>;

/// operation(executor) on simt, in so many other orders the same, against the host in double and PyTorch's
/// rounding. Returns what it has written.
template <class N, class Operation>
results check(Operation&& operation, std::uint64_t orders = 2) {
  const results got = operation(simt_of<N>()), want = operation(exec::host<unroll::numbers<double>>());
  for (std::uint64_t seed = 1; seed <= orders; ++seed) REQUIRE(operation(simt_of<N>(key{seed})) == got);
  REQUIRE(got.size() == want.size());
  results torch;
  constexpr bool rounds = std::is_same_v<typename N::activation, bf16>;
  if constexpr (rounds) torch = operation(torch_executor::pytorch());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("output " << i);
    CHECK(distance_of(got[i], want[i]) <=
          (rounds ? std::max(1e-5, 2 * distance_of(torch[i], want[i])) : 1e-5));
  }
  return got;
}

using both_kinds = std::tuple<unroll::numbers<float>, unroll::numbers<bf16>>;

}  // namespace tests
