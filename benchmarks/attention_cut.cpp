// The vjp of attention with all pairs and with a random part of them (kernels/attention_cut.hpp): 8 heads,
// 128 queries behind a prefix of blocks of 32 keys, floats, scores of standard deviation 2.25.
//   taskset -c 1 attention_cut
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "unroll/kernels/attention.hpp"
#include "unroll/kernels/attention_cut.hpp"

using namespace unroll;

namespace {

// pairs 0: all of them.
void run(benchmark::State& state, index_t head, index_t prefix, double pairs) {
  const kernels::attention_shape shape{8, 8, head};
  const index_t w = shape.kv_width(), n = 128, blocks = prefix / 32;
  std::vector<float> numbers(std::size_t(2 * w * (prefix + n) + 2 * w * n));
  draw_normals(key{1}, 0, view<float>(numbers));
  for (float& x : numbers) x *= 1.5f;
  std::vector<float> adjoints(std::size_t(2 * w * (prefix + n) + w * n)), out(std::size_t(w * n)),
      log_sum(std::size_t(8 * n)), workspace(std::size_t(kernels::attention_workspace(shape, n, prefix, 32)));
  const float* from = numbers.data();
  float* to = adjoints.data();
  const auto next = [&](auto*& at, index_t columns) {
    at += w * columns;
    return matrix(at - w * columns, w, columns);
  };
  std::vector<kernels::key_block<float>> before;
  std::vector<kernels::key_block_adjoint<float>> dbefore;
  for (index_t b = 0; b < blocks; ++b) {
    before.push_back({next(from, 32), next(from, 32)});
    dbefore.push_back({next(to, 32), next(to, 32)});
  }
  const kernels::attention_inputs<float> in{shape, {}, next(from, n), before, {next(from, n), next(from, n)}};
  kernels::attention<float>(in, {out.data(), w, n}, log_sum.data(), workspace);
  const kernels::attention_cotangents<float> given{{out.data(), w, n}, log_sum.data(), next(from, n)};
  const kernels::attention_adjoints<float> wanted{next(to, n), dbefore, {next(to, n), next(to, n)}};
  for (auto _ : state) {
    if (pairs > 0)
      kernels::attention_cut_vjp<float>(in, given, wanted, {.pairs = pairs, .draws = key{2}}, 0, workspace);
    else
      kernels::attention_vjp<float>(in, given, wanted, workspace);
    benchmark::ClobberMemory();
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (const index_t head : {32, 64, 128})
    for (const index_t prefix : {256, 1024, 4096})
      for (const int pairs : {0, 4, 16, 64})
        benchmark::RegisterBenchmark(
            ("attention_vjp/head " + std::to_string(head) + "/prefix " + std::to_string(prefix) + "/pairs " +
             (pairs > 0 ? std::to_string(pairs) : "all"))
                .c_str(),
            run, head, prefix, double(pairs))
            ->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
