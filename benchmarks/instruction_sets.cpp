// What kernels chosen at run time are worth: instruction_sets.py builds this file with and without
// -march=native and lays the times side by side. Prints a name and the seconds of the fastest of many calls.
#include <chrono>
#include <cstdio>
#include <unroll/llama.hpp>
#include <unroll/unroll.hpp>

using namespace unroll;

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// At least 15 samples of half a millisecond, or one call.
template <class F>
void report(const std::string& name, F f, int samples = 15) {
  int calls = 1;
  double fastest = 0;
  for (int taken = 0; taken < samples;) {
    const double start = now();
    for (int i = 0; i < calls; ++i) f();
    const double seconds = (now() - start) / calls;
    if (taken == 0 && seconds * calls < 5e-4) {
      calls *= 2;
      continue;
    }
    fastest = taken == 0 ? seconds : std::min(fastest, seconds);
    ++taken;
  }
  std::printf("%s %.9g\n", name.c_str(), fastest);
}

template <class T>
void operations(const std::string& type) {
  std::vector<T> a(1 << 20), b(a), c(a);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = T(i % 17) / 16 - T(0.5), b[i] = T(i % 13) / 16;
  struct shape {
    index_t m, n, k;
  };
  for (const shape s : {shape{64, 8, 64}, {256, 64, 256}, {512, 512, 512}})
    for (const op oa : {op::none, op::transpose}) {
      const index_t rows = oa == op::none ? s.m : s.k;
      report("gemm<" + type + ">/" + (oa == op::none ? "A B" : "A' B") + "/" + std::to_string(s.m) + "x" +
                 std::to_string(s.n) + "x" + std::to_string(s.k),
             [&] {
               linalg::gemm<T>(oa, {a.data(), rows, s.m * s.k / rows}, op::none, {b.data(), s.k, s.n}, false,
                               {c.data(), s.m, s.n});
             });
    }
  for (const index_t n : {16, 64, 256, 1024})
    for (const op oa : {op::none, op::transpose})
      report("gemv<" + type + ">/" + (oa == op::none ? "A x" : "A' x") + "/" + std::to_string(n), [&] {
        linalg::gemv<T>(oa, {a.data(), n, n}, b.data(), false, c.data());
      });
  for (const index_t n : {64, 1024}) {
    const std::string of = "<" + type + ">/" + std::to_string(n);
    report("tanh" + of, [&] { linalg::tanh(a.data(), c.data(), n); });
    report("logistic" + of, [&] { linalg::logistic(a.data(), c.data(), n); });
    report("exp" + of, [&] { linalg::exp(a.data(), c.data(), n); });
    report("swiglu" + of, [&] { kernels::swiglu(a.data(), b.data(), c.data(), n); });
  }
  kernels::attention_shape shape;
  shape.heads = shape.kv_heads = 4;
  shape.head_dim = 64;
  for (const index_t n : {1, 64, 256}) {
    std::vector<T> workspace(std::size_t(kernels::attention_workspace(shape, n, 256, 256)));
    const kernels::key_block<T> before{{a.data(), 256, 256}, {b.data(), 256, 256}};
    report("attention<" + type + ">/" + std::to_string(n) + " behind 256", [&] {
      kernels::attention<T>(
          {shape, {}, {a.data(), 256, n}, {&before, 1}, {{b.data(), 256, n}, {a.data(), 256, n}}},
          {c.data(), 256, n}, nullptr, workspace);
    });
  }
  report("rmsnorm<" + type + ">/256x64", [&] {
    kernels::rmsnorm<T>({a.data(), 256, 64}, b.data(), T(1e-5), {c.data(), 256, 64}, nullptr);
  });
}

// 6 layers of 256 units, segments of 64 tokens and 8 memory tokens.
void exact_gradient() {
  llama::config c{
      .hidden = 256, .intermediate_size = 688, .layers = 6, .heads = 4, .kv_heads = 4, .head_dim = 64};
  c.vocabulary = 512;
  c.context = 512;
  llama::memory_options o;
  o.segment = 64;
  o.ratio = 8;
  const llama::weight_map map(c);
  auto weights = std::make_shared<parameters<float>>(map.size());
  llama::init_weights<float>(map, *weights, key{1});
  const llama::memory_llama<float> model(c, weights, o);
  parameters<float> theta(model.names().size());
  llama::init_memory<float>(model, theta, key{2}, {});
  std::vector<llama::token> ids;
  for (index_t i = 0; i < 8 * o.segment + 1; ++i) ids.push_back(llama::token(i * 7919 % c.vocabulary));
  const auto text = llama::segments_of(ids, o.segment);
  rematerialise estimator(model, {.segments = 8});
  gradient<float> g(theta.size());
  report(
      "exact gradient/hidden 256/8 segments of 64",
      [&] {
        estimator.reset(key{3});
        estimator.advance(theta, text, g);
        estimator.finish(theta, g);
      },
      5);
}

}  // namespace

int main() {
  operations<float>("float");
  operations<double>("double");
  exact_gradient();
}
