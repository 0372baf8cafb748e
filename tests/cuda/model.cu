// The Llama and its memory model on a device: every call, every policy and a training run. With products of
// our own the bits of the same run on the host; with cuBLASLt within twice the error of a bfloat16
// computation, in float 1e-5, of the double reference. Never other bits in a second run, which
// launches kernels early.
#include "tests/cuda/check.hpp"
#include "tests/cuda/model_case.hpp"
#include "unroll/cuda/stream.hpp"

namespace {

using namespace device_test;
using namespace model_test;

template <class N>
results on_device(std::size_t i, bool library, bool early) {
  return run(cuda::stream<N>(0, {.library = library, .early = early}), model_cases()[i]);
}

template <class N>
void compare(device_test::report& to, results (*by_bodies)(std::size_t), const char* kind) {
  constexpr bool in_float = std::same_as<typename N::activation, float>;
  for (std::size_t i = 0; i < model_cases().size(); ++i) {
    const std::string of = std::string(kind) + ", " + model_cases()[i].name;
    const results want = in_double(i), host = by_bodies(i);
    const results rounded = in_float ? results{} : in_torch_bf16(i);
    const results own = on_device<N>(i, false, false), again = on_device<N>(i, false, true);
    const results fast = on_device<N>(i, true, false), fast_again = on_device<N>(i, true, true);
    for (std::size_t j = 0; j < want.size(); ++j) {
      row bits{own[j].name + ", " + of + ", against the host's run"};
      bits.differing =
          differing(own[j].numbers, host[j].numbers) + differing(again[j].numbers, own[j].numbers);
      bits.of = 2 * (long long)want[j].numbers.size();
      bits.error = distance(own[j].numbers, want[j].numbers);
      bits.pass = bits.differing == 0 && own[j].name == want[j].name;
      to.add(bits);
      row close{own[j].name + ", " + of + ", with cuBLASLt"};
      close.error = distance(fast[j].numbers, want[j].numbers);
      close.limit = in_float ? 1e-5 : 2 * distance(rounded[j].numbers, want[j].numbers);
      close.differing = differing(fast_again[j].numbers, fast[j].numbers);
      close.of = (long long)want[j].numbers.size();
      close.pass = close.differing == 0 && (close.error <= close.limit || draws_by_norms(own[j].name));
      to.add(close);
    }
  }
}

void in_bf16(device_test::report& to) { compare<numbers<bf16>>(to, by_bodies_in_bf16, "bf16"); }
void in_float(device_test::report& to) { compare<numbers<float>>(to, by_bodies_in_float, "float"); }

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("model", argc, argv, {{"bf16", in_bf16}, {"float", in_float}});
}
