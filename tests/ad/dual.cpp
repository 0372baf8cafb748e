#include "unroll/ad/dual.hpp"

#include "tests/support/catch.hpp"

namespace {

using namespace unroll;

TEST_CASE("a dual number is a value and a tangent, and numbers are constants") {
  const ad::dual<float> zero, two(2), x(3.0f, 0.5f);
  CHECK(zero.value() == 0);
  CHECK(two.tangent() == 0);
  CHECK((two * x).value() == 6);
  CHECK((two * x).tangent() == 1);
  CHECK((2 * x - 1.0).tangent() == 1);
  static_assert(sizeof(ad::dual<float>) == 2 * sizeof(float));
}

TEST_CASE("a dual number of dual numbers would need an arithmetic base, so it does not convert") {
  static_assert(!std::is_constructible_v<ad::dual<double>, ad::dual<float>>);
  static_assert(std::is_convertible_v<int, ad::dual<double>>);
}

}  // namespace
