#include <Eigen/Core>
#include <array>
#include <span>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/core/block.hpp"
#include "unroll/core/view.hpp"
#if __has_include(<xtensor/xarray.hpp>)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#pragma GCC diagnostic pop
#define UNROLL_TEST_XTENSOR 1
#endif

// What a user passes where a view is wanted: contiguous containers convert without a copy, strided ones
// throw.
namespace {

using unroll::index_t;

// The address and size of the argument as a view for reading, as every function of the library takes it.
std::pair<const double*, index_t> read(unroll::params<const double> v) { return {v.data(), v.size()}; }
std::pair<double*, index_t> write(unroll::dparams<double> v) { return {v.data(), v.size()}; }

template <class C>
bool converts(C& container, const double* data, index_t size) {
  const C& constant = container;
  return read(container) == std::pair(data, size) && read(constant) == std::pair(data, size) &&
         write(container) == std::pair(const_cast<double*>(data), size);
}

}  // namespace

TEST_CASE("standard containers convert without a copy") {
  std::vector<double> v(5);
  CHECK(converts(v, v.data(), 5));
  std::array<double, 3> a{};
  CHECK(converts(a, a.data(), 3));
  std::span<double> s(v.data() + 1, 2);
  CHECK(converts(s, v.data() + 1, 2));
  const std::span<const double> constant(v);
  CHECK(read(constant) == std::pair<const double*, index_t>(v.data(), 5));
  CHECK(read(std::vector<double>{1, 2, 3}).second == 3);
  CHECK(read({}).second == 0);
}

TEST_CASE("blocks of the same space convert") {
  unroll::parameters<double> theta(4);
  unroll::gradient<double> g(4);
  CHECK(read(theta).first == theta.data());
  CHECK(write(g).first == g.data());
  static_assert(!std::convertible_to<unroll::gradient<double>&, unroll::params<const double>>);
  static_assert(!std::convertible_to<unroll::parameters<double>&, unroll::state<double>>);
}

TEST_CASE("types that cannot be written or hold other numbers do not convert") {
  static_assert(!std::convertible_to<const std::vector<double>&, unroll::dparams<double>>);
  static_assert(!std::convertible_to<std::vector<float>&, unroll::params<const double>>);
  static_assert(!std::convertible_to<std::vector<int>&, unroll::params<const double>>);
  static_assert(!std::convertible_to<const Eigen::VectorXd&, unroll::dparams<double>>);
  static_assert(!std::convertible_to<Eigen::VectorXf&, unroll::dparams<double>>);
  static_assert(!std::convertible_to<int, unroll::params<const double>>);
  SUCCEED();
}

TEST_CASE("Eigen vectors and matrices convert without a copy") {
  Eigen::VectorXd v = Eigen::VectorXd::LinSpaced(6, 0, 5);
  CHECK(converts(v, v.data(), 6));
  Eigen::RowVectorXd r(4);
  CHECK(converts(r, r.data(), 4));
  Eigen::MatrixXd m(3, 4);
  CHECK(converts(m, m.data(), 12));
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows(3, 4);
  CHECK(converts(rows, rows.data(), 12));
  Eigen::Vector3d fixed;
  CHECK(converts(fixed, fixed.data(), 3));
  Eigen::ArrayXXd array(2, 5);
  CHECK(converts(array, array.data(), 10));
  Eigen::Map<Eigen::VectorXd> map(v.data() + 2, 3);
  CHECK(converts(map, v.data() + 2, 3));
}

TEST_CASE("contiguous parts of Eigen matrices convert, strided parts throw") {
  Eigen::MatrixXd m(3, 4);
  auto column = m.col(2);
  CHECK(converts(column, m.data() + 6, 3));
  auto columns = m.middleCols(1, 2);
  CHECK(converts(columns, m.data() + 3, 6));
  auto corner = m.block(1, 1, 2, 1);
  CHECK(converts(corner, m.data() + 4, 2));
  Eigen::VectorXd v(6);
  auto segment = v.segment(2, 3);
  CHECK(converts(segment, v.data() + 2, 3));

  auto row = m.row(1);
  CHECK_THROWS_AS(read(row), unroll::error);
  auto block = m.block(0, 0, 2, 2);
  CHECK_THROWS_AS(read(block), unroll::error);
  CHECK_THROWS_AS(write(block), unroll::error);
  Eigen::Map<Eigen::VectorXd, 0, Eigen::InnerStride<>> every_other(v.data(), 3, Eigen::InnerStride<>(2));
  CHECK_THROWS_AS(read(every_other), unroll::error);
  static_assert(!std::convertible_to<decltype(v + v), unroll::params<const double>>);  // an expression
}

TEST_CASE("blocks that are a single row or column of elements convert whatever their stride says") {
  Eigen::MatrixXd m(3, 4);
  auto one = m.block(1, 2, 1, 1);
  CHECK(converts(one, m.data() + 7, 1));
  Eigen::MatrixXd flat(1, 4);
  auto row = flat.row(0);
  CHECK(converts(row, flat.data(), 4));
  auto nothing = m.block(0, 0, 0, 2);
  CHECK(read(nothing).second == 0);
}

#ifdef UNROLL_TEST_XTENSOR

TEST_CASE("xtensor containers convert without a copy") {
  xt::xarray<double> a = xt::zeros<double>({2, 3});
  CHECK(converts(a, a.data(), 6));
  xt::xtensor<double, 1> v = xt::zeros<double>({5});
  CHECK(converts(v, v.data(), 5));
  xt::xarray<double, xt::layout_type::column_major> c = xt::zeros<double>({2, 3});
  CHECK(converts(c, c.data(), 6));
  xt::xtensor<double, 2> one_row = xt::zeros<double>({1, 7});
  CHECK(converts(one_row, one_row.data(), 7));
  std::vector<double> memory(6);
  auto adapted = xt::adapt(memory, std::vector<std::size_t>{2, 3});
  CHECK(converts(adapted, memory.data(), 6));
}

TEST_CASE("contiguous xtensor views convert from where they begin, strided ones throw") {
  xt::xtensor<double, 2> m = xt::zeros<double>({3, 4});
  auto row = xt::view(m, 1, xt::all());
  CHECK(converts(row, m.data() + 4, 4));
  auto rows = xt::view(m, xt::range(1, 3), xt::all());
  CHECK(converts(rows, m.data() + 4, 8));
  xt::xtensor<double, 1> v = xt::zeros<double>({6});
  auto part = xt::view(v, xt::range(2, 5));
  CHECK(converts(part, v.data() + 2, 3));

  auto column = xt::view(m, xt::all(), 1);
  CHECK_THROWS_AS(read(column), unroll::error);
  auto block = xt::view(m, xt::range(0, 2), xt::range(0, 2));
  CHECK_THROWS_AS(read(block), unroll::error);
  auto every_other = xt::view(v, xt::range(0, 6, 2));
  CHECK_THROWS_AS(write(every_other), unroll::error);
}

#endif
