// Lists of operations that are made as one piece, on testing::simt: what they write the second time and
// later, with other spans, arguments and operations, has the bits of one call after another.
#include "unroll/exec/recording.hpp"

#include "tests/exec/results.hpp"
#include "unroll/exec/mirror.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;

namespace {

using executor = testing::simt::executor<numbers<float>>;
static_assert(exec::recordable<executor> && !exec::recordable<exec::host<numbers<float>>>);

/// Some operations of a step on a vector, with tokens and a step count; each the same in a list and not.
struct work {
  explicit work(const executor& on)
      : e(on),
        table(tests::placed<float>(e, 24, 1)),
        x(e.allocate<float>(12)),
        g(e.allocate<float>(12)),
        m(e.allocate<float>(12)),
        v(e.allocate<float>(12)) {}

  void step(std::span<const std::int32_t> tokens, std::int64_t t, double rate) const {
    e.gather_columns(matrix<const float>(table_data, 4, 6), tokens, matrix<float>(g_data, 4, 3));
    e.adamw({rate, 0.9, 0.99, 1e-8, 0, t}, {x_data, g_data, 12, nullptr}, m_data, v_data);
  }
  std::vector<float> numbers() const {
    std::vector<float> out(12);
    e.download(x_data, 12, out.data());
    e.synchronise();
    return out;
  }

  executor e;
  executor::block<float> table, x, g, m, v;
  float *table_data = table.data(), *x_data = x.data(), *g_data = g.data(), *m_data = m.data(),
        *v_data = v.data();
};

}  // namespace

TEST_CASE("recording: what is called together happens behind the last call, in order", "[exec]") {
  const executor e;
  auto x = tests::placed<float>(e, 4, 1), y = e.allocate<float>(4);
  executor::recording r;
  for (int time = 0; time < 3; ++time) {
    e.together(r, [&] {
      CHECK_THROWS_WITH(e.synchronise(), Catch::Contains("synchronise"));
      float none;
      CHECK_THROWS_WITH(e.download(x.data(), 1, &none), Catch::Contains("download"));
      e.copy(matrix<const float>(x.data(), 4, 1), matrix<float>(y.data(), 4, 1));
      e.scale(2, y.data(), 4);
      e.axpy(1, x.data(), y.data(), 4);
    });
    CHECK(tests::fetched(e, y)[0][1] == double(3 * exec::value(e, x.data() + 1)));
    e.fill(matrix<float>(y.data(), 4, 1), 0);
  }
  CHECK(r.size() == 3);
  CHECK(executor::recording(r).size() == 0);
}

TEST_CASE("recording: tokens, steps and rates of the time before are never left in a list", "[exec]") {
  const work alone{executor()}, listed{executor(key{1})};
  executor::recording r;
  std::vector<std::int32_t> tokens{5, 0, 5};  // in one place, as those of a text are
  for (std::int64_t t = 1; t <= 5; ++t) {
    const double rate = 0.1 / double(t);
    alone.step(tokens, t, rate);
    listed.e.together(r, [&] { listed.step(tokens, t, rate); });
    REQUIRE(listed.numbers() == alone.numbers());
    for (auto& id : tokens) id = (id + 1 + std::int32_t(t)) % 6;
  }
  CHECK(r.changes() == 5);  // AdamW's step and rate are arguments
}

TEST_CASE("recording: a list whose spans alone change is the same list", "[exec]") {
  const work alone{executor()}, listed{executor()};
  executor::recording r;
  // equal by chance the first time, so that two spans share a place
  std::vector<std::int32_t> first{1, 2, 3}, second{1, 2, 3};
  const auto both = [&](const work& w) {
    w.e.gather_columns(matrix<const float>(w.table_data, 4, 6), std::span<const std::int32_t>(first),
                       matrix<float>(w.g_data, 4, 3));
    w.e.gather_columns(matrix<const float>(w.table_data, 4, 6), std::span<const std::int32_t>(second),
                       matrix<float>(w.m_data, 4, 3));
    w.e.axpy(1, w.g_data, w.x_data, 12);
    w.e.axpy(-3, w.m_data, w.x_data, 12);
  };
  index_t changed = 0;
  for (std::int32_t t = 0; t < 6; ++t) {
    both(alone);
    listed.e.together(r, [&] { both(listed); });
    REQUIRE(listed.numbers() == alone.numbers());
    if (t == 2) changed = r.changes();
    first = {t % 6, (t + 3) % 6, 0};
    second = {5, t % 6, (2 * t) % 6};
    if (t == 3) second = first;  // again by chance
  }
  if (exec::compares_exactly) {
    CHECK(r.changes() == changed);
    CHECK(changed <= 3);
  }
}

TEST_CASE("recording: fewer, more and other operations", "[exec]") {
  const executor e;
  auto x = e.allocate<float>(3);
  executor::recording r;
  float want = 0;
  for (const int n : {2, 1, 3, 0, 2}) {
    e.together(r, [&] {
      for (int i = 0; i < n; ++i) {
        const float add = float(i + 1);
        e.upload(&add, 1, x.data() + 1);
        e.axpy(1, x.data() + 1, x.data(), 1);
      }
    });
    for (int i = 0; i < n; ++i) want += float(i + 1);
    CHECK(exec::value(e, x.data()) == want);
    CHECK(r.size() == 2 * n);
  }
}

TEST_CASE("recording: what throws happens not at all, and one cannot stand in another", "[exec]") {
  const executor e;
  auto x = e.allocate<float>(1);
  executor::recording r, other;
  const auto fill = [&](double value) { e.fill(matrix<float>(x.data(), 1, 1), value); };
  e.together(r, [&] { fill(1); });
  CHECK_THROWS_WITH(e.together(r,
                               [&] {
                                 fill(2);
                                 fail("test", "f", "throws");
                               }),
                    Catch::Contains("throws"));
  CHECK(exec::value(e, x.data()) == 1);
  CHECK_THROWS_WITH(e.together(r, [&] { e.together(other, [&] { fill(3); }); }), Catch::Contains("together"));
  CHECK(exec::value(e, x.data()) == 1);
  e.together(r, [&] { fill(4); });
  CHECK(exec::value(e, x.data()) == 4);
}

TEST_CASE("recording: copies to memory of the host and from it", "[exec]") {
  for (const std::uint64_t seed : {0u, 1u}) {
    const executor e(key{seed});
    auto there = e.host_allocate<float>(4);
    auto here = e.allocate<float>(4);
    executor::recording r;
    for (int time = 1; time <= 3; ++time) {
      for (index_t i = 0; i < 4; ++i) there.data()[i] = float(time * 10 + i);
      const matrix<float> kept(there.data(), 4, 1), at(here.data(), 4, 1);
      e.together(r, [&] {
        e.bring(matrix<const float>(kept), at);
        e.wait_for_copies();
        e.scale(2, here.data(), 4);
        e.take(matrix<const float>(at), kept);
        e.wait_for_copies();
      });
      CHECK(there.data()[3] == float(2 * (time * 10 + 3)));
    }
  }
}
