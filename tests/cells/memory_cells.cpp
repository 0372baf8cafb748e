#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"
#include "unroll/testing/memory_model_conformance.hpp"

namespace {

using namespace unroll;
using strings = std::vector<std::string>;

static_assert(memory_model<cells::linear_memory<float>> && memory_model<cells::linear_memory<double>>);
static_assert(memory_model<cells::attention_memory<float>> && memory_model<cells::attention_memory<double>>);

// The same segments in another scalar.
template <class T, class M>
strings conformance(const M& model, bool allocations = false) {
  std::vector<T> numbers(40);
  draw_normals(key{3}, 0, view<T>(numbers));
  std::vector<cells::example<T>> xs;
  for (std::size_t t = 0; t < 5; ++t) xs.push_back({.x = &numbers[8 * t], .target = &numbers[8 * t + 4]});
  parameters<T> theta(model.size().params);
  model.init(theta, key{4});
  return testing::memory_model_conformance(model, theta, xs, {.segments = 5, .allocations = allocations});
}

}  // namespace

TEST_CASE("the memory cells keep every rule of a memory model") {
  for (const bool recurrent : {false, true}) {
    const cells::linear_memory_options l{.in = 3, .memory = 4, .out = 2, .recurrent = recurrent};
    CHECK(conformance<double>(cells::linear_memory<double>(l)) == strings{});
    CHECK(conformance<float>(cells::linear_memory<float>(l)) == strings{});
    const cells::attention_memory_options a{.size = 3, .recurrent = recurrent};
    CHECK(conformance<double>(cells::attention_memory<double>(a)) == strings{});
    CHECK(conformance<float>(cells::attention_memory<float>(a)) == strings{});
  }
}

TEST_CASE("allocations that valgrind hides are no failure, those that nobody counts are one") {
  const cells::linear_memory<double> f({.in = 3, .memory = 4, .out = 2});
  CHECK_FALSE(conformance<double>(f, true).empty());
  testing::counting_is_linked = true;  // as under valgrind: linked, and nothing is counted
  CHECK(conformance<double>(f, true) == strings{});
  testing::counting_is_linked = false;
}

TEST_CASE("linear_memory writes W x, reads the mean, and its adjoints have their closed form") {
  const cells::linear_memory<double> f({.in = 1, .memory = 1, .out = 1});
  const std::vector<double> theta{2, 3, .5};  // w, v, b
  const double x[] = {1, -2}, target[] = {0, 4};
  const cells::example<double> first{.x = &x[0], .target = &target[0]},
      second{.x = &x[1], .target = &target[1]};
  double m0 = 0, m1 = 0, loss = 0, work[3];
  f.write({&first, 1}, 0, theta, {}, view<double>(&m0, 1), {}, view<double>(work, 3));
  f.write({&second, 1}, 1, theta, {}, view<double>(&m1, 1), {}, view<double>(work, 3));
  CHECK(m0 == 2);
  CHECK(m1 == -4);
  f.read({&first, 1}, 0, theta, {}, &loss, view<double>(work, 3));
  CHECK(loss == .125);  // b alone
  const double* past[] = {&m0, &m1};
  double d0 = 0;
  double* dpast[] = {&d0, nullptr};
  std::vector<double> g(3);
  // y = 3 (2 - 4) / 2 + 0.5 = -2.5, residual -6.5
  f.read_vjp({&second, 1}, 2, theta, past, &loss, {.dpast = dpast, .dtheta = g}, view<double>(work, 3));
  CHECK(loss == 6.5 * 6.5 / 2);
  CHECK(d0 == 3 * -6.5 / 2);
  CHECK(g == std::vector<double>{0, 6.5, -6.5});
}

TEST_CASE("attention_memory attends to nothing as zero and to equal memories equally") {
  const cells::attention_memory<double> f({.size = 1});
  CHECK_FALSE(reads_params(f));
  const double x = 1, target = 3, m = .25;
  const cells::example<double> e{.x = &x, .target = &target};
  const std::vector<double> theta{0.5, 0.1};
  double loss = 0, work[8];
  f.read({&e, 1}, 0, theta, {}, &loss, view<double>(work, 8));
  CHECK(loss == 4.5);
  const double* past[] = {&m, &m};
  double d[2] = {};
  double* dpast[] = {&d[0], &d[1]};
  f.read_vjp({&e, 1}, 2, theta, past, &loss, {.dpast = dpast}, view<double>(work, 8));
  CHECK(loss == 2.75 * 2.75 / 2);
  CHECK(d[0] == -2.75 / 2);
  CHECK(d[1] == -2.75 / 2);
}

TEST_CASE("memory cells refuse sizes of zero") {
  CHECK_THROWS_AS(cells::linear_memory<double>({.in = 0}), error);
  CHECK_THROWS_AS(cells::linear_memory<double>({.memory = 0}), error);
  CHECK_THROWS_AS(cells::linear_memory<double>({.out = 0}), error);
  CHECK_THROWS_AS(cells::attention_memory<double>({.size = 0}), error);
}
