#include "unroll/core/view.hpp"

#include <array>
#include <concepts>
#include <span>
#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;

TEST_CASE("a view reads and writes the elements of a vector") {
  std::vector<double> x{1, 2, 3, 4};
  const view<double> v = x;
  CHECK(v.data() == x.data());
  CHECK(v.size() == 4);
  v[1] = 7;
  CHECK(x[1] == 7);
  double sum = 0;
  for (const double e : v) sum += e;
  CHECK(sum == 15);
}

TEST_CASE("part of a view starts at its offset") {
  std::vector<float> x{0, 1, 2, 3, 4};
  const view<float> v = x;
  const auto p = v.part(2, 2);
  CHECK(p.size() == 2);
  CHECK(p.data() == x.data() + 2);
  CHECK(v.part(5, 0).empty());
}

TEST_CASE("a default view is empty") {
  const view<const double> v;
  CHECK(v.empty());
  CHECK(v.begin() == v.end());
}

TEST_CASE("arrays, spans and constant vectors convert") {
  const std::array<double, 2> a{1, 2};
  const std::vector<double> x{3, 4, 5};
  const view<const double> from_array = a, from_vector = x, from_span = std::span<const double>(x);
  CHECK(from_array[1] == 2);
  CHECK(from_vector.size() == 3);
  CHECK(from_span.data() == x.data());
  double numbers[] = {6, 7};
  const view<const double> shown = numbers;
  const view<double> written = numbers;
  written[1] = 8;
  CHECK(shown.size() == 2);
  CHECK(shown[1] == 8);
}

TEST_CASE("the type of a view keeps spaces, constness and element types apart") {
  STATIC_REQUIRE(std::convertible_to<params<double>, params<const double>>);
  STATIC_REQUIRE(!std::convertible_to<params<const double>, params<double>>);
  STATIC_REQUIRE(!std::convertible_to<params<double>, state<double>>);
  STATIC_REQUIRE(!std::convertible_to<params<double>, dparams<const double>>);
  STATIC_REQUIRE(!std::convertible_to<view<float>, view<const double>>);
  STATIC_REQUIRE(!std::convertible_to<const std::vector<double>&, view<double>>);
  STATIC_REQUIRE(!std::convertible_to<std::vector<float>&, view<const double>>);
}

namespace {

// A container whose rows are `stride` apart, described as Eigen describes its maps.
struct strided {
  std::vector<double> x;
  index_t rows, cols, stride;
  const double* data() const { return x.data(); }
  std::size_t size() const { return std::size_t(rows * cols); }
  index_t innerStride() const { return 1; }
  index_t outerStride() const { return stride; }
  index_t innerSize() const { return rows; }
  index_t outerSize() const { return cols; }
};

}  // namespace

TEST_CASE("a strided container is refused at run time, a dense one of the same type is not") {
  const strided dense{std::vector<double>(6), 2, 3, 2}, gaps{std::vector<double>(9), 2, 3, 3},
      one_column{std::vector<double>(3), 2, 1, 3};
  CHECK(view<const double>(dense).size() == 6);
  CHECK(view<const double>(one_column).size() == 2);
  CHECK_THROWS_AS(view<const double>(gaps), error);
}
