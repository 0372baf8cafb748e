// Numbers that an executor keeps in memory of the host: how a visitor sees them, and copies of both
// directions, each as far ahead of the other as exec/offload.hpp allows.
#include "unroll/exec/offload.hpp"

#include <numeric>

#include "tests/support/catch.hpp"
#include "unroll/exec/host.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;

using executor = testing::simt::executor<numbers<float>>;

TEMPLATE_TEST_CASE("kept on the host: shown where they are, in the form of numbers at the place", "[exec]",
                   float, bf16) {
  using U = TestType;
  using shown_type = std::conditional_t<std::is_same_v<U, float>, float, std::int64_t>;
  constexpr index_t together = std::is_same_v<U, float> ? 1 : 4;  // numbers of a shown one
  const executor e;
  for (const index_t n : {12, 10, 0}) {  // ten bfloat16 end within a word, and go through a copy
    exec::kept_block<executor, U> kept(e, 16, true), there(e, 16, false);
    for (index_t i = 0; i < 16; ++i) kept.data()[i] = U(float(i + 1));
    e.upload(kept.data(), 16, there.data());
    std::vector<shown_type> numbers;
    const void* shown = nullptr;
    kept.visit(
        [&](const std::string& name, view<shown_type> x) {
          CHECK(name == "memories");
          shown = x.data();
          numbers.assign(x.begin(), x.end());
          std::fill(x.begin(), x.end(), shown_type(0));
        },
        "memories", e, n);
    CHECK(index_t(numbers.size()) == (n + together - 1) / together);
    CHECK((shown == kept.data()) == (n == 12 || (n == 10 && together == 1)));
    there.visit(
        [&](const std::string&, view<shown_type> x) {
          CHECK(std::equal(x.begin(), x.end(), numbers.begin(), numbers.end()));
        },
        "memories", e, n);
    for (index_t i = 0; i < 16; ++i) CHECK(float(kept.data()[i]) == (i < n ? 0 : float(i + 1)));
  }
}

TEST_CASE("copies of both directions: in order where they touch the same numbers at the place", "[exec]") {
  for (const std::uint64_t seed : {0u, 1u}) {  // which direction runs ahead
    const executor e(key{seed});
    auto host = e.host_allocate<float>(4), back = e.host_allocate<float>(2);
    auto here = e.allocate<float>(2);
    std::iota(host.data(), host.data() + 4, 1.0f);
    const matrix<float> at(here.data(), 2, 1), first(host.data(), 2, 1), second(host.data() + 2, 2, 1),
        to(back.data(), 2, 1);
    e.bring(matrix<const float>(first), at);
    e.take(matrix<const float>(at), to);
    e.bring(matrix<const float>(second), at);
    e.synchronise();
    CHECK(back.data()[0] == 1);
    CHECK(back.data()[1] == 2);
    CHECK(exec::value(e, here.data()) == 3);
  }
}

TEST_CASE("copies of both directions: what was taken elsewhere is not there before somebody has waited",
          "[exec]") {
  bool too_early = false;
  for (const std::uint64_t seed : {0u, 1u}) {
    const executor e(key{seed});
    auto host = e.host_allocate<float>(1);
    auto from = e.allocate<float>(1), to = e.allocate<float>(1);
    e.fill(matrix<float>(from.data(), 1, 1), 5);
    e.take(matrix<const float>(from.data(), 1, 1), matrix<float>(host.data(), 1, 1));
    e.bring(matrix<const float>(host.data(), 1, 1), matrix<float>(to.data(), 1, 1));
    e.synchronise();
    too_early = too_early || exec::value(e, to.data()) != 5;
  }
  CHECK(too_early);
}
