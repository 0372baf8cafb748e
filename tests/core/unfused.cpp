#include "unroll/core/unfused.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"

namespace {

using namespace unroll;

struct cos_sin_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const double* x, double* cosine, double* sine, index_t n) {
    constexpr int N = simd::width<Isa, double>;
    for (index_t i = 0; i + N <= n; i += N) {
      simd::vec<double, N> c, s;
      simd::cos_sin(simd::unfused<N>(simd::load<N>(x + i)), c, s);
      simd::store(c, cosine + i);
      simd::store(s, sine + i);
    }
  }
};
template <class T>
struct root_kernel {
  template <class Isa>
  UNROLL_INLINE static void run(const T* x, T* y) {
    roots<simd::width<Isa, T>>(x, y);
  }
  template <int N>
  UNROLL_INLINE static void roots(const T* x, T* y) {
    for (int i = 0; i < 16; i += N) simd::store(simd::sqrt(simd::load<N>(x + i)), y + i);
    for (int i = 0; i < 16; ++i) CHECK(y[i] == std::sqrt(x[i]));
    if constexpr (N > 1) roots<N / 2>(x, y);
  }
};

}  // namespace

TEST_CASE("cosines and sines of angles are those of the standard library, with the same bits everywhere") {
  FOR_EACH_INSTRUCTION_SET();
  static std::vector<double> first_cosines, first_sines;
  std::vector<double> x;
  for (int i = 0; i < 4096; ++i) x.push_back(std::ldexp(double(i), i % 16 - 8));
  std::vector<double> cosines(x.size()), sines(x.size());
  simd::dispatch<cos_sin_kernel>(static_cast<const double*>(x.data()), cosines.data(), sines.data(),
                                 index_t(x.size()));
  double off = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    off = std::max({off, std::abs(cosines[i] - std::cos(x[i])), std::abs(sines[i] - std::sin(x[i]))});
  CHECK(off < 3e-16);
  if (first_cosines.empty()) first_cosines = cosines, first_sines = sines;
  CHECK(cosines == first_cosines);
  CHECK(sines == first_sines);
}

TEMPLATE_TEST_CASE("square roots in vectors of any width are those of the standard library", "", float,
                   double) {
  FOR_EACH_INSTRUCTION_SET();
  TestType x[16], y[16] = {};
  for (int i = 0; i < 16; ++i) x[i] = TestType(i) * TestType(.37);
  simd::dispatch<root_kernel<TestType>>(static_cast<const TestType*>(x), static_cast<TestType*>(y));
}
