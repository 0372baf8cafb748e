#include "tests/properties/random_task.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/estimate/control_variate.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/forward_gradient.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/pes_a.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/telescope.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/system/counted.hpp"

// What an estimator asks of the system is what it reports and what its documentation says.
namespace {

using unroll::call_counts;
using unroll::counted;
using unroll::index_t;

constexpr index_t T = 23;

using cell = unroll::cells::elman<double>;

support::random_task<cell> elman_task(index_t lanes) {
  unroll::cells::elman_options o;
  o.hidden = 3;
  o.lanes = lanes;
  return {cell(o), T, unroll::key{3}};
}

struct golden_task {
  golden::rnn<> cell;
  unroll::parameters<double> theta = golden::theta();
  std::vector<golden::rnn<>::input> xs = golden::long_inputs(T);
};

// Runs make(counted(task.cell)) over the task in chunks of five and returns what the system was asked for;
// the report must say the same.
template <class Task, class Make>
call_counts cost(const Task& task, Make&& make) {
  call_counts calls;
  auto estimator = make(counted(task.cell, calls));
  unroll::gradient<double> g(task.cell.size().params);
  calls = {};
  estimator.reset({});
  unroll::report total;
  const std::span all(task.xs);
  for (std::size_t i = 0; i < all.size(); i += 5)
    total += estimator.advance(task.theta, all.subspan(i, std::min(std::size_t(5), all.size() - i)), g);
  total += estimator.finish(task.theta, g);
  CHECK(total.code == unroll::status::ok);
  CHECK(total.steps == calls.steps);
  CHECK(total.vjps == calls.vjps);
  CHECK(total.jvps == calls.jvps);
  return calls;
}

}  // namespace

TEST_CASE("bptt costs one step and one vjp a step") {
  CHECK(cost(elman_task(1), [](auto f) { return unroll::bptt(f, {.max_steps = T, .block = 4}); }) ==
        call_counts{.steps = T, .vjps = T});
  CHECK(cost(golden_task{}, [](auto f) { return unroll::bptt(f); }) == call_counts{.steps = T, .vjps = T});
}

TEST_CASE("checkpointed_bptt costs one vjp a step and replays more the fewer slots it has") {
  std::int64_t before = 100 * T;
  for (const index_t slots : {1, 2, 4, 8, 22}) {
    const auto calls = cost(
        golden_task{}, [&](auto f) { return unroll::checkpointed_bptt(f, {.slots = slots, .steps = T}); });
    CHECK(calls.vjps == T);
    CHECK(calls.steps < before);
    before = calls.steps;
  }
  CHECK(before <= 2 * T);
}

TEST_CASE("tbptt costs k2 / k1 vjps a step, a chunk one") {
  for (const index_t k1 : {1, 3, 5})
    for (const index_t k2 : {5, 8}) {
      std::int64_t vjps = 0;
      for (index_t e = k1; e < T + k1; e += k1) vjps += std::min(e, T) - std::max(index_t(0), e - k2);
      CHECK(cost(elman_task(2), [&](auto f) { return unroll::tbptt(f, {.k1 = k1, .k2 = k2}); }) ==
            call_counts{.steps = T, .vjps = vjps});
    }
  CHECK(cost(elman_task(2), [](auto f) { return unroll::chunked_tbptt(f, {.window = 6}); }) ==
        call_counts{.steps = T, .vjps = T});
}

TEST_CASE("rtrl costs one vjp a step with the jacobian hook, else as many more as there are states") {
  const auto dense = cost(elman_task(2), [](auto f) { return unroll::rtrl(f, {.columns = 1000}); });
  CHECK(dense == call_counts{.steps = T, .vjps = T, .jacobians = T, .immediates = T});
  CHECK(cost(golden_task{}, [](auto f) { return unroll::rtrl(f); }) ==
        call_counts{.steps = T, .vjps = T + 2 * T});
}

TEST_CASE("uoro costs a step, two vjps and a jvp a step, in blocks of any length") {
  CHECK(cost(golden_task{}, [](auto f) { return unroll::uoro(f); }) ==
        call_counts{.steps = T, .vjps = 2 * T, .jvps = T});
  // five blocks of four steps; finish runs the last three without a draw
  CHECK(cost(elman_task(1), [](auto f) { return unroll::uoro(f, {.block = 4}); }) ==
        call_counts{.steps = T, .vjps = 5 * 8 + 3, .jvps = 20});
  // more lanes: 2K - 1 vjps for the draw of a block of K steps through lane_vjp
  CHECK(cost(elman_task(3), [](auto f) { return unroll::uoro(f, {.block = 4}); }) ==
        call_counts{.steps = T, .vjps = 5 * (4 + 7) + 3, .jvps = 20});
}

TEST_CASE("nobacktrack costs a step, two vjps and a jvp a step, and row norms or a vjp for every state") {
  CHECK(cost(elman_task(1), [](auto f) { return unroll::nobacktrack(f); }) ==
        call_counts{.steps = T, .vjps = 2 * T, .jvps = T, .row_norms = T});
  CHECK(cost(elman_task(3), [](auto f) { return unroll::nobacktrack(f); }) ==
        call_counts{.steps = T, .vjps = 2 * T, .jvps = T, .row_norms = T});
  CHECK(cost(golden_task{}, [](auto f) { return unroll::nobacktrack(f); }) ==
        call_counts{.steps = T, .vjps = 4 * T, .jvps = T});
}

TEST_CASE("artbp costs one vjp a step, and no replays while a run fits into a block") {
  const unroll::fixed_truncation law(4);
  const auto calls = cost(elman_task(1), [&](auto f) { return unroll::artbp(f, law, {.block = T}); });
  CHECK(calls.vjps == T);
  CHECK(calls.steps <= 2 * T);
  const auto replayed =
      cost(elman_task(1), [&](auto f) { return unroll::artbp(f, law, {.slots = 2, .block = 1}); });
  CHECK(replayed.vjps == T);
  CHECK(replayed.steps >= calls.steps);
}

TEST_CASE("evolution strategies cost two steps a pair and a step, and no derivative") {
  const call_counts expected{.steps = 2 * 3 * T};
  CHECK(cost(golden_task{}, [](auto f) { return unroll::es(f, {.pairs = 3}); }) == expected);
  CHECK(cost(golden_task{}, [](auto f) { return unroll::nres(f, {.pairs = 3, .window = 4}); }) == expected);
  CHECK(cost(golden_task{}, [](auto f) { return unroll::pes(f, {.pairs = 3, .window = 4}); }) == expected);
}

TEST_CASE("what the unbiased estimators report is what they ask for") {
  CHECK(cost(golden_task{}, [](auto f) { return unroll::forward_gradient(f, {.directions = 3}); }) ==
        call_counts{.steps = T, .jvps = 3 * T});
  // both levels: chunks of 5, and the whole sequence
  CHECK(cost(golden_task{}, [](auto f) {
          return unroll::telescope(f, {.ladder = {{5, 5}}, .probabilities = {1e-12, 1 - 1e-12}});
        }) == call_counts{.steps = T, .vjps = 2 * T});
  // windows of 4 steps, five of them behind the first and three steps more
  CHECK(cost(golden_task{}, [](auto f) { return unroll::pes_a(f, {.pairs = 2, .window = 4}); }) ==
        call_counts{.steps = 8 * T - 16, .vjps = 8 * T - 16});
  CHECK(cost(golden_task{}, [](auto f) {
          return unroll::control_variate(unroll::chunked_tbptt(f, {.window = 5}), unroll::bptt(f), {.p = 1});
        }) == call_counts{.steps = 2 * T, .vjps = 2 * T});
}

TEST_CASE("a mean of copies costs as many times more") {
  CHECK(cost(golden_task{}, [](auto f) { return unroll::mean_of(unroll::uoro(f), 3); }) ==
        call_counts{.steps = 3 * T, .vjps = 6 * T, .jvps = 3 * T});
}
