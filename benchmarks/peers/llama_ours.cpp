// One side of compare.py for a Llama: this library. Commands as in ours.cpp.
//   usage: llama_ours WORKLOAD SHAPE HIDDEN SEQUENCES TOKENS TYPE FOLDER
// WORKLOAD is llama-forward, llama-prefill, llama-decode, llama-gradient, or llama-gradient-2 on two threads;
// SHAPE is stories15M or mid, which say HIDDEN and TOKENS; TYPE is f32. Behind llama-forward, llama-prefill
// and llama-decode may stand -bf16: the weights are bfloat16.
//   size           -> the number of weights
//   gradient IN OUT-> reads weights from IN, runs, writes what the workload computes to OUT: the gradient, or
//                     logits (forward: of the last 16 tokens)
//   sample N       -> seconds of one of N repetitions: CPU time, of two threads wall time
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>

#include "benchmarks/llama_workload.hpp"

using namespace unroll;

namespace {

double seconds(bool wall) {
  if (!wall) return double(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// X: the numbers of the model, see transformer.
template <class X>
int serve(const std::string& workload, const std::string& shape, index_t sequences) {
  const bool two = workload == "llama-gradient-2", gradient = two || workload == "llama-gradient";
  bench::llama_workload<X> at(shape, sequences, two ? 2 : 1);
  const auto run = [&] {
    if constexpr (std::same_as<X, float>)
      if (gradient) {
        at.loss_gradient();
        return;
      }
    if (workload == "llama-forward")
      at.forward();
    else if (workload == "llama-prefill")
      at.prefill();
    else if (workload == "llama-decode")
      at.decode();
    else
      fail("llama_ours", "workload", "\"" + workload + "\" is unknown");
  };
  std::string command;
  while (std::cin >> command) {
    if (command == "size") {
      std::printf("%td\n", at.weights().size());
    } else if (command == "gradient") {
      std::string in, out;
      std::cin >> in >> out;
      std::vector<float> weights(std::size_t(at.weights().size()));
      std::ifstream file(in, std::ios::binary);
      if (!file.read(reinterpret_cast<char*>(weights.data()), std::streamsize(4 * weights.size())))
        fail("llama_ours", "file", in + " is too short");
      using weight = std::remove_cvref_t<decltype(at.weights()[0])>;
      std::transform(weights.begin(), weights.end(), at.weights().begin(), [](float w) { return weight(w); });
      run();
      view<const float> result(at.grad().data(), at.grad().size());
      if (!gradient) {
        const index_t kept = std::min<index_t>(at.logits().size(), 16 * at.shape().vocabulary);
        result = at.logits().part(at.logits().size() - kept, kept);
      }
      std::ofstream(out, std::ios::binary)
          .write(reinterpret_cast<const char*>(result.data()), std::streamsize(result.size() * 4));
      std::printf("end\n");
    } else if (command == "sample") {
      int n = 0;
      std::cin >> n;
      const double start = seconds(two);
      for (int i = 0; i < n; ++i) run();
      std::printf("%.9g\n", (seconds(two) - start) / n);
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 8) fail("llama_ours", "arguments", "are WORKLOAD SHAPE HIDDEN SEQUENCES TOKENS TYPE FOLDER");
  std::string workload = argv[1];
  const std::string end = "-bf16";
  if (!workload.ends_with(end)) return serve<float>(workload, argv[2], std::atoi(argv[4]));
  workload.resize(workload.size() - end.size());
  return serve<numbers<float, bf16>>(workload, argv[2], std::atoi(argv[4]));
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
