// Small matrix products and elementary functions against plain Eigen in the same run. `share` is the part of
// the FMA peak that this run measured; run on one core and compare rows of one run only:
//   taskset -c 0 linalg --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
#include "unroll/core/linalg.hpp"

#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <array>
#include <chrono>
#include <vector>

using namespace unroll;

namespace {

template <class T>
using eigen_matrix = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>>;
template <class T>
using eigen_array = Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>;

/// Fused multiply-adds per second of twelve independent chains of the widest vectors, best of seven.
template <class T>
double fma_peak() {
  constexpr int chains = 12, rounds = 400000;
  volatile T one = 1, factor = T(0.9999), term = T(1e-7);  // hidden from constant folding
  double best = 0;
  for (int trial = 0; trial < 7; ++trial) {
    simd::vec<T> x[chains], f = simd::vec<T>{} + T(factor), t = simd::vec<T>{} + T(term);
    for (auto& v : x) v = simd::vec<T>{} + T(one);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < rounds; ++i) {
      UNROLL_FULLY
      for (int u = 0; u < chains; ++u) x[u] = x[u] * f + t;
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    for (auto& v : x) benchmark::DoNotOptimize(v);
    best = std::max(best, 2.0 * chains * rounds * simd::width<T> / seconds.count());
  }
  return best;
}

template <class T>
void report_rate(benchmark::State& state, double flops) {
  static const double peak = fma_peak<T>();
  const double total = flops * double(state.iterations());
  state.counters["GF/s"] = benchmark::Counter(total * 1e-9, benchmark::Counter::kIsRate);
  state.counters["share"] = benchmark::Counter(total / peak, benchmark::Counter::kIsRate);
}

enum class product { nn, tn, nt };

/// C += op(A) op(B) with arguments m, n, k.
template <class T, product form, bool ours>
void gemm(benchmark::State& state) {
  const index_t m = state.range(0), n = state.range(1), k = state.range(2);
  const index_t a_rows = form == product::tn ? k : m, b_rows = form == product::nt ? n : k;
  std::vector<T> a(std::size_t(m * k), T(0.5)), b(std::size_t(k * n), T(0.25)), c(std::size_t(m * n));
  const eigen_matrix<T> A(a.data(), a_rows, m * k / a_rows), B(b.data(), b_rows, k * n / b_rows);
  Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>> C(c.data(), m, n);
  for (auto _ : state) {
    if constexpr (ours)
      linalg::gemm<T>(form == product::tn ? op::transpose : op::none, {a.data(), a_rows, m * k / a_rows},
                      form == product::nt ? op::transpose : op::none, {b.data(), b_rows, k * n / b_rows},
                      true, {c.data(), m, n});
    else if constexpr (form == product::nn)
      C.noalias() += A * B;
    else if constexpr (form == product::tn)
      C.noalias() += A.transpose() * B;
    else
      C.noalias() += A * B.transpose();
    benchmark::ClobberMemory();
  }
  report_rate<T>(state, 2.0 * double(m) * double(n) * double(k));
}

void step_shapes(benchmark::internal::Benchmark* b) {  // W h, W' d
  for (const int h : {64, 128, 256, 512, 1024})
    for (const int lanes : {1, 8, 32, 128}) b->Args({h, lanes, h});
}
void gradient_shapes(benchmark::internal::Benchmark* b) {  // D X' over a window
  for (const int h : {64, 128, 256, 512, 1024})
    for (const int rank : {1, 8, 32, 128, 1280}) b->Args({h, h, rank});
}
void other_shapes(benchmark::internal::Benchmark* b) {  // squares and the layers of a transformer
  for (const int h : {64, 128, 256, 512, 1024, 2048}) b->Args({h, h, h});
  for (const auto& s : {std::array{288, 256, 288},
                        {768, 256, 288},
                        {288, 256, 768},
                        {1376, 512, 512},
                        {512, 512, 1376},
                        {768, 1024, 768},
                        {2048, 128, 2048}})
    b->Args({s[0], s[1], s[2]});
}

BENCHMARK_TEMPLATE(gemm, float, product::nn, true)->Apply(step_shapes)->Apply(other_shapes);
BENCHMARK_TEMPLATE(gemm, float, product::nn, false)->Apply(step_shapes)->Apply(other_shapes);
BENCHMARK_TEMPLATE(gemm, float, product::tn, true)->Apply(step_shapes)->Apply(other_shapes);
BENCHMARK_TEMPLATE(gemm, float, product::tn, false)->Apply(step_shapes)->Apply(other_shapes);
BENCHMARK_TEMPLATE(gemm, float, product::nt, true)->Apply(gradient_shapes);
BENCHMARK_TEMPLATE(gemm, float, product::nt, false)->Apply(gradient_shapes);
BENCHMARK_TEMPLATE(gemm, double, product::nn, true)->Apply(step_shapes);
BENCHMARK_TEMPLATE(gemm, double, product::nn, false)->Apply(step_shapes);

enum class function { tanh, logistic, exp };

template <class T, function which, bool ours>
void elementwise(benchmark::State& state) {
  const index_t n = state.range(0);
  std::vector<T> x(std::size_t(n), T(0)), y(x);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = T(8) * T(i * 7919 % 9973) / T(9973) - T(4);
  const Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>> X(x.data(), n);
  eigen_array<T> Y(y.data(), n);
  for (auto _ : state) {
    if constexpr (which == function::tanh) {
      if constexpr (ours)
        linalg::tanh(x.data(), y.data(), n);
      else
        Y = X.tanh();
    } else if constexpr (which == function::logistic) {
      if constexpr (ours)
        linalg::logistic(x.data(), y.data(), n);
      else
        Y = X.logistic();
    } else {
      if constexpr (ours)
        linalg::exp(x.data(), y.data(), n);
      else
        Y = X.exp();
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * n);
}

#define ELEMENTWISE(T, which)                                                                \
  BENCHMARK_TEMPLATE(elementwise, T, function::which, true)->Arg(64)->Arg(1024)->Arg(16384); \
  BENCHMARK_TEMPLATE(elementwise, T, function::which, false)->Arg(64)->Arg(1024)->Arg(16384)
ELEMENTWISE(float, tanh);
ELEMENTWISE(float, logistic);
ELEMENTWISE(float, exp);
ELEMENTWISE(double, tanh);
ELEMENTWISE(double, logistic);
ELEMENTWISE(double, exp);

}  // namespace

BENCHMARK_MAIN();
