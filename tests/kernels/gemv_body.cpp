#include "unroll/kernels/gemv_body.hpp"

#include "tests/support/catch.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/testing/simt/context.hpp"

using namespace unroll;

namespace {

/// Numbers around 0 of size 1 that a bfloat16 can hold.
template <class U>
std::vector<U> drawn(index_t n, std::uint64_t seed) {
  std::vector<U> x;
  for (index_t i = 0; i < n; ++i)
    x.push_back(U(float(bf16(float(draw_normal({seed}, 0, std::uint64_t(i)))))));
  return x;
}

}  // namespace

TEST_CASE("the product of one column", "[gemv_body]") {
  const index_t m = 7, spare = 8;
  for (const index_t k : {8, 264, 1032, 2304})
    for (const bool add : {false, true}) {
      const index_t stride = k + spare;
      const auto a = drawn<bf16>(stride * m, 1), x = drawn<bf16>(k, 2);
      const auto y0 = drawn<float>(m, 3);
      const auto with = [&](key order) {
        auto y = y0;
        testing::simt::run(
            kernels::gemv_body<float>{
                .a = {a.data(), k, m, stride}, .x = x.data(), .alpha = 0.5f, .add = add, .y = y.data()},
            order);
        return y;
      };
      const auto got = with({1});
      CHECK(got == with({2}));
      for (index_t i = 0; i < m; ++i) {
        double sum = 0, size = 0;
        for (index_t j = 0; j < k; ++j) {
          const double term =
              double(float(a[std::size_t(j + i * stride)])) * double(float(x[std::size_t(j)]));
          sum += term;
          size += std::abs(term);
        }
        const double want = (add ? double(y0[std::size_t(i)]) : 0) + sum / 2;
        CHECK(std::abs(double(got[std::size_t(i)]) - want) < 1e-6 * (1 + size));
      }
    }
}
