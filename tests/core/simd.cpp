#include "unroll/core/simd.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/core/linalg.hpp"

using namespace unroll;

TEMPLATE_TEST_CASE("the largest element is found wherever it lies", "[simd]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  for (index_t n = 0; n < 70; ++n)
    for (index_t at = -1; at < n; ++at) {
      std::vector<TestType> x(std::size_t(n), TestType(-3));
      for (index_t i = 0; i < n; i += 2) x[std::size_t(i)] = -4;
      if (at >= 0) x[std::size_t(at)] = -1;
      CHECK(simd::largest(x.data(), n, TestType(-2)) == (at < 0 ? -2 : -1));
    }
}

TEMPLATE_TEST_CASE(
    "exp is right up to the largest number, and 0 from sqrt(2) times the smallest normal one on", "[simd]",
    float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  constexpr bool single = sizeof(T) == 4;
  const auto exp = [](double x) {
    const T in = T(x);
    T out = -1;
    linalg::exp(&in, &out, 1);
    return out;
  };
  for (const double x : {single ? -86.985 : -708.045, single ? 88.72 : 709.78}) {
    const T want = T(std::exp(double(T(x))));
    CHECK((std::isnormal(want) && std::isnormal(exp(x))));
    CHECK(std::abs(exp(x) / want - 1) <= 4 * std::numeric_limits<T>::epsilon());
  }
  for (const double x : {single ? -86.995 : -708.055, single ? -87.0 : -708.3, single ? -88.0 : -710.0, -1e4})
    CHECK(exp(x) == 0);
  CHECK(exp(single ? 88.73 : 709.79) == std::numeric_limits<T>::infinity());
}
