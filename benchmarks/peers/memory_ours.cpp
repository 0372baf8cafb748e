// One side of compare.py for the exact gradient of a Llama with memories by rematerialise: this library.
// Commands as in ours.cpp.
//   usage: memory_ours WORKLOAD SHAPE HIDDEN SEGMENTS TOKENS TYPE FOLDER
// WORKLOAD is memory-gradient, segment by segment, or memory-gradient-N, N segments at a time; SHAPE is
// LAYERS-layers; TYPE is f32.
//   size           -> the number of frozen weights and trainable parameters
//   gradient IN OUT-> reads them from IN, weights first; writes the loss and the gradient to OUT
//   sample N       -> seconds of CPU time of one of N repetitions
//   bytes          -> what the estimator holds: as planned, and as it reports
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <optional>

#include "benchmarks/memory_workload.hpp"

using namespace unroll;

namespace {

void serve(const bench::memory_shape& shape, index_t batch) {
  std::vector<float> all(std::size_t(shape.weights() + shape.trainable()));
  gradient<float> g(shape.trainable());
  std::optional<bench::memory_workload> at;
  std::optional<rematerialise<bench::memory_workload::model_type>> e;
  std::string command, in, out;
  while (std::cin >> command) {
    if (command == "size") {
      std::printf("%zu\n", all.size());
    } else if (command == "gradient") {
      std::cin >> in >> out;
      std::ifstream file(in, std::ios::binary);
      if (!file.read(reinterpret_cast<char*>(all.data()), std::streamsize(4 * all.size())))
        fail("memory_ours", "file", in + " is too short");
      const params<const float> read(all.data(), index_t(all.size()));
      at.emplace(shape, read.part(0, shape.weights()), read.part(shape.weights(), shape.trainable()));
      e.emplace(at->estimator(batch));
      const float loss = float(at->loss_gradient(*e, g).loss);
      std::ofstream to(out, std::ios::binary);
      to.write(reinterpret_cast<const char*>(&loss), 4);
      to.write(reinterpret_cast<const char*>(g.data()), std::streamsize(4 * g.size()));
      std::printf("end\n");
    } else if (!e) {
      fail("memory_ours", "command", "\"" + command + "\" comes before gradient, which brings the weights");
    } else if (command == "sample") {
      int n = 0;
      std::cin >> n;
      const std::clock_t start = std::clock();
      for (int i = 0; i < n; ++i) at->loss_gradient(*e, g);
      std::printf("%.9g\n", double(std::clock() - start) / CLOCKS_PER_SEC / n);
    } else if (command == "bytes") {
      std::printf("%.0f %zu\n", shape.planned(batch).estimator_bytes(), at->loss_gradient(*e, g).bytes);
    }
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 8) fail("memory_ours", "arguments", "are WORKLOAD SHAPE HIDDEN SEGMENTS TOKENS TYPE FOLDER");
  const std::string workload = argv[1], name = "memory-gradient";
  if (!workload.starts_with(name)) fail("memory_ours", "workload", "\"" + workload + "\" is unknown");
  bench::memory_shape shape;
  shape.layers = std::atoi(argv[2]);
  shape.hidden = std::atoi(argv[3]);
  shape.segments = std::atoi(argv[4]);
  shape.length = std::atoi(argv[5]) / shape.segments;
  serve(shape, workload == name ? 1 : std::atoi(workload.c_str() + name.size() + 1));
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
