#include "unroll/kernels/rmsnorm.hpp"

#include "tests/kernels/differences.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/testing/allocations.hpp"

using namespace unroll;

namespace {

template <class T>
struct numbers {
  index_t rows, cols, stride;
  std::vector<T> x, gain, y, rstd, dy, dx, dgain;
  numbers(index_t rows_, index_t cols_, index_t gap = 0)
      : rows(rows_),
        cols(cols_),
        stride(rows_ + gap),
        x(tests::random_numbers<T>(stride * cols, 1)),
        gain(tests::random_numbers<T>(rows, 2)),
        y(x.size(), T(9)),
        rstd(std::size_t(cols), T(9)),
        dy(tests::random_numbers<T>(stride * cols, 3)),
        dx(x.size(), T(0)),
        dgain(gain.size(), T(0)) {}
  matrix<T> columns(std::vector<T>& m) const { return {m.data(), rows, cols, stride}; }
  void forward() { kernels::rmsnorm(columns(x), gain.data(), T(1e-3), columns(y), rstd.data()); }
  void backward() {
    kernels::rmsnorm_vjp(columns(x), gain.data(), rstd.data(), columns(dy), columns(dx), dgain.data());
  }
};

constexpr index_t sizes[] = {1, 3, 16, 37, 288};

}  // namespace

TEST_CASE("rmsnorm is its definition and leaves what lies between the columns", "[rmsnorm]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const index_t rows : sizes) {
    numbers<double> a(rows, 3, 2);
    a.forward();
    for (index_t j = 0; j < 3; ++j) {
      double squares = 0;
      for (index_t i = 0; i < rows; ++i) squares += std::pow(a.x[std::size_t(i + j * a.stride)], 2);
      const double rstd = 1 / std::sqrt(squares / double(rows) + 1e-3);
      CHECK(a.rstd[std::size_t(j)] == Approx(rstd).epsilon(1e-14));
      for (index_t i = 0; i < a.stride; ++i) {
        const std::size_t at = std::size_t(i + j * a.stride);
        CHECK(a.y[at] ==
              (i < rows ? Approx(a.x[at] * rstd * a.gain[std::size_t(i)]).epsilon(1e-13) : Approx(9.0)));
      }
    }
  }
}

TEST_CASE("rmsnorm_vjp agrees with finite differences and is the transpose of the derivative", "[rmsnorm]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const index_t rows : sizes) {
    INFO("rows " << rows);
    numbers<double> a(rows, 3);
    a.forward();
    a.backward();
    const auto loss = [&] {
      a.forward();
      return tests::dot(a.y, a.dy);
    };
    CHECK(tests::worst_slope(loss, a.x, a.dx) < 1e-7);
    CHECK(tests::worst_slope(loss, a.gain, a.dgain) < 1e-9);
    const auto d = tests::random_numbers<double>(index_t(a.x.size()), 7);
    CHECK(tests::derivative_along(loss, a.x, d) == Approx(tests::dot(d, a.dx)).epsilon(1e-7).margin(1e-7));
  }
}

TEST_CASE("rmsnorm_vjp adds, and leaves out the gain where it is null", "[rmsnorm]") {
  FOR_EACH_INSTRUCTION_SET();
  numbers<double> once(37, 4), twice(37, 4), none(37, 4);
  once.forward();
  once.backward();
  twice.forward();
  std::fill(twice.dx.begin(), twice.dx.end(), 1.0);
  std::fill(twice.dgain.begin(), twice.dgain.end(), 1.0);
  twice.backward();
  for (std::size_t i = 0; i < once.dx.size(); ++i)
    CHECK(twice.dx[i] == Approx(1 + once.dx[i]).epsilon(1e-13).margin(1e-13));
  for (std::size_t i = 0; i < once.dgain.size(); ++i)
    CHECK(twice.dgain[i] == Approx(1 + once.dgain[i]).epsilon(1e-13).margin(1e-13));
  none.forward();
  kernels::rmsnorm_vjp(none.columns(none.x), none.gain.data(), none.rstd.data(), none.columns(none.dy),
                       none.columns(none.dx), nullptr);
  CHECK(none.dx == once.dx);
}

TEST_CASE("rmsnorm in place, without the reciprocal deviations, has the same bits", "[rmsnorm]") {
  FOR_EACH_INSTRUCTION_SET();
  numbers<float> a(37, 4), b(37, 4);
  a.forward();
  kernels::rmsnorm(b.columns(b.x), b.gain.data(), 1e-3f, b.columns(b.x), nullptr);
  CHECK(b.x == a.y);
}

TEST_CASE("rmsnorm in float is that in double rounded, and nothing allocates", "[rmsnorm]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const index_t rows : sizes) {
    numbers<float> a(rows, 5);
    numbers<double> b(rows, 5);
    const testing::allocation_counter counter;
    a.forward();
    a.backward();
    b.forward();
    b.backward();
    CHECK(counter.count() == 0);
    CHECK((testing::allocations_are_counted() || testing::counting_is_replaced()));
    CHECK(tests::distance(a.y, b.y) < 1e-6);
    const double most =
        *std::max_element(b.rstd.begin(), b.rstd.end());  // of one number, up to 1 / sqrt(eps)
    CHECK(tests::distance(a.dx, b.dx) < 1e-6 * (1 + most * most * most));
    CHECK(tests::distance(a.dgain, b.dgain) < 4e-6);
  }
}
