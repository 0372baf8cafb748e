// Numbers that an executor keeps in memory of the host: how a visitor sees them, and copies of both
// directions, each as far ahead of the other as exec/offload.hpp allows.
#include "unroll/exec/offload.hpp"

#include <numeric>

#include "tests/support/catch.hpp"
#include "unroll/exec/host.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;

using executor = testing::simt::executor<numbers<float>>;

TEST_CASE("kept on the host: shown where they are, in the bytes of numbers at the place", "[exec]") {
  const executor e;
  for (const index_t n : {6, 5, 0}) {  // five floats end within a word, and go through a copy
    exec::kept_block<executor, float> kept(e, 8, true), there(e, 8, false);
    std::iota(kept.data(), kept.data() + 8, 1.0f);
    e.upload(kept.data(), 8, there.data());
    std::vector<std::int64_t> words;
    const void* shown = nullptr;
    kept.visit(
        [&](const std::string& name, view<std::int64_t> x) {
          CHECK(name == "memories");
          shown = x.data();
          words.assign(x.begin(), x.end());
          std::fill(x.begin(), x.end(), 0);
        },
        "memories", e, n);
    CHECK(words.size() == std::size_t(n + 1) / 2);
    CHECK((shown == kept.data()) == (n == 6));
    there.visit(
        [&](const std::string&, view<std::int64_t> x) {
          CHECK(std::equal(x.begin(), x.end(), words.begin(), words.end()));
        },
        "memories", e, n);
    for (index_t i = 0; i < 8; ++i) CHECK(kept.data()[i] == (i < n ? 0 : float(i + 1)));
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
