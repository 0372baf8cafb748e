#include "tests/support/catch.hpp"

#if __has_include(<xtensor/xarray.hpp>) || __has_include(<xtensor/containers/xarray.hpp>)

#include "unroll/core/block.hpp"
#include "unroll/xtensor/cast.hpp"

using namespace unroll;

TEST_CASE("an array looks at the parameters without a copy") {
  parameters<double> theta(6);
  for (index_t i = 0; i < 6; ++i) theta[i] = double(i);
  auto rows = as_xtensor(params<double>(theta), {2, 3});
  CHECK(rows(1, 0) == 3);
  rows(1, 0) = 10;
  CHECK(theta[3] == 10);
  auto flat = as_xtensor(params<const double>(params<double>(theta)));
  CHECK(flat.dimension() == 1);
  CHECK(flat(3) == 10);
  CHECK(flat.data() == theta.data());
  CHECK_THROWS_AS(as_xtensor(params<double>(theta), {2, 2}), unroll::error);
}

TEST_CASE("a named block is a column-major matrix") {
  layout names;
  names.add("b", 2);
  names.add("W", 2, 3);
  parameters<float> theta(names.size());
  for (index_t i = 0; i < theta.size(); ++i) theta[i] = float(i);
  auto w = as_xtensor(params<float>(theta), names, "W");
  REQUIRE(w.shape()[0] == 2);
  REQUIRE(w.shape()[1] == 3);
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j < 3; ++j) CHECK(w(i, j) == float(2 + i + 2 * j));
  CHECK_THROWS_AS(as_xtensor(params<float>(theta), names, "V"), unroll::error);
}

TEST_CASE("arrays are views without a copy, and strided ones are refused") {
  xt::xarray<double> a = xt::xarray<double>::from_shape({3, 2});
  a.fill(1);
  const params<double> v(a);
  CHECK(v.size() == 6);
  CHECK(v.data() == a.data());
  xt::xtensor<double, 1> t = xt::xtensor<double, 1>::from_shape({4});
  CHECK(view<double>(t).data() == t.data());
  auto strided =
      xt::adapt(a.data(), 3, xt::no_ownership(), std::vector<std::size_t>{3}, std::vector<std::ptrdiff_t>{2});
  CHECK_THROWS_AS(view<double>(strided), unroll::error);
}

#endif
