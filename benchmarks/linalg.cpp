// Products and elementary functions against plain Eigen. Every benchmark alternates samples of both, at least
// 3 ms of CPU time each, and prints the medians (GF/s, for functions 10^9 elements/s), the median of the
// ratios, and our share of the FMA peak measured beside it; of functions also the largest error from -4 to 4
// in units in the last place. docs/performance/linalg.md is made by
//   taskset -c 1 linalg --benchmark_format=json | benchmarks/linalg_table.py
#include "unroll/core/linalg.hpp"

#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "fma_peak.hpp"

using namespace unroll;

namespace {

template <class T>
using dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;

template <class F>
double seconds_of(F& f, long calls) {
  const double start = cpu_seconds();
  for (long i = 0; i < calls; ++i) {
    f();
    benchmark::ClobberMemory();
  }
  return cpu_seconds() - start;
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + std::ptrdiff_t(x.size() / 2), x.end());
  return x[x.size() / 2];
}

/// `work` is what one call does.
template <class Ours, class Plain>
void compare(benchmark::State& state, double work, Ours ours, Plain plain, double peak = 0) {
  const auto calls = [](auto& f) {
    long n = 1;
    while (seconds_of(f, n) < 0.003) n *= 2;
    return n;
  };
  const long a = calls(ours), b = calls(plain);
  std::vector<double> our_rate, plain_rate, ratio;
  for (auto _ : state) {
    our_rate.push_back(work * double(a) / seconds_of(ours, a));
    plain_rate.push_back(work * double(b) / seconds_of(plain, b));
    ratio.push_back(our_rate.back() / plain_rate.back());
  }
  state.counters["ours"] = median(our_rate) * 1e-9;
  state.counters["Eigen"] = median(plain_rate) * 1e-9;
  state.counters["ratio"] = median(ratio);
  if (peak > 0) state.counters["share"] = median(our_rate) / peak;
}

enum product { nn, tn, nt };

/// C += op(A) op(B) with arguments m, n, k.
template <class T, product form>
void gemm(benchmark::State& state) {
  const index_t m = state.range(0), n = state.range(1), k = state.range(2);
  const index_t a_rows = form == tn ? k : m, b_rows = form == nt ? n : k;
  const dense<T> A = dense<T>::Constant(a_rows, m * k / a_rows, T(1e-4)),
                 B = dense<T>::Constant(b_rows, k * n / b_rows, T(0.25));
  dense<T> C = dense<T>::Zero(m, n), D = C;
  const auto ours = [&] {
    linalg::gemm<T>(form == tn ? op::transpose : op::none, {A.data(), A.rows(), A.cols()},
                    form == nt ? op::transpose : op::none, {B.data(), B.rows(), B.cols()}, true,
                    {C.data(), m, n});
  };
  const auto plain = [&] {
    if constexpr (form == nn)
      D.noalias() += A * B;
    else if constexpr (form == tn)
      D.noalias() += A.transpose() * B;
    else
      D.noalias() += A * B.transpose();
  };
  compare(state, 2.0 * double(m) * double(n) * double(k), ours, plain, fma_peak<T>());
}

/// A += alpha x y' with arguments m, n.
template <class T>
void ger(benchmark::State& state) {
  using column = Eigen::Matrix<T, Eigen::Dynamic, 1>;
  const index_t m = state.range(0), n = state.range(1);
  const column x = column::Constant(m, T(1e-4)), y = column::Constant(n, T(0.25));
  dense<T> A = dense<T>::Zero(m, n), B = A;
  compare(
      state, 2.0 * double(m) * double(n),
      [&] {
        linalg::ger<T>(T(0.5), x.data(), y.data(), {A.data(), m, n});
      },
      [&] { B.noalias() += T(0.5) * x * y.transpose(); }, fma_peak<T>());
}

// Google Benchmark 1.9 has renamed the type.
using registered = std::remove_pointer_t<decltype(benchmark::RegisterBenchmark(
    "", static_cast<void (*)(benchmark::State&)>(nullptr)))>;

void step_shapes(registered* b) {  // W h, W' d
  b->Iterations(9);
  for (const int h : {64, 128, 256, 512, 1024})
    for (const int lanes : {8, 32, 128}) b->Args({h, lanes, h});
}
void vector_shapes(registered* b) {
  b->Iterations(9);
  for (const int h : {16, 32, 64, 128, 192, 256, 384, 512, 1024, 2048}) b->Args({h, 1, h});
}
void gradient_shapes(registered* b) {  // D X' over a window
  b->Iterations(9);
  for (const int h : {64, 256, 512, 1024})
    for (const int rank : {8, 32, 128, 1280}) b->Args({h, h, rank});
  b->Args({4096, 1024, 1280});
}
void rank_one_shapes(registered* b) {
  b->Iterations(9);
  for (const int h : {16, 64, 256, 512, 1024}) b->Args({h, h});
}
void other_shapes(registered* b) {  // squares and the layers of a transformer
  b->Iterations(9);
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

#define PRODUCTS(T)                                                                               \
  BENCHMARK_TEMPLATE(gemm, T, nn)->Apply(vector_shapes)->Apply(step_shapes)->Apply(other_shapes); \
  BENCHMARK_TEMPLATE(gemm, T, tn)->Apply(vector_shapes)->Apply(step_shapes);                      \
  BENCHMARK_TEMPLATE(gemm, T, nt)->Apply(gradient_shapes);                                        \
  BENCHMARK_TEMPLATE(ger, T)->Apply(rank_one_shapes)
PRODUCTS(float);
PRODUCTS(double);

enum function { tanh, logistic, exp };

template <class T, function which>
void elementwise(benchmark::State& state) {
  using array = Eigen::Array<T, Eigen::Dynamic, 1>;
  const index_t n = state.range(0);
  const array x = array::LinSpaced(n, T(-4), T(4));
  array y(n), z(n);
  const auto ours = [&] {
    if constexpr (which == tanh)
      linalg::tanh(x.data(), y.data(), n);
    else if constexpr (which == logistic)
      linalg::logistic(x.data(), y.data(), n);
    else
      linalg::exp(x.data(), y.data(), n);
  };
  const auto plain = [&] {
    if constexpr (which == tanh)
      z = x.tanh();
    else if constexpr (which == logistic)
      z = x.logistic();
    else
      z = x.exp();
  };
  compare(state, double(n), ours, plain);
  const auto worst_ulp = [&](const array& of) {
    double worst = 0;
    for (index_t i = 0; i < n; ++i) {
      const long double u = x[i], e = std::exp(u);
      const long double exact = which == tanh ? std::tanh(u) : which == logistic ? e / (1 + e) : e;
      const T near = T(std::abs(exact));
      worst = std::max(worst, double(std::abs(of[i] - exact) / (std::nextafter(near, near * 2) - near)));
    }
    return worst;
  };
  state.counters["ulp"] = worst_ulp(y);
  state.counters["ulp_Eigen"] = worst_ulp(z);
#ifdef EIGEN_PATCH_VERSION
  const std::array version{EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION, EIGEN_PATCH_VERSION};
#else
  const std::array version{EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION};
#endif
  state.SetLabel("Eigen " + std::to_string(version[0]) + "." + std::to_string(version[1]) + "." +
                 std::to_string(version[2]));
}

#define ELEMENTWISE(T, which) \
  BENCHMARK_TEMPLATE(elementwise, T, which)->Iterations(9)->Arg(64)->Arg(1024)->Arg(16384)
ELEMENTWISE(float, tanh);
ELEMENTWISE(float, logistic);
ELEMENTWISE(float, exp);
ELEMENTWISE(double, tanh);
ELEMENTWISE(double, logistic);
ELEMENTWISE(double, exp);

}  // namespace

BENCHMARK_MAIN();
