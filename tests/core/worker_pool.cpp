#include "unroll/core/worker_pool.hpp"

#include "tests/support/catch.hpp"
#include "unroll/core/error.hpp"

using namespace unroll;

TEST_CASE("every worker of a pool runs every job once") {
  for (const index_t size : {1, 2, 5}) {
    worker_pool pool(size);
    REQUIRE(pool.size() == size);
    std::vector<int> calls(std::size_t(size), 0);
    auto job = [&](index_t i) { ++calls[std::size_t(i)]; };
    for (int round = 0; round < 200; ++round) pool.run(job);
    for (const int n : calls) CHECK(n == 200);
  }
}

TEST_CASE("the exception of a worker reaches the caller and the pool goes on") {
  worker_pool pool(3);
  auto bad = [](index_t i) {
    if (i == 2) fail("job", "worker", "2 refuses");
  };
  CHECK_THROWS_AS(pool.run(bad), error);
  std::atomic<int> calls{0};
  auto good = [&](index_t) { ++calls; };
  pool.run(good);
  CHECK(calls == 3);
}
