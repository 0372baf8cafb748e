// cuda::detail::recording on the host, over a double of the CUDA runtime: a list's graph has the arguments of
// the last call, also where a capture has failed or an operation in it has thrown; the device of its memory.
#include "tests/cuda/device_double.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/cuda/host_program.hpp"
#include "tests/cuda/runtime_double.hpp"
#include "unroll/cuda/machine.hpp"

using namespace unroll;
using cuda::detail::copies;
using cuda::detail::machine;
using cuda::detail::recording;
using cuda::detail::stream_state;
using host_program::expect;
using host_program::thrown;

namespace {

std::ptrdiff_t launched() {
  return std::count(runtime_double::log.begin(), runtime_double::log.end(), "graph");
}

struct device {
  std::shared_ptr<stream_state> state;
  machine m;
  explicit device(const cudaStream_t* of_caller = nullptr)
      : state(std::make_shared<stream_state>(of_caller)), m(state) {
    runtime_double::log.clear();
    runtime_double::order.clear();
  }
  /// As cuda::stream does it.
  template <class F>
  void together(recording& r, F&& f) const {
    cuda::detail::make_current(*state);
    exec::note("device", state->open, r, f);
    r.run(m);
  }
  /// *to = value.
  void set(float* to, float value) const {
    m.happen([=](const machine& on) {
      runtime_double::enqueue(runtime_double::of(on.state->own.get()), [=] {
        *to = value;
        return true;
      });
    });
  }
  void copy(copies::direction d, float* from, float* to) const {
    m.happen([=](const machine& on) {
      on.state->host_copies.enqueue(d, matrix<const float>(from, 1, 1), matrix<float>(to, 1, 1),
                                    on.state->own.get());
    });
  }
  void wait_for_copies() const {
    m.happen([](const machine& on) { on.state->host_copies.wait(on.state->own.get()); });
  }
};

void arguments() {
  const device d;
  recording r;
  float x = 0, y = 0;
  const auto call = [&](float value) {
    d.together(r, [&] {
      d.set(&x, value);
      d.copy(copies::take, &x, &y);
      d.wait_for_copies();
      d.set(&x, 0);
    });
    d.state->own.synchronise();
    return y;
  };
  expect(call(1) == 1 && launched() == 0, "the first time without a graph");
  expect(call(1) == 1 && launched() == 1, "the same list again: a graph");
  expect(call(2) == 2 && launched() == 2, "another argument: the graph is mended");
  runtime_double::refused = "cudaGraphExecUpdate";
  expect(call(3) == 3 && launched() == 3 && r.is_graph(), "a graph that cannot be mended is made anew");
  runtime_double::refused = "cudaStreamEndCapture";
  expect(!thrown([&] { call(4); }).empty(), "a capture that fails throws");
  d.state->own.synchronise();
  expect(call(4) == 4, "and nothing of the time before is left in the graph");
  expect(call(5) == 5 && x == 0, "nor later");
}

void what_throws() {
  const device d;
  recording r;
  float x = 0, there = 1;
  bool fails = false;
  const auto call = [&](float value) {
    d.together(r, [&] {
      d.copy(copies::bring, &there, &x);
      d.m.happen([at = &fails](const machine&) {
        if (*at) throw std::runtime_error("in the middle");
      });
      d.wait_for_copies();
      d.set(&there, value);
    });
    d.state->own.synchronise();
  };
  call(2), call(2);
  expect(x == 2 && launched() == 1, "what was brought by a graph");
  fails = true;
  expect(thrown([&] { call(3); }) == "in the middle", "an operation throws while it is captured");
  fails = false;
  there = 7;
  expect(thrown([&] {
           d.wait_for_copies();
           d.copy(copies::bring, &there, &x);
           d.wait_for_copies();
           d.state->own.synchronise();
         }).empty(),
         "copies behind it do not wait for those of the capture");
  expect(x == 7, "they bring");
  call(4), call(4);
  expect(x == 4 && launched() == 2, "and the list is recorded again");
}

void streams_and_devices() {
  const cudaStream_t by_default = nullptr;
  const device of_caller(&by_default);
  recording r;
  float x = 0;
  for (int time = 1; time <= 3; ++time) {
    of_caller.together(r, [&] { of_caller.set(&x, float(time / 2)); });
    of_caller.state->own.synchronise();
    expect(x == float(time / 2), "in the default stream, which cannot be captured");
  }
  expect(launched() == 0, "there is no graph of the default stream");

  const device d;
  recording spans;
  const float more[2] = {1, 2};
  d.together(spans, [&] {
    cudaSetDevice(1);  // as another executor does
    d.m.staged_bytes(more, sizeof more);
    expect(runtime_double::current == 0, "spans lie on the device of their executor");
  });
}

}  // namespace

int main() {
  arguments();
  what_throws();
  streams_and_devices();
  return host_program::end("graphs");
}
