// The exact gradient of a Llama with memories by batches of segments: seconds of one gradient over a text,
// for every batch, in turns, and its share of the peak of multiply-adds, which is measured between them.
// Prints one JSON object; fails where two batches differ in a bit. usage: memory_batches [HIDDEN LAYERS
// SEGMENTS LENGTH RATIO VOCABULARY]
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "benchmarks/fma_peak.hpp"
#include "benchmarks/memory_workload.hpp"

using namespace unroll;
using namespace unroll::llama;

int main(int argc, char** argv) {
  const auto number = [&](int i, index_t otherwise) {
    return argc > i ? index_t(std::atol(argv[i])) : otherwise;
  };
  const bench::memory_shape shape{number(1, 64), number(2, 3), number(3, 64),
                                  number(4, 32), number(5, 8), number(6, 256)};
  const config c = shape.config();
  parameters<float> w(weight_map(c).size());
  init_weights<float>(weight_map(c), w, {1});
  const memory_llama<float> model(c, std::make_shared<const parameters<float>>(std::move(w)),
                                  shape.options());
  parameters<float> theta(model.names().size());
  init_memory<float>(model, theta, {2}, {-1, 0.1});
  std::vector<token> ids;
  for (index_t i = 0; i < shape.segments * shape.length + 1; ++i)
    ids.push_back(token(draw_index({3}, i, shape.vocabulary)));
  const auto text = segments_of(ids, shape.length);

  const std::vector<index_t> batches{1, 2, 4, 8, 16};
  std::vector<double> seconds(batches.size(), 1e9), operations, bytes;
  std::vector<gradient<float>> g;
  for (const index_t batch : batches) {
    const memory_plan p = shape.planned(batch);
    operations.push_back(p.operations());
    bytes.push_back(p.estimator_bytes());
    g.emplace_back(theta.size());
  }
  bool same = true;
  double peak = 0;
  for (int turn = 0; turn < 5; ++turn) {
    peak = std::max(peak, fma_peak<float>());
    for (std::size_t b = 0; b < batches.size(); ++b) {
      rematerialise e(model, {.segments = shape.segments, .batch = batches[b]});
      std::fill(g[b].begin(), g[b].end(), 0.f);
      e.reset({});
      const std::clock_t start = std::clock();
      report r = e.advance(theta, text, g[b]);
      r += e.finish(theta, g[b]);
      const double spent = double(std::clock() - start) / CLOCKS_PER_SEC;
      seconds[b] = std::min(seconds[b], spent);
      same = same && std::equal(g[b].begin(), g[b].end(), g[0].begin());
    }
  }
  std::printf(
      "{\"hidden\": %td, \"layers\": %td, \"segments\": %td, \"tokens\": %td, \"vocabulary\": %td, "
      "\"instructions\": \"%s\", \"peak_gflops\": %.4g, \"same_bits\": %s, \"batches\": [",
      shape.hidden, shape.layers, shape.segments, shape.length, shape.vocabulary,
      simd::name_of(simd::instructions()).data(), peak / 1e9, same ? "true" : "false");
  for (std::size_t b = 0; b < batches.size(); ++b)
    std::printf(
        "%s\n  {\"batch\": %td, \"seconds\": %.4g, \"gflops\": %.4g, \"share_of_peak\": %.3g, \"megabytes\": "
        "%.4g, "
        "\"speed\": %.3g}",
        b ? "," : "", batches[b], seconds[b], operations[b] / seconds[b] / 1e9,
        operations[b] / seconds[b] / peak, bytes[b] / 1e6, seconds[0] / seconds[b]);
  std::printf("]}\n");
  return same ? 0 : 1;
}
