// Steps per second and variance x time of every estimator. Arguments of a row: hidden units, lanes.
#include <benchmark/benchmark.h>

#include <string>
#include <unroll/unroll.hpp>
#include <vector>

using namespace unroll;

namespace {

constexpr index_t steps = 100;

/// A network whose input is as wide as its state and whose loss reads the state: the recurrent work alone.
template <class Cell>
struct problem {
  using T = typename Cell::scalar;
  Cell cell;
  parameters<T> theta;
  std::vector<T> x, y;
  std::vector<cells::example<T>> xs;

  problem(index_t hidden, index_t lanes)
      : cell({.in = hidden, .hidden = hidden, .out = 0, .lanes = lanes}), theta(cell.size().params) {
    cell.init(theta, key{1});
    const index_t width = hidden * lanes;
    x.resize(std::size_t(steps * width));
    y.resize(x.size());
    draw_normals(key{2}, 0, view<T>(x));
    draw_normals(key{3}, 0, view<T>(y));
    for (index_t t = 0; t < steps; ++t)
      xs.push_back({.x = x.data() + t * width, .target = y.data() + t * width});
  }
};

template <class Cell, class Make>
void run(benchmark::State& state, const Make& make) {
  const problem<Cell> p(state.range(0), state.range(1));
  auto estimator = make(p.cell);
  gradient<typename Cell::scalar> g(p.theta.size());
  report work;
  for (auto _ : state) {
    g.zero();
    estimator.reset(key{7});
    work = estimator.advance(p.theta, p.xs, g);
    work += estimator.finish(p.theta, g);
    benchmark::DoNotOptimize(g.data());
  }
  const double n = double(state.iterations()) * steps;
  state.counters["steps/s"] = benchmark::Counter(n, benchmark::Counter::kIsRate);
  state.counters["s/step"] = benchmark::Counter(n, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["vjps/step"] = double(work.vjps) / steps;
  state.counters["jvps/step"] = double(work.jvps) / steps;
  state.counters["bytes"] = double(work.bytes);
}

/// Relative variance x seconds a sequence: what one digit of precision costs, whatever the estimator.
template <class Cell, class Make>
void variance_time(benchmark::State& state, const Make& make) {
  const problem<Cell> p(state.range(0), state.range(1));
  measurement m;
  for (auto _ : state) m = measure(make(p.cell), p.theta, std::span(p.xs), {.replicas = 200, .threads = 1});
  state.counters["tr V/g^2"] = m.variance / (m.exact_norm * m.exact_norm);
  state.counters["variance_time"] = m.variance_time / (m.exact_norm * m.exact_norm);
  state.counters["s/step"] = m.seconds;
}

template <class Cell, class Visitor>
void every_estimator(const Visitor& visit) {
  visit("bptt", [](const Cell& c) { return bptt(c, {.max_steps = steps}); });
  visit("checkpointed", [](const Cell& c) { return checkpointed_bptt(c, {.slots = 10, .steps = steps}); });
  visit("tbptt(1,10)", [](const Cell& c) { return tbptt(c, {.k1 = 1, .k2 = 10}); });
  visit("chunked(10)", [](const Cell& c) { return chunked_tbptt(c, {.window = 10}); });
  visit("artbp(10)", [](const Cell& c) { return artbp(c, polynomial_truncation(10)); });
  visit("uoro", [](const Cell& c) { return uoro(c); });
  visit("preuoro", [](const Cell& c) { return preuoro(c); });
  visit("uoro(10)", [](const Cell& c) { return uoro(c, {.block = 10}); });
  visit("nobacktrack", [](const Cell& c) { return nobacktrack(c); });
  visit("es(1)", [](const Cell& c) { return es(c, {.sigma = 0.01, .pairs = 1}); });
  visit("nres(1,10)", [](const Cell& c) { return nres(c, {.sigma = 0.01, .pairs = 1, .window = 10}); });
  visit("pes(1,10)", [](const Cell& c) { return pes(c, {.sigma = 0.01, .pairs = 1, .window = 10}); });
  visit("rtrl", [](const Cell& c) { return rtrl(c); });
}

template <class Cell>
void register_cell(const std::string& cell) {
  every_estimator<Cell>([&](const std::string& name, auto make) {
    auto* b = benchmark::RegisterBenchmark((cell + "/" + name).c_str(),
                                           [make](benchmark::State& s) { run<Cell>(s, make); });
    const index_t largest = name == "rtrl" || name == "nobacktrack" ? 64 : 256;
    for (index_t hidden : {16, 64, 256})
      for (index_t lanes : {1, 32})
        if (hidden <= largest && (name != "rtrl" || lanes == 1)) b->Args({hidden, lanes});
  });
}

void signs(benchmark::State& state) {
  std::vector<float> out(std::size_t(state.range(0)));
  const philox_chooser choose(key{1});
  std::int64_t t = 0;
  for (auto _ : state) {
    choose.signs(t++, view<float>(out));
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void normals(benchmark::State& state) {
  std::vector<float> out(std::size_t(state.range(0)));
  const philox_chooser choose(key{1});
  std::int64_t t = 0;
  for (auto _ : state) {
    choose.normals(t++, view<float>(out));
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void coins(benchmark::State& state) {
  const philox_chooser choose(key{1});
  std::int64_t t = 0;
  for (auto _ : state) benchmark::DoNotOptimize(choose.coin(t++, 0.1));
  state.SetItemsProcessed(state.iterations());
}

/// Units that do not listen to each other, by the whole influence and by that of each unit alone.
void register_units() {
  using cell = cells::lru<float>;
  benchmark::RegisterBenchmark("lru/rtrl", [](benchmark::State& s) {
    run<cell>(s, [](const cell& c) { return rtrl(c); });
  })->Args({64, 1});
  benchmark::RegisterBenchmark(
      "lru/diagonal_rtrl",
      [](benchmark::State& s) { run<cell>(s, [](const cell& c) { return diagonal_rtrl(c); }); })
      ->Args({16, 1})
      ->Args({64, 1});
}

/// Of ds/dtheta what lies within a unit, and, of a dense network, all of it by groups of columns.
void register_patterns() {
  using cell = cells::elman<float>;
  for (const index_t reach : {1, 2})
    benchmark::RegisterBenchmark(
        ("elman/snap:" + std::to_string(reach)).c_str(),
        [=](benchmark::State& s) { run<cell>(s, [=](const cell& c) { return snap(c, {.reach = reach}); }); })
        ->Args({16, 1})
        ->Args({64, 1});
}

}  // namespace

BENCHMARK(signs)->Arg(16)->Arg(64)->Arg(1024);
BENCHMARK(normals)->Arg(64)->Arg(1024);
BENCHMARK(coins);

int main(int argc, char** argv) {
  register_cell<cells::elman<float>>("elman");
  register_cell<cells::gru<float>>("gru");
  register_cell<cells::lstm<float>>("lstm");
  register_units();
  register_patterns();
  using small = cells::elman<double>;
  every_estimator<small>([](const std::string& name, auto make) {
    benchmark::RegisterBenchmark(("variance_time/" + name).c_str(),
                                 [make](benchmark::State& s) { variance_time<small>(s, make); })
        ->Args({8, 1})
        ->Args({32, 1})
        ->Iterations(1);
  });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
