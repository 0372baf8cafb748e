// A Llama with random weights: forward (logits of all tokens), prefill (of the last one), decode (64 tokens
// one by one), gradient (forward and backward, all weights). Shapes: stories15M is 6 layers of 288 over 256
// tokens, mid 8 layers of 512 over 512, both with 32000 words. GF/s counts what the mathematics needs; share
// is that of the FMA peak of one core, measured just before.
//   taskset -c 1 llama --benchmark_filter=gradient
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>

#include "fma_peak.hpp"
#include "llama_workload.hpp"

using namespace unroll;

namespace {

enum what { forward, prefill, decode, loss_gradient };

void run(benchmark::State& state, const std::string& shape, what kind) {
  bench::llama_workload<float> at(shape, 1, 1);
  llama::init_weights<float>(at.map(), at.weights(), key{1});
  const index_t n = kind == decode ? at.decoded : at.tokens();
  const double flops = kind == loss_gradient ? 3 * at.flops(n, n) : at.flops(n, kind == prefill ? 1 : n);
  const double peak = fma_peak<float>();
  for (auto _ : state) {
    switch (kind) {
      case forward:
        at.forward();
        break;
      case prefill:
        at.prefill();
        break;
      case decode:
        at.decode();
        break;
      case loss_gradient:
        at.loss_gradient();
        break;
    }
    benchmark::ClobberMemory();
  }
  using counter = benchmark::Counter;
  state.counters["GF/s"] = counter(flops * 1e-9, counter::kIsIterationInvariantRate);
  state.counters["share"] = counter(flops / peak, counter::kIsIterationInvariantRate);
  state.counters["tokens/s"] = counter(double(n), counter::kIsIterationInvariantRate);
}

}  // namespace

int main(int argc, char** argv) {
  const char* names[] = {"forward", "prefill", "decode", "loss_gradient"};
  for (const char* shape : {"stories15M", "mid"})
    for (const what kind : {forward, prefill, decode, loss_gradient})
      benchmark::RegisterBenchmark((std::string("llama/") + shape + "/" + names[kind]).c_str(), run,
                                   std::string(shape), kind)
          ->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
