// Factors of adapters that are kept in the kind of products: how often they are cast, and that no bit depends
// on it.
#include "unroll/exec/kept_cast.hpp"

#include "tests/exec/results.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;

namespace {

using E = testing::simt::executor<numbers<bf16>>;

/// Adapters of ranks 4 and 8 in one theta, and what they are multiplied with.
struct adapters_of_theta {
  explicit adapters_of_theta(const E& on)
      : e(on), theta(tests::placed<float>(e, size, 1)), x(tests::placed<bf16>(e, in * n, 2)) {}

  std::int64_t casts() const { return e.machine().launches<kernels::copy_body<float, bf16>>(); }
  params<const float> all() { return {theta.data(), size}; }
  /// One by one, together, and back: 3 products of each.
  tests::results products() {
    std::vector<exec::adapted<E::numbers>> of;
    std::vector<exec::adapted_adjoint<E::numbers>> back;
    auto y = tests::filled<bf16>(e, 2 * out * n, 0), dy = tests::placed<bf16>(e, 2 * out * n, 3);
    auto g = tests::filled<float>(e, size, 0);
    auto dx = tests::filled<bf16>(e, in * n, 0);
    const auto factors = [&](auto* from, index_t i) {
      const index_t rank = 4 * (i + 1), at = i * 4 * (in + out);
      return std::pair(matrix(from + at, in, rank), matrix(from + at + in * rank, rank, out));
    };
    for (index_t i = 0; i < 2; ++i) {
      const auto [a, b] = factors(static_cast<const float*>(theta.data()), i);
      const auto [da, db] = factors(g.data(), i);
      const matrix<bf16> to(y.data() + i * out * n, out, n), dto(dy.data() + i * out * n, out, n);
      of.push_back({{a, b, 2}, to});
      back.push_back({{a, b, 2}, dto, {da, db}});
    }
    auto workspace = e.allocate<bf16>(E::adapters_workspace(in, out, n, true));
    const view<bf16> space(workspace);
    const matrix<const bf16> input(x.data(), in, n);
    for (const auto& one : of) e.adapt(one.l, input, one.y, space);
    e.adapt_all(std::span<const exec::adapted<E::numbers>>(of), input, space);
    e.adapt_all_vjp(std::span<const exec::adapted_adjoint<E::numbers>>(back), input,
                    matrix<bf16>(dx.data(), in, n), 1, space);
    return tests::fetched(e, y, g, dx);
  }

  static constexpr index_t in = 24, out = 16, n = 8, size = 12 * (in + out);
  E e;
  E::block<float> theta;
  E::block<bf16> x;
};

}  // namespace

TEST_CASE(
    "kept cast: factors are cast once after a change of theta, with the bits of a cast in every product",
    "[exec]") {
  adapters_of_theta one((E())), other((E()));
  const exec::kept_cast<E> kept(other.e, other.all());
  CHECK(kept.bytes() == std::size_t(2 * other.size));
  const auto same = [&](std::int64_t times) {
    const std::int64_t before = one.casts();
    CHECK(other.products() == one.products());
    CHECK(one.casts() - before == 12);
    CHECK(other.casts() == times);
    CHECK(kept.times() == times);
  };
  same(1);
  same(1);
  const std::vector<float> numbers = tests::numbers_like<float>(100, 9);
  for (auto* s : {&one, &other}) s->e.upload(numbers.data(), 100, s->theta.data() + 7);
  same(2);
  for (auto* s : {&one, &other}) {
    auto g = tests::placed<float>(s->e, s->size, 4);
    s->e.sgd(0.5, {s->theta.data(), g.data(), s->size, nullptr});
  }
  same(3);
  for (auto* s : {&one, &other}) {
    auto g = tests::placed<float>(s->e, 3, 4), m = g, v = tests::filled<float>(s->e, 3, 1);
    s->e.adamw({.rate = 0.5}, {s->theta.data() + s->size - 3, g.data(), 3, nullptr}, m.data(), v.data());
  }
  same(4);
}

TEST_CASE("kept cast: changed() casts again, and once it is gone every product does", "[exec]") {
  adapters_of_theta s((E()));
  {
    exec::kept_cast<E> kept(s.e, s.all());
    const auto before = s.products();
    s.e.machine().run(kernels::scale_body<float>{.alpha = 0.5, .x = s.theta.data(), .n = s.size});
    kept.changed();
    CHECK(s.products() != before);
    CHECK(s.casts() == 2);
    const exec::kept_cast<E> moved(std::move(kept));
    const auto again = s.products();
    CHECK(s.casts() == 2);
  }
  s.products();
  CHECK(s.casts() == 14);
}

TEST_CASE("kept cast: whatever operation writes to theta is noticed", "[exec]") {
  adapters_of_theta one((E())), other((E()));
  const exec::kept_cast<E> kept(other.e, other.all());
  std::int64_t times = 0;
  const auto noticed = [&](const auto& write) {
    for (auto* s : {&one, &other}) write(s->e, s->theta.data());
    CHECK(other.products() == one.products());
    CHECK(kept.times() == ++times);
  };
  constexpr index_t n = adapters_of_theta::size, half = n / 2;
  noticed([](const E& e, float* theta) { e.scale(0.5, theta + 3, 1); });
  noticed([](const E& e, float* theta) { e.axpy(2, theta, theta + half, half); });
  noticed([](const E& e, float* theta) {
    e.copy(matrix<const float>(theta, half, 1), matrix<float>(theta + half, half, 1));
  });
  noticed([](const E& e, float* theta) { e.fill(matrix<float>(theta + 2, 4, 7, 8), 0.25); });
  noticed([](const E& e, float* theta) { e.signs(key{3}, 1, theta, half); });
  noticed([](const E& e, float* theta) { e.normals(key{3}, 1, theta + half, half); });
}

TEST_CASE("kept cast: a factor that ends behind what is kept is cast as if none of it were", "[exec]") {
  adapters_of_theta one((E())), other((E()));
  const exec::kept_cast<E> kept(other.e, other.all().part(0, 90));  // of the first adapter's 96 + 64
  CHECK(other.products() == one.products());
  CHECK(other.casts() == one.casts());
}

TEST_CASE("kept cast: of a part of theta, which an upload to all of it changes", "[exec]") {
  adapters_of_theta s((E()));
  const exec::kept_cast<E> kept(s.e, s.all().part(160, 320));  // the second adapter
  s.products();
  CHECK(s.casts() == 6 + 1);
  const std::vector<float> numbers = tests::numbers_like<float>(s.size, 9);
  s.e.upload(numbers.data(), s.size, s.theta.data());
  const auto again = s.products();
  CHECK(s.casts() == 2 * (6 + 1));
  s.e.upload(numbers.data(), 160, s.theta.data());
  CHECK(s.products() == again);
  CHECK(s.casts() == 3 * 6 + 2);
}

TEST_CASE("kept cast: a recording that throws has cast nothing", "[exec]") {
  adapters_of_theta s((E())), want((E()));
  const exec::kept_cast<E> kept(s.e, s.all());
  const matrix<const float> a(s.theta.data(), s.in, 4), b(s.theta.data() + 4 * s.in, 4, s.out);
  auto y = tests::filled<bf16>(s.e, s.out * s.n, 0),
       workspace = s.e.allocate<bf16>(E::adapter_workspace(s.in + s.out, s.n, false));
  E::recording r;
  CHECK_THROWS_WITH(s.e.together(r,
                                 [&] {
                                   s.e.adapt({a, b, 1}, matrix<const bf16>(s.x.data(), s.in, s.n),
                                             matrix<bf16>(y.data(), s.out, s.n), view<bf16>(workspace));
                                   fail("f", "x", "is wrong");
                                 }),
                    "f: x: is wrong");
  CHECK(s.casts() == 0);
  CHECK(s.products() == want.products());
  CHECK(s.casts() == 1);
}

TEST_CASE("kept cast: nothing where products take parameters as they are", "[exec]") {
  const testing::simt::executor<numbers<float>> e;
  const auto theta = e.allocate<float>(8);
  CHECK(exec::kept_cast(e, params<const float>(theta.data(), 8)).bytes() == 0);
  const exec::host<numbers<float>> host;
  CHECK(exec::kept_cast(host, params<const float>(theta.data(), 8)).bytes() == 0);
}
