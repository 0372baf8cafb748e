#include "unroll/core/worker_pool.hpp"

#include <cstdio>
#include <string_view>

#include "tests/support/catch.hpp"
#include "unroll/core/error.hpp"

#if __has_include(<sys/resource.h>)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

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

#if __has_include(<sys/resource.h>)
namespace {

enum outcome { refused = 3, no_limit, other };  // what a child ends with

// In a process of its own, whose user may start no more than one thread.
[[noreturn]] void start_too_many() {
  const rlimit most{2, 2};
  if ((geteuid() == 0 && setuid(65534) != 0) || setrlimit(RLIMIT_NPROC, &most) != 0) _exit(no_limit);
  try {
    const worker_pool pool(8);
    _exit(no_limit);
  } catch (const error& e) {
    _exit(std::string_view(e.what()).find("worker_pool: size: is 8, but") == 0 ? refused : other);
  }
}

}  // namespace

TEST_CASE("a pool that the system does not give its threads says so, and ends those it has") {
  const pid_t child = fork();
  if (child == 0) start_too_many();
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == no_limit)
    std::printf("skipped: this system limits no threads\n");
  else
    CHECK(WEXITSTATUS(status) == refused);
}
#endif
