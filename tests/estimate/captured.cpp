// Policies whose calls are recorded, on testing::simt: the bits of those that are not, while texts, theta,
// rates and steps change and the list does not; who is at fault is named in front of the optimiser.
#include "unroll/estimate/captured.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/estimate/incremental_tbptt.hpp"
#include "unroll/estimate/proportional_replay.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/optim/adam.hpp"
#include "unroll/optim/schedule.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;
using namespace unroll::llama;

namespace {

using executor = testing::simt::executor<numbers<float>>;
using model = memory_llama<executor>;
static_assert(gradient_estimator<captured<rematerialise<model>>>);

// Token 16 has no finite embedding; it is never a target.
constexpr token poison = 16;

struct setting {
  executor e;
  model f = made(e, false);
  parameters<float> start;

  explicit setting(bool on_host = false) : f(made(e, on_host)) {
    auto o = small_memory::options();
    start = small_memory::start(small_memory::make<float>(small_memory::shape(2, false), o));
  }
  static model made(const executor& e, bool on_host) {
    const config c = small_memory::shape(2, false);
    auto o = small_memory::options();
    const auto drawn = small_memory::make<float>(c, o);
    o.memories_on_host = on_host;
    std::vector<float> w(drawn.weights().begin(), drawn.weights().end());
    w[std::size_t(weight_map(c).embedding() + poison * c.hidden)] = std::numeric_limits<float>::quiet_NaN();
    auto at = e.allocate<float, param_space>(index_t(w.size()));
    e.upload(w.data(), at.size(), at.data());
    return {c, std::make_shared<const model::weights_type>(std::move(at)), o, e};
  }
};

/// Losses and theta of a training run: texts, the rate and AdamW's step change from step to step.
template <class E>
std::vector<double> trained(const setting& s, E& estimator, index_t steps = 4) {
  auto theta = s.e.allocate<float, param_space>(s.start.size()), g = theta;
  s.e.upload(s.start.data(), theta.size(), theta.data());
  const params<float> at(theta.data(), theta.size());
  const dparams<float> to(g.data(), g.size());
  adam<executor> optimiser(theta.size(), {.rate = 0.01, .decay = 0.1}, s.e);
  const cosine_schedule rates{.warm_up = 1, .total = steps, .last = 0.1};
  std::vector<token> ids(27),
      fresh;  // the same memory for the texts of all steps; the last segment is shorter
  std::vector<double> out;
  for (index_t step = 0; step < steps; ++step) {
    fresh = small_memory::text(27, 16, std::uint64_t(3 + step));
    std::copy(fresh.begin(), fresh.end(), ids.begin());
    const auto text = segments_of(ids, 6);
    const std::span<const segment> xs(text);
    s.e.fill(matrix<float>(g.data(), g.size(), 1), 0);
    estimator.reset(key{std::uint64_t(step)});
    report r = estimator.advance(at, xs.first(3), to);
    r += estimator.advance(at, xs.subspan(3), to);
    r += estimator.finish(at, to);
    REQUIRE(r.code == status::ok);
    REQUIRE(optimiser.step(at, to, rates(step)) == status::ok);
    for (const double x : {r.loss, double(r.losses), double(r.consumed), double(r.steps), double(r.vjps)})
      out.push_back(x);
  }
  std::vector<float> end(std::size_t(theta.size()));
  s.e.download(theta.data(), theta.size(), end.data());
  s.e.synchronise();
  out.insert(out.end(), end.begin(), end.end());
  return out;
}

template <class Make>
void check_bits(const setting& s, Make&& make) {
  auto alone = make(s.f);
  captured recorded(make(s.f));
  const auto want = trained(s, alone);
  REQUIRE(trained(s, recorded) == want);
  const auto changes = [&] {
    index_t n = recorded.finishes().changes();
    for (const auto& list : recorded.advances()) n += list.changes();
    return n;
  };
  const index_t before = changes();
  CHECK(recorded.advances().size() == 2);
  CHECK(recorded.finishes().size() > 0);
  // both chunks and finish(): once to make them, once for spans that were equal by chance
  CHECK((before <= 6 || !exec::compares_exactly));
  auto copy = recorded;
  CHECK(trained(s, copy) == want);
  CHECK(copy.counts().writes == alone.counts().writes);
}

}  // namespace

TEST_CASE("captured: every call recorded gives the bits of none recorded", "[estimate]") {
  const setting s;
  check_bits(s, [](const model& f) { return rematerialise(f, {.segments = 5, .batch = 2}); });
  check_bits(s, [](const model& f) { return rematerialise(f, {.segments = 5, .keep = 2}); });
  check_bits(s, [](const model& f) { return incremental_tbptt(f, {.segments = 5, .window = 2}); });
}

TEST_CASE("captured: memories in memory of the host", "[estimate]") {
  const setting s(true);
  check_bits(s, [](const model& f) { return rematerialise(f, {.segments = 5, .batch = 2}); });
}

TEST_CASE("captured: the first segment that is not finite is named in front of the optimiser", "[estimate]") {
  const setting s;
  auto theta = s.e.allocate<float, param_space>(s.start.size()), g = theta;
  s.e.upload(s.start.data(), theta.size(), theta.data());
  const params<const float> at(theta.data(), theta.size());
  const auto ids = small_memory::text(30, 16);
  const auto fault_of = [&](auto&& estimator, index_t poisoned) {
    auto wrong = ids;
    auto text = segments_of(wrong, 6);
    if (poisoned >= 0) wrong[std::size_t(6 * poisoned + 4)] = poison;
    for (segment& x : text) x.targets = segments_of(ids, 6)[std::size_t(&x - text.data())].targets;
    estimator.reset(key{1});
    report r = estimator.advance(at, text, {g.data(), g.size()});
    CHECK((r.code == status::ok) == (poisoned < 0));
    if constexpr (requires { estimator.estimator(); })
      if (poisoned >= 0)
        CHECK_THROWS_WITH(estimator.finish(at, dparams<float>(g.data(), g.size())),
                          Catch::Contains("captured::finish"));
    return r.at;
  };
  rematerialise alone(s.f, {.segments = 5, .batch = 2});
  captured exact(rematerialise(s.f, {.segments = 5, .batch = 2}));
  captured window(incremental_tbptt(s.f, {.segments = 5, .window = 2}));
  for (const index_t poisoned : {-1, 0, 3, 4, -1}) {
    INFO("segment " << poisoned);
    CHECK(fault_of(alone, poisoned) == poisoned);
    CHECK(fault_of(exact, poisoned) == poisoned);
    CHECK(fault_of(window, poisoned) == poisoned);
  }
  const float inf = std::numeric_limits<float>::infinity();
  s.e.upload(&inf, 1, theta.data());
  CHECK(fault_of(alone, 0) == 0);
  CHECK(fault_of(exact, 0) == 0);
}

TEST_CASE("captured: a call that is refused is refused, and the next one is well", "[estimate]") {
  const setting s;
  captured exact(rematerialise(s.f, {.segments = 5}));
  auto alone = exact.estimator();
  auto want = trained(s, exact);
  auto theta = s.e.allocate<float, param_space>(s.start.size()), g = theta;
  auto ids = small_memory::text(12, 16);
  ids[3] = 17;
  const auto text = segments_of(ids, 6);
  exact.reset(key{1});
  CHECK_THROWS_WITH(exact.advance(params<float>(theta), text, dparams<float>(g.data(), g.size())),
                    Catch::Contains("vocabulary") || Catch::Contains("17"));
  // the estimator alone goes on; of this one's call nothing has happened, written memories included
  const auto good = small_memory::text(12, 16);
  CHECK_THROWS_WITH(exact.advance(params<float>(theta), segments_of(good, 6), {g.data(), g.size()}),
                    Catch::Contains("captured::advance: call") && Catch::Contains("reset()"));
  CHECK_THROWS_WITH(exact.finish(params<float>(theta), {g.data(), g.size()}),
                    Catch::Contains("captured::finish"));
  CHECK_THROWS_WITH(exact.visit([](const auto&, const auto&) {}), Catch::Contains("captured::visit"));
  CHECK(trained(s, exact) == want);
  CHECK_THROWS_WITH(
      captured(rematerialise(small_memory::make<float>(small_memory::shape(), small_memory::options()))),
      Catch::Contains("cuda::stream and testing::simt"));
}
