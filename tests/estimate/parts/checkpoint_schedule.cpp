#include "unroll/estimate/parts/checkpoint_schedule.hpp"

#include "tests/support/catch.hpp"

namespace {

using unroll::checkpoint_schedule;
using unroll::index_t;

// P(T, s) by the dynamic program, cost[s][T].
std::vector<std::vector<std::int64_t>> advances_by_search(index_t max_slots, index_t max_steps) {
  std::vector<std::vector<std::int64_t>> cost(std::size_t(max_slots) + 1,
                                              std::vector<std::int64_t>(std::size_t(max_steps) + 1));
  for (std::size_t s = 1; s < cost.size(); ++s)
    for (std::size_t l = 2; l < cost[s].size(); ++l) {
      std::int64_t best = std::int64_t(l * (l - 1) / 2);
      if (s > 1)
        for (std::size_t m = 1; m < l; ++m)
          best = std::min(best, std::int64_t(m) + cost[s - 1][l - m] + cost[s][m]);
      cost[s][l] = best;
    }
  return cost;
}

// Walks a chain of `steps` steps whose state in front of step i is the number i; returns the evaluations of a
// step. Checks that every snapshot read is alive and that no more than `slots` are held.
std::int64_t walk(checkpoint_schedule& schedule, index_t steps) {
  std::vector<index_t> slot(std::size_t(schedule.slots()), -1);
  const auto write = [&](index_t at, index_t state) {
    REQUIRE((at >= 0 && at < schedule.slots()));
    slot[std::size_t(at)] = state;
  };
  schedule.reset();
  std::int64_t evaluations = 0;
  for (index_t i = 0; i < steps; ++i) {
    ++evaluations;
    if (i + 1 < steps)
      if (const index_t at = schedule.pass(i); at >= 0) write(at, i);
    REQUIRE(schedule.kept() <= schedule.slots());
  }
  schedule.discard(steps - 1);  // its record is still in the working memory
  for (index_t i = steps - 2; i >= 0; --i) {
    REQUIRE(schedule.kept() > 0);
    index_t state = slot[std::size_t(schedule.resume().slot)];
    REQUIRE(state == schedule.resume().step);
    REQUIRE(state <= i);
    while (state < i) {
      const index_t stop = schedule.stop(i);
      REQUIRE((stop > state && stop <= i));
      evaluations += stop - state;
      state = stop;
      if (state < i) write(schedule.store(state), state);
      REQUIRE(schedule.kept() <= schedule.slots());
    }
    ++evaluations;  // the recorded run
    schedule.discard(i);
  }
  REQUIRE(schedule.kept() == 0);
  return evaluations;
}

}  // namespace

TEST_CASE("longest_chain is the binomial coefficient and saturates") {
  for (index_t s = 0; s < 20; ++s)
    for (index_t r = 1; r < 20; ++r) {
      CHECK(unroll::longest_chain(s, 0) == 1);
      if (s > 0)
        CHECK(unroll::longest_chain(s, r) ==
              unroll::longest_chain(s - 1, r) + unroll::longest_chain(s, r - 1));  // Pascal
    }
  CHECK(unroll::longest_chain(3, -1) == 0);
  CHECK(unroll::longest_chain(33, 33) == 7219428434016265740);
  CHECK(unroll::longest_chain(34, 34) == std::numeric_limits<std::int64_t>::max());
  CHECK(unroll::longest_chain(1, std::int64_t{1} << 60) == (std::int64_t{1} << 60) + 1);
}

TEST_CASE("least_advances is the minimum over all ways to split") {
  const auto cost = advances_by_search(11, 70);
  for (index_t s = 1; s <= 11; ++s)
    for (index_t l = 1; l <= 70; ++l)
      CHECK(unroll::least_advances(l, s) == cost[std::size_t(s)][std::size_t(l)]);
}

TEST_CASE("first_split attains the minimum") {
  const auto cost = advances_by_search(11, 80);
  for (index_t s = 2; s <= 11; ++s)
    for (index_t l = 2; l <= 80; ++l) {
      const index_t m = unroll::first_split(l, s);
      REQUIRE((m >= 1 && m < l));
      CHECK(m + cost[std::size_t(s) - 1][std::size_t(l - m)] + cost[std::size_t(s)][std::size_t(m)] ==
            cost[std::size_t(s)][std::size_t(l)]);
    }
}

TEST_CASE("the known values of binomial checkpointing") {
  CHECK(unroll::least_advances(100, 10) == 222);
  CHECK(unroll::least_advances(1000, 50) == 1948);
  CHECK(unroll::least_advances(10000, 20) == 37976);
  CHECK(unroll::least_replays(1000000, 20) == 8);
  CHECK(std::abs(double(unroll::least_advances(1000000, 20)) - 6.816e6) < 1e3);
  const std::array<std::pair<index_t, double>, 6> total{
      {{5, 7.284}, {10, 4.636}, {20, 3.747}, {40, 3.097}, {60, 2.938}, {80, 2.918}}};
  for (const auto& [slots, ratio] : total)
    CHECK(std::abs(double(unroll::least_advances(1000, slots) + 1000) / 1000 - ratio) < 6e-4);
  // beyond 32 bits: two slots, r = ceil of the root of (r + 1)(r + 2) / 2 = T
  const std::int64_t steps = 10000000, r = 4471;
  REQUIRE((r * (r + 1) / 2 < steps && (r + 1) * (r + 2) / 2 >= steps));
  CHECK(unroll::least_advances(steps, 2) == r * steps - (r + 2) * (r + 1) * r / 6);
  CHECK(unroll::least_advances(std::int64_t{1} << 32, 1) ==
        (std::int64_t{1} << 31) * ((std::int64_t{1} << 32) - 1));
}

TEST_CASE("a chain of known length is reversed with the least number of advances") {
  for (index_t steps = 1; steps <= 60; ++steps)
    for (index_t slots = 1; slots <= std::min<index_t>(steps, 12); ++slots) {
      checkpoint_schedule schedule(slots, steps);
      CHECK(walk(schedule, steps) == unroll::least_advances(steps, slots) + steps);
      CHECK(walk(schedule, steps) == unroll::least_advances(steps, slots) + steps);  // again after reset
    }
}

TEST_CASE("a chain that ends before its announced length is still reversed") {
  for (index_t steps = 1; steps <= 30; ++steps)
    for (index_t slots = 1; slots <= 6; ++slots) {
      checkpoint_schedule schedule(slots, 30);
      CHECK(walk(schedule, steps) >= unroll::least_advances(steps, slots) + steps);
    }
}

TEST_CASE("a chain of unknown length is reversed, optimally up to (s + 1)(s + 2) / 2 steps") {
  for (index_t slots = 1; slots <= 10; ++slots) {
    checkpoint_schedule schedule(slots);
    for (index_t steps = 1; steps <= 100; ++steps) {
      const std::int64_t least = unroll::least_advances(steps, slots) + steps;
      const std::int64_t evaluations = walk(schedule, steps);
      CHECK(evaluations >= least);
      if (steps <= (slots + 1) * (slots + 2) / 2) CHECK(evaluations == least);
    }
  }
}

TEST_CASE("a chain of unknown length costs at most 30 percent more than one of known length") {
  double worst = 0;
  for (const index_t slots : {2, 3, 5, 10, 20, 30}) {
    checkpoint_schedule running(slots);
    for (index_t steps = 1; steps <= 4000; ++steps) {
      // the first sweep, then every stretch between two snapshots with the slots that are free by then
      std::int64_t evaluations = 2 * steps - 1;
      checkpoint_schedule schedule(running);
      for (index_t end = steps - 1; schedule.kept() > 0;) {
        const index_t first = schedule.resume().step;
        evaluations += unroll::least_advances(end - first, slots - schedule.kept() + 1);
        end = first;
        schedule.discard(first);
      }
      if (steps <= 60) {
        checkpoint_schedule again(slots);
        REQUIRE(walk(again, steps) == evaluations);
      }
      worst = std::max(worst, double(evaluations) / double(unroll::least_advances(steps, slots) + steps));
      running.pass(steps - 1);
    }
  }
  INFO("worst ratio " << worst);
  CHECK(worst > 1.05);  // the bound is about something
  CHECK(worst < 1.3);
}

TEST_CASE("a schedule needs a slot") { CHECK_THROWS_AS(checkpoint_schedule(0), unroll::error); }
