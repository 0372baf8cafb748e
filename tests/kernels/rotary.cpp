#include "unroll/kernels/rotary.hpp"

#include "tests/kernels/differences.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/testing/allocations.hpp"

using namespace unroll;
using kernels::rotary;

namespace {
constexpr index_t heads[] = {2, 6, 16, 48, 66};
}

TEST_CASE("rotary turns pair i of a head by position / scale * base^(-2i / head)", "[rotary]") {
  FOR_EACH_INSTRUCTION_SET();
  const std::vector<index_t> positions{4, 0, 19};
  for (const bool neighbours : {false, true})
    for (const index_t head : heads) {
      INFO("head " << head << ", neighbours " << neighbours);
      const rotary<double> turn(head, 10000, neighbours, 20, 2);
      const index_t rows = 3 * head, stride = rows + 1, cols = 5;
      const auto before = tests::random_numbers<double>(stride * cols, 1);
      auto x = before;
      turn.rotate({x.data(), rows, cols, stride}, positions);
      double worst = 0;
      for (index_t j = 0; j < cols; ++j) {
        for (index_t h = 0; h < 3; ++h)
          for (index_t i = 0; i < head / 2; ++i) {
            const index_t at = h * head + j * stride;
            const std::size_t a = std::size_t(at + (neighbours ? 2 * i : i));
            const std::size_t b = std::size_t(at + (neighbours ? 2 * i + 1 : i + head / 2));
            const double angle = double(positions[std::size_t(j % 3)]) / 2 *
                                 std::pow(10000.0, -2.0 * double(i) / double(head));
            worst =
                std::max({worst, std::abs(x[a] - (before[a] * std::cos(angle) - before[b] * std::sin(angle))),
                          std::abs(x[b] - (before[b] * std::cos(angle) + before[a] * std::sin(angle)))});
          }
        CHECK(x[std::size_t(rows + j * stride)] == before[std::size_t(rows + j * stride)]);
      }
      CHECK(worst < 1e-14);
    }
}

TEST_CASE("rotate_back is the inverse and the transpose of rotate", "[rotary]") {
  FOR_EACH_INSTRUCTION_SET();
  const std::vector<index_t> positions{1, 7, 3, 2};
  for (const bool neighbours : {false, true})
    for (const index_t head : heads) {
      const rotary<double> turn(head, 500, neighbours, 8);
      const index_t rows = 2 * head;
      auto x = tests::random_numbers<double>(rows * 4, 1), dy = tests::random_numbers<double>(rows * 4, 2);
      const auto x0 = x, dy0 = dy;
      turn.rotate({x.data(), rows, 4}, positions);
      turn.rotate_back({dy.data(), rows, 4}, positions);
      CHECK(tests::dot(x, dy0) == Approx(tests::dot(x0, dy)).margin(1e-13));
      turn.rotate_back({x.data(), rows, 4}, positions);
      CHECK(tests::distance(x, x0) < 1e-15 * 8);
    }
}

TEST_CASE("an attention factor multiplies what is turned, its square, what is turned back", "[rotary]") {
  FOR_EACH_INSTRUCTION_SET();
  const std::vector<index_t> positions{1, 7, 3, 2};
  const std::vector<double> inverse{0.7, 0.01, 1e-4};
  for (const bool neighbours : {false, true}) {
    const rotary<double> turn(inverse, 1.25, neighbours, 8), plain(inverse, 1, neighbours, 8);
    auto x = tests::random_numbers<double>(12 * 4, 1), y = x, dy = tests::random_numbers<double>(12 * 4, 2);
    const auto x0 = x, dy0 = dy;
    turn.rotate({x.data(), 12, 4}, positions);
    plain.rotate({y.data(), 12, 4}, positions);
    for (double& v : y) v *= 1.25;
    CHECK(tests::distance(x, y) < 1e-15 * 8);
    turn.rotate_back({dy.data(), 12, 4}, positions);
    CHECK(tests::dot(x, dy0) == Approx(tests::dot(x0, dy)).margin(1e-13));
    turn.rotate_back({x.data(), 12, 4}, positions);
    for (double& v : x) v /= 1.25 * 1.25;
    CHECK(tests::distance(x, x0) < 1e-15 * 8);
  }
  CHECK_THROWS_WITH(rotary<double>(inverse, 0, false, 8), "rotary: attention: is 0.000000, must be positive");
}

TEST_CASE("products of turned queries and keys depend on the difference of their positions", "[rotary]") {
  FOR_EACH_INSTRUCTION_SET();
  const rotary<double> turn(16, 10000, false, 100);
  const auto q = tests::random_numbers<double>(16, 1), k = tests::random_numbers<double>(16, 2);
  const auto product = [&](index_t at_q, index_t at_k) {
    auto a = q, b = k;
    turn.rotate({a.data(), 16, 1}, std::vector<index_t>{at_q});
    turn.rotate({b.data(), 16, 1}, std::vector<index_t>{at_k});
    return tests::dot(a, b);
  };
  CHECK(product(90, 80) == Approx(product(10, 0)).epsilon(1e-12));
  CHECK(product(90, 80) != Approx(product(10, 1)).epsilon(1e-6));
}

TEST_CASE("rotary in float is that in double rounded, also far from 0, and turning does not allocate",
          "[rotary]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const bool neighbours : {false, true}) {
    const rotary<float> a(48, 10000, neighbours, 40000);
    const rotary<double> b(48, 10000, neighbours, 40000);
    const std::vector<index_t> positions{39999, 12345};
    auto x = tests::random_numbers<float>(96 * 2, 1);
    auto y = tests::random_numbers<double>(96 * 2, 1);
    const testing::allocation_counter counter;
    a.rotate({x.data(), 96, 2}, positions);
    b.rotate({y.data(), 96, 2}, positions);
    CHECK(counter.count() == 0);
    CHECK((testing::allocations_are_counted() || testing::counting_is_replaced()));
    CHECK(tests::distance(x, y) < 4e-7);
  }
}

TEST_CASE("rotary refuses odd heads and positions outside its table", "[rotary]") {
  FOR_EACH_INSTRUCTION_SET();
  CHECK_THROWS_WITH(rotary<float>(5, 10000, false, 4), "rotary: head_dim: is 5, must be even");
  CHECK_THROWS_WITH(rotary<float>(0, 10000, false, 4), "rotary: head_dim: is 0, must be at least 2");
  CHECK_THROWS_AS(rotary<float>(4, 0, false, 4), error);
  CHECK_THROWS_AS(rotary<float>(4, 10000, false, 4, 0), error);
  CHECK_THROWS_AS(rotary<float>(4, 10000, false, -1), error);
  const rotary<float> turn(4, 10000, false, 4);
  CHECK_NOTHROW(turn.check_positions("pass", std::vector<index_t>{0, 3}));
  CHECK_THROWS_WITH(turn.check_positions("pass", std::vector<index_t>{0, 4}),
                    "pass: positions: position 4 is outside 0 .. 3");
  CHECK_THROWS_AS(turn.check_positions("pass", std::vector<index_t>{-1}), error);
}
