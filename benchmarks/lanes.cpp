// Two cores against one: the same BPTT over 100 steps, its lanes dealt to two estimators or kept in one. Both
// sides alternate within one row; `ratio` is the median of one / two over the pairs (2: perfect). It means
// something only on a machine that is otherwise idle. Arguments of a row: hidden units, lanes.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <unroll/unroll.hpp>
#include <vector>

using namespace unroll;

namespace {

constexpr index_t steps = 100;

template <class Cell>
void two_cores(benchmark::State& state) {
  using T = typename Cell::scalar;
  using clock = std::chrono::steady_clock;
  const index_t h = state.range(0), lanes = state.range(1), width = h * lanes;
  const Cell cell({.in = h, .hidden = h, .out = 0, .lanes = lanes});
  parameters<T> theta(cell.size().params);
  cell.init(theta, key{1});
  std::vector<T> x(std::size_t(steps * width)), y(x.size());
  draw_normals(key{2}, 0, view<T>(x));
  draw_normals(key{3}, 0, view<T>(y));
  std::vector<cells::example<T>> xs;
  for (index_t t = 0; t < steps; ++t)
    xs.push_back({.x = x.data() + t * width, .target = y.data() + t * width});
  gradient<T> g(theta.size());

  const auto make = [](const auto& part) { return bptt(part, {.max_steps = steps}); };
  auto one = make(cell);
  lane_parallel two(cell, {.groups = 2}, make);
  const auto seconds = [&](auto& estimator) {
    const auto start = clock::now();
    g.zero();
    estimator.reset(key{});
    estimator.advance(theta, xs, g);
    estimator.finish(theta, g);
    return std::chrono::duration<double>(clock::now() - start).count();
  };
  seconds(one), seconds(two);
  std::vector<double> ratios;
  for (auto _ : state) {
    const double a = seconds(one), b = seconds(two);
    ratios.push_back(a / b);
  }
  std::sort(ratios.begin(), ratios.end());
  state.counters["ratio"] = ratios[ratios.size() / 2];
  state.counters["low"] = ratios.front();
  state.counters["high"] = ratios.back();
}

template <class Cell>
void add(const std::string& name) {
  auto* row = benchmark::RegisterBenchmark(name.c_str(), two_cores<Cell>);
  for (index_t h : {64, 256, 512})
    for (index_t lanes : {32, 128}) row->Args({h, lanes});
  row->Iterations(15)->Unit(benchmark::kMillisecond)->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
  add<cells::elman<float>>("elman");
  add<cells::gru<float>>("gru");
  add<cells::lstm<float>>("lstm");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
