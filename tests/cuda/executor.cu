// Every operation of the executor of a device against the executor that runs the same kernel bodies on the
// host: the same bits, in bfloat16 and in float. cuBLASLt and attention on tensor cores are tested in
// products.cu and attention.cu; here they are switched off, or of a size that they do not take.
#include <cmath>

#include "tests/cuda/check.hpp"
#include "tests/cuda/operations.hpp"
#include "unroll/cuda/stream.hpp"
#include "unroll/testing/simt/executor.hpp"

namespace {

using namespace device_test;
using namespace executor_test;

static_assert(exec::executor<cuda::stream<numbers<bf16>>>);
static_assert(exec::executor<cuda::stream<numbers<float>>>);
static_assert(exec::executor<cuda::stream<numbers<float, bf16>>>);

template <class N>
void all(report& to, const std::string& what) {
  const cuda::stream<N> device(0, {.library = false}), early(0, {.library = false, .early = true});
  const testing::simt::executor<N> host;
  const auto one = [&](const char* name, auto&& f) {
    const results got = f(device), again = f(early), want = f(host);
    row r{std::string(name) + ", " + what};
    r.differing = (long long)std::max(got.size(), want.size()) - (long long)std::min(got.size(), want.size());
    double largest = 0;
    r.error = 0;
    for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
      r.differing += std::memcmp(&got[i], &want[i], sizeof(float)) != 0;
      largest = std::max(largest, std::abs(double(want[i])));
      r.error = std::max(r.error, std::abs(double(got[i]) - double(want[i])));
    }
    r.error /= largest;
    r.of = (long long)want.size();
    r.pass = r.differing == 0;
    const long long moved = count_differing(got, again);
    if (moved != 0) {
      r.pass = false;
      r.note = "a second run, with early launches, differs in " + std::to_string(moved);
    }
    to.add(r);
  };
  one("movement", [](const auto& e) { return movement(e); });
  one("vectors and sums", [](const auto& e) { return vectors(e); });
  one("products of our own", [](const auto& e) { return products(e); });
  one("adapters", [](const auto& e) { return adapters(e); });
  one("adapters of one x", [](const auto& e) { return adapters_together(e); });
  one("rmsnorm and its vjp", [](const auto& e) { return norms(e); });
  one("rotary positions", [](const auto& e) { return rotations(e); });
  one("swiglu and its vjp", [](const auto& e) { return activations(e); });
  one("attention and its vjp, without tensor cores", [](const auto& e) { return attention(e); });
  one("attention of one token", [](const auto& e) { return decoding(e); });
  one("cross entropy and its vjp", [](const auto& e) { return losses(e); });
  one("choice of tokens", [](const auto& e) { return choices(e); });
  one("random numbers", [](const auto& e) { return random_numbers(e); });
  one("optimisers", [](const auto& e) { return optimisers(e); });
}

void in_bf16(report& to) { all<numbers<bf16>>(to, "bf16"); }
void in_float(report& to) { all<numbers<float>>(to, "float"); }
void with_bf16_weights(report& to) { all<numbers<float, bf16>>(to, "float with bf16 weights"); }

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("executor", argc, argv,
                          {{"bf16", in_bf16}, {"float", in_float}, {"bf16_weights", with_bf16_weights}});
}
