#include "unroll/estimate/policy.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/testing/estimator_conformance.hpp"

using namespace unroll;
using namespace memory_task;

TEST_CASE("policies are read and written by their names") {
  using enum policy::kind;
  for (const auto& [text, p] :
       {std::pair<const char*, policy>{"rematerialise", {}},
        {"keep_all", {keep_all, 0}},
        {"keep:3", {keep, 3}},
        {"window:12", {window, 12}},
        {"reservoir:2", {reservoir, 2}},
        {"reservoir:2:uncompensated", {reservoir, 2, false}},
        {"proportional:4", {proportional, 4}},
        {"proportional:4:random_order", {proportional, 4, true, sampling_design::random_order}},
        {"proportional:4:independent", {proportional, 4, true, sampling_design::independent}},
        {"roulette:4", {.name = roulette, .size = 4}},
        {"roulette:4:by_distance", {.name = roulette, .size = 4, .inclusion = replay_inclusion::by_distance}},
        {"roulette:4:constant/2",
         {.name = roulette, .size = 4, .batch = 2, .inclusion = replay_inclusion::constant}},
        {"rematerialise/8", {.batch = 8}},
        {"keep:3/2", {.name = keep, .size = 3, .batch = 2}},
        {"proportional:4:independent/16", {proportional, 4, true, sampling_design::independent, 16}}}) {
    CHECK(parse_policy(text) == p);
    CHECK(to_string(p) == text);
  }
  CHECK(policy{} == parse_policy("rematerialise"));
}

TEST_CASE("what is not the name of a policy is refused") {
  for (const char* text : {"",
                           ":",
                           "window",
                           "window:",
                           "window:0",
                           "window:-1",
                           "window:02",
                           "window: 2",
                           "window:2:uncompensated",
                           "window:2x",
                           "window:99999999999999999999",
                           "keep_all:2",
                           "rematerialise:1",
                           "reservoir:uncompensated",
                           "reservoir:2:",
                           "reservoir:2:compensated",
                           "Window:2",
                           "uio",
                           "rematerialise/",
                           "rematerialise/0",
                           "rematerialise/1",
                           "rematerialise/02",
                           "rematerialise/2x",
                           "keep/2:3",
                           "window:2/2",
                           "reservoir:2/2",
                           "proportional:4:systematic",
                           "proportional:4:uniform",
                           "roulette:4:by_norm",
                           "roulette:4:independent",
                           "proportional::independent",
                           "proportional:4:",
                           "reservoir:2:independent",
                           "reservoir:2:uncompensated:independent"}) {
    INFO(text);
    CHECK_THROWS_AS(parse_policy(text), error);
  }
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_WITH(parse_policy("uio"), ContainsSubstring("\"uio\""));
  CHECK_THROWS_WITH(parse_policy("uio"), ContainsSubstring("reservoir:S"));
}

TEST_CASE("what a write's vjp throws reaches the caller under every policy") {
  struct throwing : linear {
    explicit throwing(linear f) : linear(std::move(f)) {}
    void write_vjp(std::span<const example> xs, index_t s, params<const double> theta,
                   std::span<const double* const> past, write_graphs<numbers<double>> graphs,
                   memory_gradients<numbers<double>> to, view<double> workspace) const {
      if (s == 1) fail("throwing", "s", "is 1");
      linear::write_vjp(xs, s, theta, past, graphs, to, workspace);
    }
  };
  const task<throwing> k(throwing(make_linear()), 7);
  // segment 1 is sent back whatever the draws
  for (const char* name :
       {"rematerialise", "keep_all", "keep:2", "window:2", "reservoir:2", "proportional:6", "roulette:6"}) {
    INFO(name);
    CHECK_THROWS_WITH(with_policy(parse_policy(name), k.model, 7, philox_chooser(key{5}),
                                  [&](auto e) { return run(e, k.theta, k.xs); }),
                      Catch::Matchers::ContainsSubstring("throwing: s: is 1"));
  }
}

TEST_CASE("with_policy makes the estimator of the name") {
  const task<linear> k(make_linear(), 7);
  const philox_chooser choose(key{5});
  const auto gradient_of = [&](const char* name) {
    return with_policy(parse_policy(name), k.model, 7, choose, [&](auto e) { return run(e, k.theta, k.xs); });
  };
  const auto exact = run(rematerialise(k.model), k.theta, k.xs);
  CHECK(gradient_of("rematerialise") == exact);
  CHECK(gradient_of("keep_all") == exact);
  CHECK(gradient_of("keep:2") == exact);
  CHECK(gradient_of("proportional:6") == exact);
  CHECK(gradient_of("roulette:6") == exact);
  CHECK(gradient_of("window:2") == run(incremental_tbptt(k.model, {.window = 2}), k.theta, k.xs));
  CHECK(gradient_of("reservoir:2") == run(reservoir_tbptt(k.model, {.size = 2}), k.theta, k.xs));
  CHECK(gradient_of("reservoir:2:uncompensated") ==
        run(uncompensated_reservoir<linear>(k.model, {.size = 2}), k.theta, k.xs));
  CHECK(gradient_of("proportional:2") == run(proportional_replay(k.model, {.budget = 2}), k.theta, k.xs));
  CHECK(gradient_of("proportional:2:random_order") ==
        run(proportional_replay(k.model, {.budget = 2, .design = sampling_design::random_order}), k.theta,
            k.xs));
  CHECK(gradient_of("proportional:2:independent") ==
        run(proportional_replay(k.model, {.budget = 2, .design = sampling_design::independent}), k.theta,
            k.xs));
  for (const auto& [name, inclusion] : {std::pair{"roulette:2", replay_inclusion::by_norm},
                                        {"roulette:2:by_distance", replay_inclusion::by_distance},
                                        {"roulette:2:constant", replay_inclusion::constant}})
    CHECK(gradient_of(name) ==
          run(roulette_replay(k.model, {.budget = 2, .inclusion = inclusion}), k.theta, k.xs));

  const auto live_graphs = [&](const char* name) {
    return with_policy(parse_policy(name), k.model, 7, choose, [&](auto e) {
      replay_counts c;
      run(e, k.theta, k.xs, nullptr, &c);
      return c.live_graphs;
    });
  };
  CHECK(live_graphs("rematerialise") == 1);
  CHECK(live_graphs("keep_all") == 6);
  CHECK(live_graphs("keep:4") == 4);
  CHECK(live_graphs("window:3") == 3);
  CHECK(live_graphs("reservoir:3") == 3);
  CHECK(live_graphs("proportional:3") == 1);

  const auto nothing = [](auto) {};
  for (const char* name : {"reservoir:2", "proportional:2"})
    CHECK_THROWS_AS(with_policy(parse_policy(name), make_linear(true), 7, choose, nothing), error);
}

TEST_CASE("every form of the catalogue is a policy that is what the catalogue says and conforms") {
  const task<linear> k(make_linear(), 7), recurrent(make_linear(true), 7);
  const auto exact = run(rematerialise(k.model), k.theta, k.xs);
  policy_catalogue::for_each([&](auto entry) {
    const catalogue_line line = line_of(entry);
    INFO(line.form);
    CHECK_FALSE(line.what.empty());
    policy p = entry.written;
    if (line.options().most > 0) p.size = 3;
    const std::string text = to_string(p);
    CHECK(text.starts_with(line.name()));
    CHECK(parse_policy(text) == p);
    CHECK(is_exact(p) == (line.gradient == claim::exact));
    CHECK(is_unbiased(p) == (line.gradient != claim::biased));
    with_policy(p, k.model, 7, philox_chooser{}, [&](auto e) {
      using E = decltype(e);
      CHECK(E::unbiased == is_unbiased(p));
      if (is_exact(p)) {
        CHECK_FALSE(E::random);
        CHECK(run(e, k.theta, k.xs) == exact);
      }
      CHECK(E::references.size() > 0);
      CHECK(testing::estimator_conformance(e, k.theta, k.xs) == std::vector<std::string>{});
    });
    const auto make = [](const policy& how, const linear& model) {
      with_policy(how, model, 7, philox_chooser{}, [](auto) {});
    };
    if (needs_independent(p))
      CHECK_THROWS_AS(make(p, recurrent.model), error);
    else
      CHECK_NOTHROW(make(p, recurrent.model));
    p.batch = 2;
    if (takes_batches(p)) {
      CHECK(parse_policy(text + "/2") == p);
      CHECK_NOTHROW(make(p, k.model));
    } else {
      CHECK_THROWS_AS(parse_policy(text + "/2"), error);
      CHECK_THROWS_AS(make(p, k.model), error);
    }
  });
}

TEST_CASE("a policy that has no form is refused") {
  using enum policy::kind;
  for (const policy& p : {policy{window, 2, false}, policy{keep, 2, true, sampling_design::independent},
                          policy{.name = roulette, .size = 2, .compensated = false},
                          policy{.name = keep, .size = 2, .inclusion = replay_inclusion::constant},
                          policy{proportional, 2, false}, policy{policy::kind(17)}}) {
    CHECK_THROWS_WITH(to_string(p), Catch::Matchers::ContainsSubstring("has no form with these options"));
    CHECK_THROWS_AS(is_unbiased(p), error);
  }
}

TEST_CASE("a window takes no batches") {
  const task<linear> k(make_linear(), 3);
  CHECK_THROWS_WITH(with_policy({.name = policy::kind::window, .size = 2, .batch = 2}, k.model, 3,
                                philox_chooser(key{5}), [&](auto e) { return run(e, k.theta, k.xs); }),
                    Catch::Matchers::ContainsSubstring("\"window:2/2\""));
}
