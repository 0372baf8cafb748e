// cuda::detail::copies, cuda::host_block and device_block on the host, over a double of the CUDA runtime:
// whichever stream runs ahead, copies of both directions leave what one after another does; several devices
// of one thread.
#include "unroll/cuda/transfers.hpp"

#include <algorithm>
#include <numeric>

#include "tests/cuda/host_program.hpp"
#include "tests/cuda/runtime_double.hpp"

using namespace unroll;
using cuda::detail::copies;
using host_program::expect;

namespace {

/// Layers of kept numbers that pass through two windows, each of which is changed there, as layered_prefix
/// does it: what a window held goes back while what comes next follows it, in two pieces.
std::vector<float> through_windows(const std::vector<int>& order) {
  constexpr index_t layers = 5, size = 8, piece = size / 2;
  runtime_double::order = order;
  runtime_double::log.clear();
  const cuda::stream_handle operations;
  copies c;
  std::vector<float> kept(layers * size), windows(2 * size), others(layers), window_of_others(1),
      sums(layers);
  std::iota(kept.begin(), kept.end(), 1.0f);
  std::iota(others.begin(), others.end(), 100.0f);
  const cudaStream_t in = operations.get();
  const auto at = [](std::vector<float>& v, index_t first, index_t n) {
    return matrix<float>(v.data() + first, n, 1);
  };
  const auto bring = [&](index_t layer) {
    c.enqueue(copies::bring, matrix<const float>(at(others, layer, 1)), at(window_of_others, 0, 1), in);
    for (index_t p = 0; p < size; p += piece)
      c.enqueue(copies::bring, matrix<const float>(at(kept, layer * size + p, piece)),
                at(windows, layer % 2 * size + p, piece), in);
  };
  const auto take = [&](index_t layer) {
    for (index_t p = 0; p < size; p += piece)
      c.enqueue(copies::take, matrix<const float>(at(windows, layer % 2 * size + p, piece)),
                at(kept, layer * size + p, piece), in);
  };
  bring(0);
  for (index_t layer = 0; layer < layers; ++layer) {
    c.wait(in);
    const float of_layer = float(layer);
    float* const w = windows.data() + layer % 2 * size;
    reinterpret_cast<runtime_double::stream*>(in)->work.push_back([=, &sums, &window_of_others] {
      for (index_t i = 0; i < size; ++i) w[i] = 2 * w[i] + of_layer;
      sums[std::size_t(layer)] = window_of_others[0];
      return true;
    });
    take(layer);
    if (layer + 1 < layers) bring(layer + 1);
  }
  c.wait(in);
  operations.synchronise();
  kept.insert(kept.end(), sums.begin(), sums.end());
  return kept;
}

void in_windows() {
  std::vector<float> want;
  for (index_t i = 0; i < 40; ++i) want.push_back(2 * float(i + 1) + float(i / 8));
  for (index_t i = 0; i < 5; ++i) want.push_back(100 + float(i));
  // stream 0 has the operations, 1 brings and 2 takes
  std::vector<int> order{0, 1, 2};
  do expect(through_windows(order) == want, "numbers that pass through windows");
  while (std::next_permutation(order.begin(), order.end()));
}

void beside_each_other() {
  const auto order_of = [](bool same) {
    runtime_double::order = {0, 1, 2};  // what is brought runs ahead of what is taken
    runtime_double::log.clear();
    const cuda::stream_handle operations;
    copies c;
    float there[4] = {1, 2, 3, 4}, here[4] = {5, 6, 7, 8};
    const matrix<float> h(there, 2, 2, 2), d(here, 2, 1), e(same ? here + 1 : here + 2, 2, 1);
    c.enqueue(copies::take, matrix<const float>(d), columns_of(h, 0, 1), operations.get());
    c.enqueue(copies::bring, matrix<const float>(columns_of(h, 1, 1)), e, operations.get());
    c.wait(operations.get());
    operations.synchronise();
    expect(there[0] == 5 && there[1] == 6, "what was taken is what was there");
    return runtime_double::log;
  };
  expect(order_of(false) == std::vector<std::string>{"1: bring 8", "2: take 8"}, "other numbers: at once");
  expect(order_of(true) == std::vector<std::string>{"2: take 8", "1: bring 8"}, "the same numbers: in order");
}

void several_devices() {
  runtime_double::order.clear();
  auto& synchronised = runtime_double::synchronised;
  cudaSetDevice(1);
  {
    cuda::host_block<float> of_1(3);
    of_1.data()[2] = 7;
    cudaSetDevice(0);
    synchronised.clear();
    {
      const cuda::host_block<float> copy(of_1);
      expect(copy.data()[2] == 7 && copy.bytes() == 12, "a copy of a host_block");
      expect(synchronised == std::vector<int>{1}, "a copy waits for the device of the first");
      expect(runtime_double::current == 0, "the thread's device stays");
    }
    expect(synchronised == std::vector<int>{1, 1}, "and its end for the same device");
    cuda::host_block<float> other(1);
    other = std::move(of_1);
    synchronised.clear();
  }
  expect(synchronised == std::vector<int>{1}, "one that was moved waits for its own device alone");
  expect(runtime_double::current == 0, "the thread's device stays at the end");
  synchronised.clear();
  { const cuda::host_block<float> none, again(none); }
  expect(synchronised.empty(), "an empty one waits for nothing");

  cudaSetDevice(1);
  const cuda::device_block<float> on_1(2);
  cudaSetDevice(0);
  synchronised.clear();
  cuda::device_block<float> copy(on_1);
  expect(synchronised == std::vector<int>{1}, "a copy of a device_block is made on its device");
  expect(runtime_double::current == 0, "the thread's device stays behind a device_block");
  runtime_double::freed.clear();
  { const cuda::device_block<float> again(on_1), moved(std::move(copy)), empty; }
  expect(runtime_double::freed == std::vector<int>{1, 1}, "a device_block is freed on its device");
  expect(runtime_double::current == 0, "the thread's device stays at the end of a device_block");
}

template <class Block>
std::string refused(index_t n) {
  try {
    const Block made(n);
  } catch (const unroll::error& e) {
    return e.what();
  }
  return "made";
}

/// 2^61 + 2 doubles are 16 bytes, in 64 bits.
void sizes() {
  constexpr index_t n = (index_t{1} << 61) + 2;
  const std::string most = "is 2305843009213693954, must be at most 1152921504606846975";
  const auto says = [](const std::string& text, const std::string& what, const char* of) {
    expect(text.find(what) != text.npos, (std::string(of) + ": " + text).c_str());
  };
  says(refused<cuda::device_block<double>>(n), "cuda::device_block: size: " + most, "device_block");
  says(refused<cuda::pinned_block<double>>(n), "cuda::pinned_block: n: " + most, "pinned_block");
  says(refused<cuda::host_block<double>>(n), most, "host_block");
  says(refused<cuda::device_block<double>>(-1), "size: is -1", "a negative size");
}

}  // namespace

int main() {
  in_windows();
  beside_each_other();
  several_devices();
  sizes();
  return host_program::end("transfers");
}
