#include "unroll/testing/simt/context.hpp"

#include <cmath>

#include "tests/support/catch.hpp"

using namespace unroll;
using namespace unroll::kernels;
namespace simt = unroll::testing::simt;

namespace {

// y[block] = the sum of 128 numbers: a tree in shared memory.
struct tree_body {
  const float* x;
  float* y;
  bool barrier_left_out = false;

  static constexpr int threads = 128;
  index_t blocks() const { return 3; }
  index_t shared_bytes() const { return shared_size<float>(threads); }
  template <class Context>
  void operator()(Context& c) const {
    float* s = c.template shared<float>(threads);
    const float* from = x + c.block() * threads;
    if (barrier_left_out)
      c.phase([&](int t) {
        s[t] = from[t];
        if (t < 64) s[t] += s[t + 64];
      });
    else {
      c.phase([&](int t) { s[t] = from[t]; });
      c.phase([&](int t) {
        if (t < 64) s[t] += s[t + 64];
      });
    }
    for (int half = 32; half > 0; half /= 2)
      c.phase([&](int t) {
        if (t < half) s[t] += s[t + half];
      });
    c.phase([&](int t) {
      if (t == 0) y[c.block()] = s[0];
    });
  }
};

// y = 2 x, 64 numbers at a time through two stages of asynchronous copies.
struct pipeline_body {
  const float* x;
  float* y;
  int groups;
  bool waits_too_late_by_one = false;

  static constexpr int threads = 32;
  index_t blocks() const { return 1; }
  index_t shared_bytes() const { return shared_size<float>(2 * 64); }
  template <class Context>
  void operator()(Context& c) const {
    float* s = c.template shared<float>(2 * 64);
    const auto fetch = [&](int i) {
      if (i < groups)
        c.phase([&](int t) {
          if (t < 16) c.copy_async(s + i % 2 * 64 + 4 * t, x + 64 * i + 4 * t, 16, 4 * t < 60);
        });
      c.commit();
    };
    fetch(0);
    for (int i = 0; i < groups; ++i) {
      fetch(i + 1);
      if (waits_too_late_by_one)
        c.template wait<2>();
      else
        c.template wait<1>();
      c.phase([&](int t) {
        for (int j = t; j < 64; j += threads) y[64 * i + j] = 2 * s[i % 2 * 64 + j];
      });
    }
    c.template wait<0>();
  }
};

// d = c + a b of a 16 x 16, b 16 x 8, both in column-major global memory.
struct product_body {
  const bf16 *a, *b;  // a: 16 rows; b: 16 rows
  float* d;
  bool a_not_transposed = false;

  static constexpr int threads = 32;
  index_t blocks() const { return 1; }
  index_t shared_bytes() const { return shared_size<bf16>(16 * 16) + shared_size<bf16>(16 * 8); }
  template <class Context>
  void operator()(Context& c) const {
    bf16* as = c.template shared<bf16>(16 * 16);
    bf16* bs = c.template shared<bf16>(16 * 8);
    c.phase([&](int t) {
      for (int i = t; i < 256; i += threads) as[i] = a[i];
      for (int i = t; i < 128; i += threads) bs[i] = b[i];
    });
    c.warps([&](const auto& w) {
      auto fa = w.template fragment<word, 4>();
      auto fb = w.template fragment<word, 2>();
      auto sum = w.template fragment<float, 4>();
      // row r of matrix m, which is column 8 (m / 2) + r from row 8 (m % 2) on
      const auto address = [&](int l) { return as + (l % 8 + l / 16 * 8) * 16 + l / 8 % 2 * 8; };
      if (a_not_transposed)
        w.ldmatrix_x4(fa, address);
      else
        w.ldmatrix_x4_transposed(fa, address);
      w.ldmatrix_x2(fb, [&](int l) { return bs + l % 8 * 16 + l / 8 % 2 * 8; });
      w.lanes([&](int l) {
        for (int i = 0; i < 4; ++i) sum(l, i) = d[l / 4 + i / 2 * 8 + (l % 4 * 2 + i % 2) * 16];
      });
      w.mma(sum, fa, fb);
      w.lanes([&](int l) {
        for (int i = 0; i < 4; ++i) d[l / 4 + i / 2 * 8 + (l % 4 * 2 + i % 2) * 16] = sum(l, i);
      });
    });
  }
};

struct greedy {
  static constexpr int threads = 32;
  index_t blocks() const { return 1; }
  index_t shared_bytes() const { return 128; }
  void operator()(simt::context& c) const { c.shared<float>(33); }
};

struct impatient {
  const float* x;
  static constexpr int threads = 32;
  index_t blocks() const { return 1; }
  index_t shared_bytes() const { return 128; }
  void operator()(simt::context& c) const { c.copy_async(c.shared<float>(32), x, 4, true); }
};

std::vector<float> numbers(int n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) x[std::size_t(i)] = std::sin(float(3 * i + 1));
  return x;
}

}  // namespace

TEST_CASE("phases in any order of threads give the same bits, a missing barrier does not", "[simt]") {
  const auto x = numbers(3 * 128);
  std::vector<float> y(3), again(3), wrong(3);
  simt::run(tree_body{x.data(), y.data()});
  double sum = 0;
  for (int i = 0; i < 128; ++i) sum += double(x[std::size_t(i)]);
  CHECK(std::abs(double(y[0]) - sum) < 1e-5);
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    simt::run(tree_body{x.data(), again.data()}, {seed});
    CHECK(again == y);
    simt::run(tree_body{x.data(), wrong.data(), true}, {seed});
    CHECK(std::isnan(wrong[0]));  // read what no thread had written
  }
}

TEST_CASE("asynchronous copies arrive at their wait and not before", "[simt]") {
  const auto x = numbers(5 * 64);
  std::vector<float> y(x.size());
  simt::run(pipeline_body{x.data(), y.data(), 5}, {7});
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(y[i] == (i % 64 < 60 ? 2 * x[i] : 0.f));
  simt::run(pipeline_body{x.data(), y.data(), 5, true}, {7});
  CHECK(std::isnan(y[0]));
}

TEST_CASE("mma multiplies what ldmatrix loads", "[simt]") {
  std::vector<bf16> a(256), b(128);
  std::vector<float> d(128);
  for (int i = 0; i < 256; ++i) a[std::size_t(i)] = bf16(float(i % 13 - 6));
  for (int i = 0; i < 128; ++i) b[std::size_t(i)] = bf16(float(i % 11 - 5));
  for (int i = 0; i < 128; ++i) d[std::size_t(i)] = float(i);
  auto expected = d;
  for (std::size_t row = 0; row < 16; ++row)
    for (std::size_t col = 0; col < 8; ++col)
      for (std::size_t k = 0; k < 16; ++k)
        expected[row + 16 * col] += float(a[row + 16 * k]) * float(b[k + 16 * col]);
  auto wrong = d;
  simt::run(product_body{a.data(), b.data(), d.data()}, {3});
  CHECK(d == expected);  // integers: exact
  simt::run(product_body{a.data(), b.data(), wrong.data(), true}, {3});
  CHECK(wrong != expected);
}

TEST_CASE("sums of the tensor core are cut, not rounded, below the largest exponent", "[simt]") {
  const auto sum = [](float c, std::initializer_list<std::pair<float, float>> products) {
    simt::tensor_core_sum s;
    s.add(c);
    for (const auto& [a, b] : products) s.add_product(bf16(a), bf16(b));
    return s.result();
  };
  CHECK(sum(0, {}) == 0);
  CHECK(sum(3, {{2, 5}, {-1, 4}}) == 9);
  // 1 + 3/4 ulp is rounded up in float arithmetic, cut here
  CHECK(sum(1, {{0x1.8p-12f, 0x1p-12f}}) == 1);
  CHECK(sum(-1, {{-0x1.8p-12f, 0x1p-12f}}) == -1);
  // two halves of an ulp are within the 25 places and add up
  CHECK(sum(1, {{0x1p-12f, 0x1p-12f}, {0x1p-12f, 0x1p-12f}}) == 1 + 0x1p-23f);
  // four eighths are below them: each is cut to 0
  CHECK(sum(1, {{0x1p-13f, 0x1p-13f}, {0x1p-13f, 0x1p-13f}, {0x1p-13f, 0x1p-13f}, {0x1p-13f, 0x1p-13f}}) ==
        1);
  // what is below the largest is lost although the largest cancels
  CHECK(sum(0, {{0x1p20f, 0x1p20f}, {-0x1p20f, 0x1p20f}, {1, 1}}) == 0);
  CHECK(sum(0x1p-149f, {{0x1p-100f, 0x1p-49f}}) == 0x1p-148f);  // subnormal numbers are kept
  CHECK(std::isinf(sum(INFINITY, {{1, 1}})));
  CHECK(std::isnan(sum(INFINITY, {{-INFINITY, 1}})));
  CHECK(std::isinf(sum(0x1.fffffep127f, {{0x1p64f, 0x1p63f}})));
}

TEST_CASE("a body that takes too much shared memory or leaves a copy on its way is refused", "[simt]") {
  CHECK_THROWS_WITH(simt::run(greedy{}), Catch::Matchers::ContainsSubstring("has 128 bytes, used 256"));
  const float x = 1;
  CHECK_THROWS_WITH(simt::run(impatient{&x}), Catch::Matchers::ContainsSubstring("was never waited for"));
}
